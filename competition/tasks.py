"""The tasks of a competition: which columns a pair has, what its rows are grouped and stratified by."""

from dataclasses import dataclass

import pandas as pd

from competition.categories import top_level
from competition.errors import CompetitionError

SPLITS = ("train", "dev", "test")


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


QC = Task(name="QC", target="category_path", target_is_category=True, default_plan="category-group")
QI = Task(name="QI", target="item_title", target_is_category=False, default_plan="query-group")

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
