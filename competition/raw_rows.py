"""The records of a file, unchecked, each with its line; what a reader found wrong or odd about the format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

MISSING: Final = object()
"""Stands for the value of a field that a JSON record does not have (null is None)."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Finding(NamedTuple):
    """A fault and its line in the file (Parquet: row), counted from 1; line 0 stands for the whole file."""

    line: int
    found: str
    expected: str = ""


@dataclass(frozen=True)
class RawRows:
    """The records of one file, unchecked.

    Attributes
    ----------
    columns
        Wanted column -> its values, ``(n_records,)``. A JSON record that lacks the field has `MISSING` there;
        a column that the header of a CSV or Parquet file does not name has no entry.
    lines
        The line where each record starts (Parquet: its row), counted from 1, ``(n_records,)``.
    findings
        What is wrong with the format.
    remarks
        What is odd about the format, and does no harm.
    header
        The columns that the file's header names; empty for JSON Lines, which has none.
    header_line
        The line of the header; 0 where it has no line.
    unit
        What `lines` counts, in the words of a message.
    cells_are_text
        The format knows only text (CSV, TSV), so that a number cannot be told from its digits.
    """

    columns: dict[str, list[object]]
    lines: Sequence[int]
    findings: list[Finding] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)
    header: tuple[str, ...] = ()
    header_line: int = 0
    unit: str = "line"
    cells_are_text: bool = False


def physical_lines(path: Path) -> Iterator[bytes]:
    r"""The lines of a file without its byte order mark; only ``\n`` ends a line, not U+2028 nor U+0085."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            yield line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line


def decode(line: bytes, number: int, findings: list[Finding], encoding: str = "utf-8") -> str:
    """The text of `line`. Where it is not of the `encoding` a finding is added and the bytes are read as Latin-1.

    Latin-1 keeps ASCII structure and keeps different bytes different, so that the rest of the line can be
    checked without false claims; the text itself is never used.
    """
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.upper()
        found = f"byte 0x{line[error.start]:02x} at byte offset {error.start} of the line is not {name}"
        findings.append(Finding(number, found, name))
        return line.decode("latin-1")


def describe(value: object) -> str:
    """`value` in the words of a message, cut where it is long.

    Examples
    --------
    >>> describe(None), describe(True), describe(3.5), describe("yes"), describe([1, 2])
    ('null', 'the truth value true', 'the number 3.5', "the text 'yes'", 'a list')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    if value == "":
        return "empty"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else f"the text {value[:40]!r}..."
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"
