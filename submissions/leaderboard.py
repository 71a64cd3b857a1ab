"""Our own leaderboard: one line per task and model, with honest metrics beside each other."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

import orjson
import pandas as pd

from competition.artefacts import write_text
from competition.errors import CompetitionError, Fault
from competition.regular_files import refuse_irregular

MAKE_AGAIN = "delete the file, and make it again with `relstack leaderboard`"
TEXT = ("task", "name", "kind")


@dataclass(frozen=True)
class Entry:
    """One model's results on one task. NaN becomes None: a number that is not there.

    Attributes
    ----------
    kind
        "base", "stack", "blend", ...
    f1, f1_low, f1_high
        Out-of-fold F1 at `threshold` and its interval, in [0, 1].
    f1_fold_std
        Standard deviation of F1 over the folds.
    f1_at_half
        F1 with the threshold .5.
    rows_per_second
        Scoring speed.
    dev_f1
        F1 on the dev file, if that has labels.
    f1_avg
        Mean of `f1` over the tasks, if the model has an entry for each: see `Leaderboard.with_averages`.
    dev_f1_seen_languages
        `dev_f1` over the rows whose language occurs in the training file.
    difference, difference_low, difference_high
        `f1` minus that of the task's best entry on the same rows, and its interval over groups (paired bootstrap);
        0 for the best itself. Where the upper bound reaches 0 the two cannot be told apart.
    metric, dev_metric
        Out of fold and on dev, what the host judges by where that is not F1 (`competition.judging`): more is better. It
        decides who is the best. Leaderboards without one have no such columns.
    """

    task: str
    name: str
    kind: str
    f1: float | None
    f1_low: float | None = None
    f1_high: float | None = None
    f1_fold_std: float | None = None
    f1_at_half: float | None = None
    auc: float | None = None
    positive_rate: float | None = None
    threshold: float | None = None
    rows_per_second: float | None = None
    dev_f1: float | None = None
    f1_avg: float | None = None
    dev_f1_seen_languages: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    metric: float | None = None
    dev_metric: float | None = None

    @property
    def quality(self) -> float | None:
        """What ranks the entry: the host's metric, which is F1 unless `metric` is there."""
        return self.f1 if self.metric is None else self.metric

    def __post_init__(self) -> None:
        faults = [
            Fault(f"leaderboard entry {self.name!r}", f"{key} is {text!r}", "text without line breaks")
            for key in TEXT
            if not (isinstance(text := getattr(self, key), str) and text and text.isprintable())
        ]
        for key in NUMBERS:
            value = getattr(self, key)
            if value is None:
                continue
            # Plain floats: numpy's are written differently, and float32 would not survive a round trip.
            number = float(value)
            object.__setattr__(self, key, None if math.isnan(number) else number)
            if math.isinf(number):
                faults.append(Fault(f"leaderboard entry {self.name!r}", f"{key} is {number}", "a finite number"))
        if faults:
            raise CompetitionError("a leaderboard entry is faulty", faults=faults)


COLUMNS = tuple(field.name for field in fields(Entry))
NUMBERS = COLUMNS[len(TEXT) :]
OTHER_METRIC = ("metric", "dev_metric")
USUAL_COLUMNS = tuple(name for name in COLUMNS if name not in OTHER_METRIC)


@dataclass(frozen=True)
class Leaderboard:
    """Entries by task, the best first; each task and name once. Made with `from_entries`."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> "Leaderboard":
        """A leaderboard of `entries` in any order; those without a figure come last, ties stand by name.

        Raises
        ------
        CompetitionError
            A task and name occur twice.

        Examples
        --------
        >>> entries = [Entry("QC", "xlmr", "base", 0.82), Entry("QC", "mean", "blend", 0.84)]
        >>> board = Leaderboard.from_entries(entries)
        >>> [entry.name for entry in board.entries]
        ['mean', 'xlmr']
        """
        ordered = tuple(sorted(entries, key=_rank))
        keys = [(entry.task, entry.name) for entry in ordered]
        faults = [
            Fault(f"{task} {name!r}", f"stands there {times} times", "each task and name once")
            for (task, name), times in Counter(keys).items()
            if times > 1
        ]
        if faults:
            raise CompetitionError("the leaderboard repeats a model", faults=faults)
        return cls(ordered)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of its table and file: those of other metrics only where an entry has one."""
        other = any(entry.metric is not None or entry.dev_metric is not None for entry in self.entries)
        return COLUMNS if other else USUAL_COLUMNS

    def with_averages(self) -> "Leaderboard":
        """This leaderboard with `f1_avg`: the mean F1 over its tasks, for names that have one in each.

        It is None for other names, and for all where there is one task alone.

        Examples
        --------
        >>> entries = [Entry("QC", "xlmr", "base", 0.75), Entry("QI", "xlmr", "base", 0.25)]
        >>> board = Leaderboard.from_entries(entries)
        >>> [entry.f1_avg for entry in board.with_averages().entries]
        [0.5, 0.5]
        """
        n_tasks = len({entry.task for entry in self.entries})
        scores: dict[str, list[float]] = {}
        for entry in self.entries:
            if entry.f1 is not None:
                scores.setdefault(entry.name, []).append(entry.f1)
        averages = {name: fmean(f1s) for name, f1s in scores.items() if len(f1s) == n_tasks > 1}
        return Leaderboard(tuple(replace(entry, f1_avg=averages.get(entry.name)) for entry in self.entries))

    def of_tasks(self, names: Sequence[str]) -> "Leaderboard":
        """The entries of these tasks alone."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.task in names))

    def to_frame(self) -> pd.DataFrame:
        """One row per entry, one column per field; numbers that are not there are NaN."""
        frame = pd.DataFrame([asdict(entry) for entry in self.entries], columns=list(self.columns))
        numbers = [name for name in self.columns if name not in TEXT]
        return frame.astype(dict.fromkeys(TEXT, "str") | dict.fromkeys(numbers, "float64"))

    def __repr__(self) -> str:
        tops = {entry.task: entry for entry in reversed(self.entries)}
        best = ", ".join(f"{task} {tops[task].name}" for task in dict.fromkeys(entry.task for entry in self.entries))
        return f"<Leaderboard: {len(self.entries)} entries; the best: {best or 'none'}>"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        shown = frame[[name for name in frame if frame[name].notna().any()]]
        return shown.to_html(index=False, na_rep="", float_format="{:.4f}".format)

    def to_json(self) -> str:
        """The JSON text of a list of objects, one per entry, a key for every field."""
        entries = [{key: getattr(entry, key) for key in self.columns} for entry in self.entries]
        return orjson.dumps(entries, option=orjson.OPT_INDENT_2).decode()

    def write_csv(self, path: Path | str) -> None:
        """Write `path` whole or not at all; `read_csv` gives back an equal leaderboard."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        # repr, the shortest text that reads back as the same number, is what csv writes for a float.
        writer.writerows([getattr(entry, key) for key in self.columns] for entry in self.entries)
        write_text(Path(path), buffer.getvalue())

    @classmethod
    def read_csv(cls, path: Path | str) -> "Leaderboard":
        """The leaderboard that `write_csv` wrote.

        Raises
        ------
        CompetitionError
            Other columns, or cells that are no numbers, with line and column.
        """
        path = Path(path)
        try:
            refuse_irregular(path)
            with path.open(encoding="utf-8", newline="") as file:
                header, *lines = list(csv.reader(file)) or [[]]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            faults = [Fault(str(path), str(error), "a readable UTF-8 CSV file")]
            raise CompetitionError(f"{path} is not a leaderboard", faults=faults, advice=MAKE_AGAIN) from error
        if tuple(header) not in (COLUMNS, USUAL_COLUMNS):
            faults = [Fault(f"{path}:1", f"the columns are {','.join(header)[:500]}", ",".join(USUAL_COLUMNS))]
            raise CompetitionError(f"{path} is not a leaderboard", faults=faults, advice=MAKE_AGAIN)
        faults = [
            fault for number, cells in enumerate(lines, start=2) for fault in _cell_faults(path, number, cells, header)
        ]
        if faults:
            raise CompetitionError(f"{path} is a faulty leaderboard", faults=faults, advice=MAKE_AGAIN)
        return cls.from_entries(_entry(cells) for cells in lines)


def _rank(entry: Entry) -> tuple[str, float, str]:
    return entry.task, math.inf if entry.quality is None else -entry.quality, entry.name


def _entry(cells: Sequence[str]) -> Entry:
    task, name, kind, *numbers = cells
    return Entry(task, name, kind, *map(_number, numbers))


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _cell_faults(path: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> list[Fault]:
    if len(cells) != len(header):
        return [Fault(f"{path}:{number}", f"{len(cells)} cells", f"{len(header)}")]
    faults = []
    for key, cell in zip(header[len(TEXT) :], cells[len(TEXT) :], strict=True):
        try:
            _number(cell)
        except ValueError:
            faults.append(Fault(f"{path}:{number}", f"{key} is {cell!r}", "a number or nothing"))
    return faults
