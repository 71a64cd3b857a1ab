"""Files as found: JSON Lines, CSV, TSV and Parquet into lists of raw values, each with its line number.

A reader judges only what belongs to the format (encoding, quoting, truncated lines); whether the values make
sense is the business of `competition.rows`. No reader stops at a fault: it notes a `Finding` and goes on.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import orjson

MISSING: Final = object()
"""Stands for the value of a field that a JSON record does not have (null is None)."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


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
    header: tuple[str, ...] = ()
    header_line: int = 0
    unit: str = "line"
    cells_are_text: bool = False


def read_raw(path: Path, wanted: Sequence[str]) -> RawRows:
    """The `wanted` columns of a file whose suffix is one of `READERS`, unchecked."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in UTF_16_MARKS:
        return RawRows({}, [], [Finding(0, "the file is UTF-16", "UTF-8")])
    return READERS[path.suffix](path, wanted)


def physical_lines(path: Path) -> Iterator[bytes]:
    r"""The lines of a file without its byte order mark; only ``\n`` ends a line, not U+2028 nor U+0085."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            yield line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line


def decode(line: bytes, number: int, findings: list[Finding]) -> str:
    """The text of `line`. Where it is not UTF-8 a finding is added and the bytes are read as Latin-1.

    Latin-1 keeps ASCII structure and keeps different bytes different, so that the rest of the line can be
    checked without false claims; the text itself is never used.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at byte offset {error.start} of the line is not UTF-8"
        findings.append(Finding(number, found, "UTF-8"))
        return line.decode("latin-1")


# JSON Lines


def read_json_lines(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a JSON Lines file; blank lines are skipped."""
    columns: dict[str, list[object]] = {name: [] for name in wanted}
    lines: list[int] = []
    if layout := _other_layout(path):
        return RawRows(columns, lines, [Finding(0, layout, "JSON Lines: one object per line")])
    findings: list[Finding] = []
    for number, line in enumerate(physical_lines(path), start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            if not line.strip():
                continue
            record = _mend_json(line, number, findings)
        if type(record) is dict:
            lines.append(number)
            for name, values in columns.items():
                values.append(record.get(name, MISSING))
        elif record is not MISSING:
            findings.append(Finding(number, f"the line is {describe(record)}", "one JSON object"))
    return RawRows(columns, lines, findings)


def _mend_json(line: bytes, number: int, findings: list[Finding]) -> object:
    """The value of a line that orjson refused, if only its encoding is wrong, else `MISSING`; notes why."""
    n_findings = len(findings)
    text = decode(line, number, findings).rstrip()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if len(findings) == n_findings:
            found = f"the line is not valid JSON: {error.msg} at column {error.colno}"
            findings.append(Finding(number, found, "one JSON object"))
        return MISSING


def _other_layout(path: Path) -> str:
    """What the file is, if its first line shows one JSON document instead of JSON Lines, else ""."""
    opening = next((text for line in physical_lines(path) if (text := line.strip())), b"")
    if opening == b"{":
        return "the file is a JSON object spread over several lines"
    if not opening.startswith(b"["):
        return ""
    try:
        record = orjson.loads(opening)
    except orjson.JSONDecodeError:
        return "the file is a JSON array"
    return "the file is a JSON array" if not record or isinstance(record[0], dict) else ""


# CSV and TSV


def read_csv(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a comma-separated file with a header."""
    return _read_delimited(path, wanted, ",")


def read_tsv(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a tab-separated file with a header; quotes work as in CSV."""
    return _read_delimited(path, wanted, "\t")


def _read_delimited(path: Path, wanted: Sequence[str], delimiter: str) -> RawRows:
    findings: list[Finding] = []
    with _cells_of_any_length():
        records = list(_delimited_records(path, delimiter, findings))
    header_line, names = records[0] if records else (0, [])
    if any(finding.line < header_line for finding in findings):  # the header itself is broken
        return RawRows({}, [], findings)
    findings += [
        Finding(header_line, f"column {name!r} stands {names.count(name)} times in the header", "once")
        for name in wanted
        if names.count(name) > 1
    ]
    places = {name: names.index(name) for name in wanted if name in names}
    columns: dict[str, list[object]] = {name: [] for name in places}
    lines: list[int] = []
    for line, cells in records[1:]:
        if len(cells) != len(names):
            findings.append(Finding(line, f"the row has {len(cells)} cells", f"{len(names)}, as in the header"))
            continue
        lines.append(line)
        for name, place in places.items():
            columns[name].append(cells[place])
    return RawRows(columns, lines, findings, tuple(names), header_line, cells_are_text=True)


def _delimited_records(path: Path, delimiter: str, findings: list[Finding]) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the physical line where it starts."""
    texts = (decode(line, number, findings) for number, line in enumerate(physical_lines(path), start=1))
    # strict: a quote that is never closed would otherwise swallow the rest of the file in silence
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.append(_csv_fault(line, reader.line_num, str(error)))
            continue
        if len(cells) > 1 or "".join(cells).strip():
            yield line, cells


def _csv_fault(start: int, end: int, message: str) -> Finding:
    """The finding for what the csv module says about the record on lines `start` to `end`."""
    if message == "unexpected end of data":
        found = "a quote opened in this row is never closed"
        if end > start:
            found += f"; it takes in all lines up to {end}, which were not checked"
        return Finding(start, found, 'a closing "')
    if message.startswith("new-line character"):
        return Finding(end, "a carriage return stands outside quotes", "lines that end in LF or CR LF")
    return Finding(end, f"the quotes are wrong: {message}", 'a quote inside a quoted cell doubled: ""')


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


# Parquet


def read_parquet(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read(columns=[name for name in wanted if name in names])
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        return RawRows({}, [], [Finding(0, f"the file cannot be read as Parquet: {reason}")])
    findings: list[Finding] = []
    columns: dict[str, list[object]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            findings.append(Finding(0, f"column {name!r} stands {names.count(name)} times in the file", "once"))
            continue
        try:
            columns[name] = column.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check UTF-8 when it reads
            texts: Iterable[bytes | None] = column.cast(pa.large_binary()).to_pylist()
            columns[name] = [_decode_cell(text, row, name, findings) for row, text in enumerate(texts, start=1)]
    return RawRows(columns, range(1, table.num_rows + 1), findings, tuple(names), unit="row")


def _decode_cell(text: bytes | None, row: int, name: str, findings: list[Finding]) -> str | None:
    if text is None:
        return None
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{text[error.start]:02x} at byte offset {error.start} of {name} is not UTF-8"
        findings.append(Finding(row, found, "UTF-8"))
        return text.decode("latin-1")


READERS: dict[str, Callable[[Path, Sequence[str]], RawRows]] = {
    ".txt": read_json_lines,
    ".jsonl": read_json_lines,
    ".json": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
"""File suffix -> its reader."""


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
        return f"the number {value}"
    if value == "":
        return "empty"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else f"the text {value[:40]!r}..."
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"
