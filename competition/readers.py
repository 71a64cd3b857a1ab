"""Files as found: JSON Lines, CSV, TSV and Parquet into lists of raw values, each with its line number.

A reader judges only what belongs to the format (encoding, quoting, truncated lines); whether the values make
sense is the business of `competition.rows`. No reader stops at a fault: it notes a `Finding` and goes on.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from competition.json_lines import read_json_lines
from competition.parquet_files import is_plain, read_table
from competition.raw_rows import Finding, RawRows, decode, physical_lines
from competition.regular_files import refuse_irregular

OTHER_FORMATS = {
    b"\xff\xfe": ("UTF-16", "UTF-8"),
    b"\xfe\xff": ("UTF-16", "UTF-8"),
    b"\x1f\x8b": ("compressed (gzip)", "it unpacked"),
    b"BZh": ("compressed (bzip2)", "it unpacked"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "text"),
    b"\xfd7zXZ": ("compressed (xz)", "it unpacked"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "it unpacked"),
    b"PAR1": ("a Parquet file", "the suffix .parquet"),
}
"""How a file begins that is not what its suffix says -> what it is, and what was expected."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_raw(path: Path, wanted: Sequence[str], *, encoding: str = "utf-8", delimiter: str = "") -> RawRows:
    """The `wanted` columns of a file whose suffix is one of `READERS`, unchecked.

    A file with a `delimiter` may have any suffix; without one the suffix tells. Another encoding than UTF-8 is for such
    files alone.
    """
    refuse_irregular(path)
    with path.open("rb") as file:
        opening = file.read(8)
    for mark, (found, expected) in OTHER_FORMATS.items():
        if opening.startswith(mark) and path.suffix != ".parquet":
            return RawRows({}, [], [Finding(0, f"the file is {found}", expected)])
    delimiter = delimiter or DELIMITERS.get(path.suffix, "")
    if delimiter:
        return _read_delimited(path, wanted, delimiter, encoding)
    if encoding != "utf-8":
        return RawRows({}, [], [Finding(0, f"the encoding {encoding} is for CSV and TSV files", "UTF-8")])
    return READERS[path.suffix](path, wanted)


# CSV and TSV


def read_csv(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a comma-separated file with a header."""
    return _read_delimited(path, wanted, DELIMITERS[".csv"])


def read_tsv(path: Path, wanted: Sequence[str]) -> RawRows:
    """The records of a tab-separated file with a header; quotes work as in CSV."""
    return _read_delimited(path, wanted, DELIMITERS[".tsv"])


def _read_delimited(path: Path, wanted: Sequence[str], delimiter: str, encoding: str = "utf-8") -> RawRows:
    findings: list[Finding] = []
    with _cells_of_any_length():
        records = list(_delimited_records(path, delimiter, encoding, findings))
    header_line, names = records[0] if records else (0, [])
    if other := next((each for each in ";\t,|" if each != delimiter and _is_header_of(names, wanted, each)), ""):
        findings.append(Finding(header_line, f"the header is separated by {other!r}", f"{delimiter!r}"))
        return RawRows({}, [], findings)
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
    remarks = list(_further_columns(names, wanted, header_line))
    return RawRows(columns, lines, findings, remarks, tuple(names), header_line, cells_are_text=True)


def _is_header_of(names: Sequence[str], wanted: Sequence[str], delimiter: str) -> bool:
    """Whether the header `names` is one cell that `delimiter` cuts into two or more of the wanted columns."""
    return len(names) == 1 and len({*wanted} & {*names[0].replace('"', "").split(delimiter)}) > 1


def _further_columns(names: Sequence[str], wanted: Sequence[str], line: int) -> Iterator[Finding]:
    return (Finding(line, f"there is a further column {name!r}") for name in names if name not in wanted)


def _delimited_records(
    path: Path, delimiter: str, encoding: str, findings: list[Finding]
) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the physical line where it starts."""
    texts = (decode(line, number, findings, encoding) for number, line in enumerate(physical_lines(path), start=1))
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

    try:
        names, table = read_table(path, wanted)
    except ValueError as error:
        return RawRows({}, [], [Finding(0, str(error))])
    findings: list[Finding] = []
    columns: dict[str, list[object]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            findings.append(Finding(0, f"column {name!r} stands {names.count(name)} times in the file", "once"))
            continue
        if not is_plain(column.type):
            findings.append(Finding(0, f"column {name!r} is of type {str(column.type)[:60]}", "texts or numbers"))
            continue
        try:
            columns[name] = column.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check UTF-8 when it reads
            texts: Iterable[bytes | None] = column.cast(pa.large_binary()).to_pylist()
            columns[name] = [_decode_cell(text, row, name, findings) for row, text in enumerate(texts, start=1)]
    remarks = list(_further_columns(names, wanted, 0))
    return RawRows(columns, range(1, table.num_rows + 1), findings, remarks, tuple(names), unit="row")


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
