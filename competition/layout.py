"""How a competition's files become rows: which files, which columns, what is joined, left out, and called positive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Encoding = Literal["utf-8", "latin-1", "cp1252"]
Value = str | int | float

LABELS: Mapping[object, int] = {0: 0, 1: 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
ANY_SUFFIX = ".*"


@dataclass(frozen=True)
class LabelRule:
    """Which labels of a file are 1 and which 0; without any rule a label is 0 or 1 already.

    Attributes
    ----------
    positive, negative
        The values that are 1 and 0. Without `negative`, every other value is 0.
    positive_from
        Grades: from this number on a row is 1, below it 0.

    Examples
    --------
    >>> LabelRule(positive=("E", "S"), negative=("C", "I")).label_of("S")
    1
    >>> LabelRule(positive_from=2.5).label_of("2.33")
    0
    """

    positive: tuple[Value, ...] = ()
    negative: tuple[Value, ...] = ()
    positive_from: float | None = None

    def __post_init__(self) -> None:
        if self.positive and self.positive_from is not None:
            raise ValueError("positive and positive_from are two rules: name one")
        if self.negative and not self.positive:
            raise ValueError("negative needs positive")
        if both := {*map(str, self.positive)} & {*map(str, self.negative)}:
            raise ValueError(f"{', '.join(sorted(both))} stands in positive and in negative")

    @property
    def words(self) -> str:
        """What a label must be."""
        if self.positive_from is not None:
            return "a number"
        if self.negative:
            return f"one of {', '.join(map(str, (*self.positive, *self.negative)))}"
        return "text or a number" if self.positive else "0 or 1"

    def label_of(self, value: object) -> int | None:
        """0 or 1; None if `value` is no label."""
        if type(value) not in (int, float, str) or value == "":
            return None
        if self.positive_from is not None:
            grade = _number(value)
            return None if grade is None else int(grade >= self.positive_from)
        if not self.positive:
            return LABELS.get(value)
        if str(value) in map(str, self.positive):
            return 1
        return 0 if not self.negative or str(value) in map(str, self.negative) else None


ZERO_OR_ONE = LabelRule()


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # text, a whole number or a float
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Join:
    """Columns of a second file, found by key: each key stands there once.

    Attributes
    ----------
    on
        The columns of the key, called alike in both files.
    optional
        Rows whose key the file lacks get nothing from it; otherwise that is a fault.
    """

    file: str
    on: tuple[str, ...]
    columns: tuple[str, ...]
    encoding: Encoding = "utf-8"
    delimiter: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        if not (self.on and self.columns):
            raise ValueError("a join needs the columns of its key, and columns to bring")


@dataclass(frozen=True)
class Layout:
    """How the files of a task become rows. The default is a file per split whose columns are the task's own.

    Attributes
    ----------
    files
        One name with ``{split}`` and ``{task}``, or a name per split; ``.*`` stands for any suffix that is read.
    encoding, delimiter
        Of CSV and TSV files; without a delimiter the suffix tells.
    id_from_line
        The file has no ids: a row's id is its line.
    targets, separator
        Several columns that make the target, in this order, and what is put between them; empty ones are left out.
    category_separator
        Between the levels of a category path.
    language_is, languages
        The language of all rows; or what the values of the language column stand for.
    group
        The column whose value is never on both sides of a fold, for the plan ``column-group``.
    joins, filters
        Second files; by split (or ``all``) the values that columns must have in the rows that count.
    """

    files: str | Mapping[str, str] = field(default="{split}_{task}.*", hash=False)
    encoding: Encoding = "utf-8"
    delimiter: str = ""
    id_from_line: bool = False
    targets: tuple[str, ...] = ()
    separator: str = " "
    category_separator: str = ","
    language_is: str = ""
    languages: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: LabelRule = ZERO_OR_ONE
    group: str = ""
    joins: tuple[Join, ...] = ()
    filters: Mapping[str, Mapping[str, Value | tuple[Value, ...]]] = field(default_factory=dict, hash=False)

    def pattern(self, task: str, split: str) -> str:
        """The name of the file of a split, perhaps with ``.*`` at its end; empty where there is none."""
        if isinstance(self.files, str):
            return self.files.replace("{split}", split).replace("{task}", task)
        return self.files.get(split, "").replace("{task}", task)

    def names(self, task: str, split: str, suffixes: Sequence[str]) -> list[str]:
        """The names that the file of a split may have."""
        pattern = self.pattern(task, split)
        if pattern.endswith(ANY_SUFFIX):
            return [pattern.removesuffix(ANY_SUFFIX) + suffix for suffix in suffixes]
        return [pattern] if pattern else []

    def conditions(self, split: str) -> dict[str, tuple[Value, ...]]:
        """The values that columns must have in the rows of a split."""
        found = {**self.filters.get("all", {}), **self.filters.get(split, {})}
        return {column: value if isinstance(value, tuple) else (value,) for column, value in found.items()}


PLAIN = Layout()
