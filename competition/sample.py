"""Made-up multilingual competitions of any size, with a known signal and a known best F1.

The files have the format of the real ones, the words are real (`competition.lexicon`), and what is relevant
follows from the category tree and from the facets that a query names (`competition.shop`). A known share of
labels is flipped, each alone and whatever the row, and that (with the coins thrown for null titles) is all that
keeps a perfect model from F1 = 1. Dev and test hold languages and categories that train lacks.
"""

import csv
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from competition.distinct import DistinctTable
from competition.errors import CompetitionError, Fault
from competition.lexicon import read_lexicon
from competition.shop import Dice, Pair, Shop
from competition.tasks import BUILT_IN, QI, SPLITS, Task

TRAIN_LANGUAGES = {
    "QC": ("en", "es", "fr", "ja", "ko", "pt"),
    "QI": ("en", "es", "fr", "ja", "ko", "pt", "th"),
}
UNSEEN_LANGUAGES = {"QC": ("de", "it", "pl", "ar"), "QI": ("de", "it", "pl", "ar", "vn", "id")}
POSITIVE_RATE = {"QC": 0.66, "QI": 0.62}
MAX_FLIP_RATE = 0.15  # above it the positive rates cannot be reached with two or three candidates per query
UNSEEN_GROUP_RATE = 0.08
NULL_TITLE_RATE = 0.002  # the real file: 453 of 340,000; about half of these were labelled positive
TRANSLATIONS = "translations.csv"
ANSWERS = "answers.csv"


@dataclass(frozen=True)
class SampleFile:
    """One file of a made-up competition.

    Attributes
    ----------
    positive_rate
        Share of rows with label 1, hidden labels included.
    bayes_f1
        The F1 of the best possible predictions, in expectation over the flips: they know the label before it was
        flipped, and so the probability of label 1, which is `flip_rate`, 1 - `flip_rate` or (null title) 1/2. The
        best rule calls positive what is above half the best F1, and no flip rate that is allowed comes near that.
    bayes_f1_error
        The standard error of those predictions' F1 on this file: how far the flips that were drawn move it.
    """

    task: str
    split: str
    path: Path
    n_rows: int
    positive_rate: float
    bayes_f1: float
    bayes_f1_error: float


@dataclass(frozen=True)
class SampleSummary:
    """What `write_sample` wrote; `unseen_categories` are the category paths that only dev and test have."""

    folder: Path
    files: tuple[SampleFile, ...]
    n_translations: int
    flip_rate: float
    unseen_categories: tuple[str, ...]
    seed: int

    def file(self, task: str, split: str) -> SampleFile:
        """The file of `task` and `split`."""
        return next(file for file in self.files if (file.task, file.split) == (task, split))


def write_sample(
    folder: str | Path,
    *,
    n_train: int = 6000,
    n_dev: int = 1500,
    n_test: int = 1500,
    seed: int = 0,
    tasks: Sequence[str] = ("QC", "QI"),
    flip_rate: float = 0.05,
    label_dev: bool = True,
    answers: str | Path | None = None,
) -> SampleSummary:
    """Write a made-up competition to `folder` and return what it holds.

    Writes ``train_QC.txt`` and so on, and ``translations.csv`` (language, origin_query, translated_query)
    with the true English of every query. Equal arguments give equal bytes, and a larger file begins with the
    smaller one. Rows are written as they are drawn, so memory hardly grows with their number
    (`competition.distinct` for the translations).

    Parameters
    ----------
    n_train, n_dev, n_test
        Rows per file, for each task.
    flip_rate
        Share of labels that are wrong, 0 to `MAX_FLIP_RATE`.
    label_dev
        Whether dev rows carry labels, as a demo needs, or none, as in the real files.
    answers
        A CSV file for the labels of test: task, id, label, best_prediction (that of a perfect model).

    Raises
    ------
    CompetitionError
        An argument is out of range, or a file of that name exists; nothing is written then.
    """
    folder, answers = Path(folder), Path(answers) if answers else None
    sizes = dict(zip(SPLITS, (n_train, n_dev, n_test), strict=True))
    faults = _argument_faults(sizes, tasks, flip_rate) or _existing_files(folder, tasks, answers)
    if faults:
        raise CompetitionError(
            "the sample cannot be written", faults=faults, advice="name a new folder, or other numbers"
        )
    unseen = _unseen_groups(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample-", dir=folder) as draft:
        with _SampleWriter(Path(draft), flip_rate, label_dev) as writer:
            for task in tasks:
                for split, n_rows in sizes.items():
                    lexicon = read_lexicon().without(unseen if split == "train" else ())
                    # Keyed by the task's place among all tasks, so that QI alone equals QI beside QC.
                    dice = Dice(seed, list(BUILT_IN).index(task), SPLITS.index(split))
                    pairs = Shop(lexicon, dice).pairs(task, _languages(task, split), writer.clean_rate(task))
                    writer.write(BUILT_IN[task], split, islice(pairs, n_rows), dice)
        _move_into_place(Path(draft), folder, answers)
    files = tuple(tally.summed_up(folder / f"{tally.split}_{tally.task}.txt") for tally in writer.tallies)
    return SampleSummary(folder, files, writer.translations.n_rows, flip_rate, unseen, seed)


def _argument_faults(sizes: dict[str, int], tasks: Sequence[str], flip_rate: float) -> list[Fault]:
    faults = [Fault(f"n_{split}", f"{n}", "1 or more") for split, n in sizes.items() if n < 1]
    faults += [Fault("tasks", f"{task!r}", f"one of {', '.join(BUILT_IN)}") for task in tasks if task not in BUILT_IN]
    if not tasks or len(set(tasks)) < len(tasks):
        faults.append(Fault("tasks", f"{list(tasks)}", "one or more, each once"))
    if not 0 <= flip_rate <= MAX_FLIP_RATE:
        faults.append(Fault("flip_rate", f"{flip_rate}", f"0 to {MAX_FLIP_RATE}"))
    return faults


def _existing_files(folder: Path, tasks: Sequence[str], answers: Path | None) -> list[Fault]:
    """Files in the way: a real competition may lie in `folder`, so nothing is ever overwritten."""
    outputs = [folder / f"{split}_{task}.txt" for task in tasks for split in SPLITS]
    outputs += [folder / TRANSLATIONS, *([answers] if answers else [])]
    return [Fault(str(path), "there is a file already", "another folder") for path in outputs if path.exists()]


def _languages(task: str, split: str) -> tuple[str, ...]:
    return TRAIN_LANGUAGES[task] + (() if split == "train" else UNSEEN_LANGUAGES[task])


def _unseen_groups(seed: int) -> tuple[str, ...]:
    """The product groups that train does not get."""
    groups = read_lexicon().groups
    n_unseen = max(1, round(UNSEEN_GROUP_RATE * len(groups)))
    chosen = np.random.default_rng([seed, len(BUILT_IN)]).choice(len(groups), n_unseen, replace=False)
    return tuple(groups[i] for i in sorted(chosen))


def _move_into_place(draft: Path, folder: Path, answers: Path | None) -> None:
    if answers:
        answers.parent.mkdir(parents=True, exist_ok=True)
        beside = answers.with_name(answers.name + ".tmp")
        shutil.copyfile(draft / ANSWERS, beside)  # it may be on another disk, where a rename fails
        beside.replace(answers)
    for file in sorted(draft.iterdir()):
        if file.name != ANSWERS:
            file.replace(folder / file.name)


@dataclass
class _Tally:
    """What is counted while a file is written; `probability` of label 1 is what the rules tell of it."""

    task: str
    split: str
    n_rows: int = 0
    n_positive: int = 0
    n_predicted: int = 0
    expected_positives: float = 0.0
    expected_hits: float = 0.0
    hit_variance: float = 0.0
    miss_variance: float = 0.0

    def add(self, *, label: bool, best_prediction: bool, probability: float) -> None:
        self.n_rows += 1
        self.n_positive += label
        self.n_predicted += best_prediction
        self.expected_positives += probability
        self.expected_hits += probability * best_prediction
        if best_prediction:
            self.hit_variance += probability * (1 - probability)
        else:
            self.miss_variance += probability * (1 - probability)

    def summed_up(self, path: Path) -> SampleFile:
        total = max(self.n_predicted + self.expected_positives, 1e-12)
        f1 = 2 * self.expected_hits / total
        # A label that turns moves F1 by (2 - F1) / total where the row is called positive, by -F1 / total elsewhere.
        variance = (2 - f1) ** 2 * self.hit_variance + f1**2 * self.miss_variance
        return SampleFile(
            self.task,
            self.split,
            path,
            self.n_rows,
            positive_rate=self.n_positive / self.n_rows,
            bayes_f1=f1,
            bayes_f1_error=variance**0.5 / total,
        )


@dataclass
class _SampleWriter:
    """Writes the files of a sample into `draft`; use it as a context."""

    draft: Path
    flip_rate: float
    label_dev: bool
    tallies: list[_Tally] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "_SampleWriter":
        columns = ("language", "origin_query", "translated_query")
        self.translations = self._open.enter_context(DistinctTable(self.draft / TRANSLATIONS, columns, n_key=2))
        self._answers = self._table(ANSWERS, "task", "id", "label", "best_prediction")
        return self

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)

    def _table(self, name: str, *columns: str) -> Any:
        file = self._open.enter_context((self.draft / name).open("w", encoding="utf-8", newline=""))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        return table

    def clean_rate(self, task: str) -> float:
        """The share of positives before flips that gives the task's rate after them."""
        return (POSITIVE_RATE[task] - self.flip_rate) / (1 - 2 * self.flip_rate)

    def write(self, task: Task, split: str, pairs: Iterable[Pair], dice: Dice) -> None:
        """Write one file."""
        tally = _Tally(task.name, split)
        self.tallies.append(tally)
        with (self.draft / f"{split}_{task.name}.txt").open("wb", buffering=1 << 20) as file:
            for number, pair in enumerate(pairs, start=1):
                self._write_pair(file, task, tally, number, pair, dice)

    def _write_pair(self, file: IO[bytes], task: Task, tally: _Tally, number: int, pair: Pair, dice: Dice) -> None:
        # Nothing can be known about a null title: its label is a coin, and F1 wants it called positive.
        null = task is QI and dice.chance(NULL_TITLE_RATE)
        best = pair.clean_label or null
        wrong = dice.chance(0.5 if null else self.flip_rate)
        label = best != wrong
        tally.add(label=label, best_prediction=best, probability=self._probability(best, null))
        row = {
            task.id: number,
            task.task: task.name,
            task.language: pair.language,
            task.query: pair.query,
            task.target: None if null else pair.target,
        }
        if tally.split == "train" or (tally.split == "dev" and self.label_dev):
            row[task.label] = str(int(label)) if task is QI else int(label)  # both types occur in the wild
        if tally.split == "test":
            self._answers.writerow((task.name, number, int(label), int(best)))
        file.write(orjson.dumps(row) + b"\n")
        self.translations.add(pair.language, pair.query, pair.english)

    def _probability(self, best: bool, null: bool) -> float:
        if null:
            return 0.5
        return 1 - self.flip_rate if best else self.flip_rate
