"""What the values of a row must be: an `Expectation` says what a value should have been, or "" if it is right."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from competition.layout import LABELS, ZERO_OR_ONE, LabelRule
from competition.raw_rows import MISSING, Finding, RawRows, describe
from competition.tasks import Task

LOWEST_ID, HIGHEST_ID = -(2**63), 2**63 - 1

Expectation = Callable[[object], str]


def check(raw: RawRows, task: Task, *, labelled: bool) -> Iterator[Finding]:
    """What is wrong with the columns and the values of a file."""
    required = (task.id, *task.text_columns, *((task.label,) if labelled else ()))
    if raw.header:
        there = ", ".join(map(repr, raw.header))
        for name in required:
            if name not in raw.header:
                yield Finding(raw.header_line, f"there is no column {name!r}", f"it beside {there}")
    expectations: dict[str, Expectation] = {
        task.id: _expect_id(raw.columns.get(task.id, [])),
        task.task: _expect_task(task.name),
        task.language: _expect_language,
        task.query: _expect_text,
        task.target: _expect_text_or_null,
        task.label: _expect_label(task.layout.labels, labelled=labelled),
    }
    for name, expectation in expectations.items():
        yield from _check_column(raw, name, expectation)
    yield from _check_repeats(raw, task.id)


def _check_column(raw: RawRows, name: str, expectation: Expectation) -> Iterator[Finding]:
    for line, value in zip(raw.lines, raw.columns.get(name, ()), strict=False):
        if expected := expectation(value):
            found = "missing" if value is MISSING else describe(value)
            yield Finding(line, f"{name} is {found}", expected)


def _check_repeats(raw: RawRows, name: str) -> Iterator[Finding]:
    first_lines: dict[int | str, int] = {}
    for line, row_id in zip(raw.lines, raw.columns.get(name, ()), strict=False):
        if type(row_id) in (int, str) and row_id != "":
            first_line = first_lines.setdefault(row_id, line)  # type: ignore[arg-type]
            if first_line != line:
                yield Finding(line, f"{name} {row_id!r} repeats {raw.unit} {first_line}", "each id once")


def _expect_id(ids: Sequence[object]) -> Expectation:
    """Ids are whole numbers or text; a file has one kind only, the one that most of its `ids` are of."""
    kinds = Counter(kind for kind in map(type, ids) if kind in (int, str))
    usual = max(kinds, key=kinds.__getitem__) if kinds else int
    mixed = "a number" if usual is int else "text"

    def expectation(value: object) -> str:
        if type(value) is int and usual is int:
            return "" if LOWEST_ID <= value <= HIGHEST_ID else f"at most {HIGHEST_ID}"
        if value is MISSING or value is None or value == "":
            return "an id"
        if isinstance(value, str) and usual is str:
            return ""
        if type(value) in (int, str):
            return f"{mixed}, as most ids of the file are"
        return "a whole number of at most 64 bits, or text"

    return expectation


def _expect_task(name: str) -> Expectation:
    return lambda value: "" if value is MISSING or value is None or value in ("", name) else repr(name)


def _expect_language(value: object) -> str:
    return "" if type(value) is str and value else "the language of the row"


def _expect_text(value: object) -> str:
    return "" if type(value) is str else "text"


def _expect_text_or_null(value: object) -> str:
    return "" if type(value) is str or value is None else "text or null"


def _expect_label(rule: LabelRule, *, labelled: bool) -> Expectation:
    def expectation(value: object) -> str:
        if rule.label_of(value) is not None or (not labelled and _is_absent(value)):
            return ""
        if labelled:
            return rule.words
        return f"{rule.words} or none" if rule != ZERO_OR_ONE else "0, 1 or none"

    return expectation


def as_label(value: object) -> int | None:
    """0 or 1 if `value` is a label in any of its spellings, else None.

    Examples
    --------
    >>> as_label("1.0"), as_label(0), as_label("yes"), as_label(True)
    (1, 0, None, None)
    """
    return LABELS.get(value) if type(value) in (int, float, str) else None


def _is_absent(value: object) -> bool:
    return value is MISSING or value is None or value == "" or value != value  # the last is true of NaN


def check_label_kinds(raw: RawRows, task: Task) -> Iterator[Finding]:
    """The labels that are text where most are numbers, or the other way: both are read, and one file mixes them."""
    labels = raw.columns.get(task.label, [])
    if task.layout.labels != ZERO_OR_ONE:
        return
    kinds = Counter(type(value) for value in labels if as_label(value) is not None)
    if len(kinds) > 1:
        usual = max(kinds, key=kinds.__getitem__)
        for line, value in zip(raw.lines, labels, strict=True):
            if as_label(value) is not None and type(value) is not usual:
                yield Finding(line, f"{task.label} is {describe(value)}", "of the kind that most labels are")
