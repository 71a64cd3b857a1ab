"""Records of a stream of pairs, some at a time, each with its line: JSON Lines, CSV, TSV, Parquet."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import orjson

from competition.errors import CompetitionError, Fault
from competition.raw_rows import BYTE_ORDER_MARK, describe
from competition.readers import DELIMITERS, OTHER_FORMATS
from competition.tasks import Task
from pipelines.new_pairs import refuse
from pipelines.pair_columns import PairColumns

LONGEST_LINE = 1 << 24  # bytes; what is longer is no pair


@dataclass(frozen=True, eq=False)
class Records:
    """Some records of a file with their lines, and the lines that are none.

    Attributes
    ----------
    lines
        Counted from 1 (Parquet: rows), ``(n_records,)``.
    """

    records: list[Mapping[str, object]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, line: int, record: Mapping[str, object]) -> None:
        """One more record."""
        self.records.append(record)
        self.lines.append(line)

    def __len__(self) -> int:
        return len(self.records) + len(self.faults)


def names_in(file: BinaryIO, reads: str, task: Task, *, name: str) -> list[str]:
    """The columns of a file of this format; of JSON Lines the fields of its first line, if that is a record."""
    if reads == "parquet":
        return _parquet_names(file, name)
    opening = _first_line(file, name)
    if reads in ("csv", "tsv"):
        return _header(opening, task, DELIMITERS[f".{reads}"])[0]
    try:
        record = orjson.loads(opening)
    except orjson.JSONDecodeError:
        return []
    return list(record) if isinstance(record, dict) else []


def _first_line(file: BinaryIO, name: str) -> bytes:
    """The first line, without a byte order mark; a CompetitionError if it shows that the file is no text."""
    line = file.readline(LONGEST_LINE + 1)
    for mark, (found, expected) in OTHER_FORMATS.items():
        if line.startswith(mark):
            fault = Fault(name, f"the file is {found}", expected)
            raise CompetitionError("these pairs cannot be read", faults=[fault], advice="give it as what is expected")
    return line.removeprefix(BYTE_ORDER_MARK)


def _json_lines(file: BinaryIO, size: int, task: Task, name: str) -> Iterator[Records]:
    found, number, line = Records(), 0, _first_line(file, name)
    while line:
        number += 1
        if len(line) > LONGEST_LINE:
            found.faults.append(Fault(f"{name}:{number}", "the line does not end", f"at most {LONGEST_LINE:,} bytes"))
            break
        if line.strip():
            _add_json(found, line, number, name)
        if len(found) >= size:
            yield found
            found = Records()
        line = file.readline(LONGEST_LINE + 1)
    yield found


def _add_json(found: Records, line: bytes, number: int, name: str) -> None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        found.faults.append(Fault(f"{name}:{number}", f"the line is not valid JSON: {error.msg}", "one object"))
        return
    if isinstance(record, dict):
        found.add(number, record)
    else:
        found.faults.append(Fault(f"{name}:{number}", f"the line is {describe(record)}", "one JSON object"))


def _header(line: bytes, task: Task, delimiter: str) -> tuple[list[str], str, str]:
    """The columns that a header names, its delimiter and the file's encoding.

    A file whose columns are called as the contest's is written as the contest's files are; any other one is UTF-8, with
    the delimiter of its suffix.
    """
    layout, columns = task.layout, PairColumns(task)
    if layout.delimiter and columns.is_contests(names := _cells(line, layout.delimiter, layout.encoding)):
        return names, layout.delimiter, layout.encoding
    names = _cells(line, delimiter, layout.encoding)
    return names, delimiter, layout.encoding if columns.is_contests(names) else "utf-8"


def _cells(line: bytes, delimiter: str, encoding: str) -> list[str]:
    try:
        return next(csv.reader([line.decode(encoding, errors="replace")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _delimited(file: BinaryIO, size: int, task: Task, name: str, *, delimiter: str) -> Iterator[Records]:
    found, opening = Records(), _first_line(file, name)
    names, delimiter, encoding = _header(opening, task, delimiter)
    refuse(PairColumns(task).header_faults(names, f"{name}:1"), task)
    text = io.TextIOWrapper(file, encoding=encoding, newline="")
    table = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in table:
            line = table.line_num + 1  # the header was one
            if not cells:
                continue
            if len(cells) != len(names):
                found.faults.append(
                    Fault(f"{name}:{line}", "too few or too many cells", f"{len(names)}, as in the header")
                )
            else:
                found.add(line, {column: cell or None for column, cell in zip(names, cells, strict=True)})
            if len(found) >= size:
                yield found
                found = Records()
    except (UnicodeDecodeError, csv.Error) as error:
        words = f"{encoding.upper()} {'TSV' if delimiter == DELIMITERS['.tsv'] else 'CSV'}"
        found.faults.append(Fault(f"{name}:{table.line_num + 2}", f"it cannot be read further: {error}", words))
    finally:
        text.detach()
    yield found


def _parquet_names(file: BinaryIO, name: str) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return list(parquet.ParquetFile(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(name, error) from error


def _parquet(file: BinaryIO, size: int, task: Task, name: str) -> Iterator[Records]:
    import pyarrow as pa
    from pyarrow import parquet

    names, columns = _parquet_names(file, name), PairColumns(task)
    refuse(columns.header_faults(names, f"{name}:1"), task)
    try:
        start = 1
        wanted = [column for column in names if column in columns.known]
        for part in parquet.ParquetFile(file).iter_batches(batch_size=size, columns=wanted):
            records = part.to_pylist()
            yield Records(records, list(range(start, start + len(records))))
            start += len(records)
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(name, error) from error


def _no_parquet(name: str, error: Exception) -> CompetitionError:
    fault = Fault(name, str(error)[:300], "a readable Parquet file")
    return CompetitionError("there are no pairs to score", faults=[fault], advice="write the file again")


READERS: dict[str, Callable[[BinaryIO, int, Task, str], Iterator[Records]]] = {
    "jsonl": _json_lines,
    "csv": partial(_delimited, delimiter=DELIMITERS[".csv"]),
    "tsv": partial(_delimited, delimiter=DELIMITERS[".tsv"]),
    "parquet": _parquet,
}
