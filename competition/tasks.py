"""The tasks of a competition: which columns a pair has, what its rows are grouped and stratified by."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from competition.categories import top_level
from competition.errors import CompetitionError
from competition.layout import PLAIN, Layout

SPLITS = ("train", "dev", "test")

MetricName = Literal["f1", "macro_f1", "accuracy", "auc", "average_precision", "log_loss"]


@dataclass(frozen=True)
class SubmissionFormat:
    """What the host wants to get for a task; ``{task}`` in a name stands for the task's.

    Attributes
    ----------
    csv, text
        The names of a CSV file (id and prediction) and of a JSON Lines file (every row's fields and its prediction);
        empty where there is none.
    zip
        The archive of the JSON Lines file, or else of the CSV file; empty: none is wanted.
    id, prediction
        The header of the CSV file; empty: the column of the ids, and `Task.prediction`.
    value
        What a prediction is: a decision (``label``), or the probability of label 1 (``score``).
    words
        What is written for 0 and for 1; the digits if there are none.
    scale
        What the scores 0 and 1 are written as; scores between them lie between.
    rows
        How many rows the host expects, 0 if that is not known.
    """

    csv: str = "submission.csv"
    text: str = ""
    zip: str = ""
    id: str = ""
    prediction: str = ""
    value: Literal["label", "score"] = "label"
    words: tuple[str, ...] = ()
    scale: tuple[float, float] = (0.0, 1.0)
    rows: int = 0

    def __post_init__(self) -> None:
        if odd := [name for name in (self.text, self.csv, self.zip) if "/" in name or "\\" in name or ".." in name]:
            raise ValueError(f"{', '.join(odd)}: a plain file name")
        if not (self.text or self.csv):
            raise ValueError("a submission needs a file: csv, or text")
        if self.text and (self.value == "score" or self.words):
            raise ValueError("a JSON Lines file holds 0 and 1; scores and words go into a CSV file")
        if self.words and (self.value == "score" or len(set(self.words)) != 2 or not all(self.words)):
            raise ValueError("words are two different ones, for 0 and for 1, where the value is a label")
        if not self.scale[0] < self.scale[1]:
            raise ValueError("scale is two numbers, the smaller first")


@dataclass(frozen=True)
class Task:
    """One binary relevance task: is `query` relevant to `target`?

    The names are those of the competition's files. Inside relstack a row always has the columns
    `id, language, query, target, label` (see `competition.rows`).

    Attributes
    ----------
    name
        Short name, as in the file names: ``train_QC.txt``.
    target
        The file's column that holds the target text.
    target_is_category
        The target is a category path (levels, a tree); otherwise it is free text.
    default_plan
        The fold plan used unless the user names another one.
    id, task, language, query, label, prediction
        Further columns of the files; `task` may be empty: the files do not say which task they are for.
    metric
        What the host judges by, see `competition.metrics`.
    layout
        How the files become rows.
    submission
        What the host wants to get.
    """

    name: str
    target: str
    target_is_category: bool
    default_plan: str
    id: str = "id"
    task: str = "task"
    language: str = "language"
    query: str = "origin_query"
    label: str = "label"
    prediction: str = "prediction"
    metric: MetricName = "f1"
    layout: Layout = PLAIN
    submission: SubmissionFormat = SubmissionFormat()

    @property
    def text_columns(self) -> tuple[str, str, str]:
        """The file's columns that must hold text: language, query, target."""
        return (self.language, self.query, self.target)

    def stratum(self, rows: pd.DataFrame) -> pd.Series:
        """The stratum of every row, ``(n_rows,)`` text: language, top category level (category targets), label.

        Source: the fold rule of the CIKM 2025 AnalytiCup winner.
        """
        parts = rows["language"].astype(str) + "|" + rows["label"].astype(str)
        if self.target_is_category:
            codes, targets = pd.factorize(rows["target"].fillna(""))
            tops = pd.Series([top_level(target) for target in targets], dtype="str")
            parts = parts + "|" + tops.take(codes).set_axis(rows.index)
        return parts


CIKM_FORMAT = SubmissionFormat(csv="submit_{task}.csv", text="submit_{task}.txt", zip="submit.zip")
QC = Task("QC", "category_path", target_is_category=True, default_plan="category-group", submission=CIKM_FORMAT)
QI = Task("QI", "item_title", target_is_category=False, default_plan="query-group", submission=CIKM_FORMAT)

BUILT_IN = {task.name: task for task in (QC, QI)}


def get_task(name: str) -> Task:
    """The built-in task called `name`.

    Raises
    ------
    CompetitionError
        There is none of that name.
    """
    if name not in BUILT_IN:
        raise CompetitionError(f"no task is called {name!r}", advice=f"name one of {', '.join(BUILT_IN)}")
    return BUILT_IN[name]
