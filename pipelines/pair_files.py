"""Files of pairs, of any size, some pairs at a time: JSON Lines, CSV or Parquet in, scores out."""

import csv
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson
import pandas as pd

from competition.artefacts import replacing
from competition.errors import CompetitionError, Fault
from competition.raw_rows import BYTE_ORDER_MARK, describe
from competition.regular_files import refuse_irregular
from competition.tasks import Task
from pipelines.new_pairs import checked_pairs, columns_of, refuse
from pipelines.pair_writers import WRITERS, Writer

if TYPE_CHECKING:
    from pipelines.pair_scorer import PairScorer

log = logging.getLogger(__name__)

FORMATS = {"": "jsonl", ".jsonl": "jsonl", ".json": "jsonl", ".txt": "jsonl", ".csv": "csv", ".parquet": "parquet"}
LONGEST_LINE = 1 << 24  # bytes; what is longer is no pair
MOST_FAULTS = 1000  # after so many a file is not looked at further


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


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some pairs of a file, checked, and what is wrong with them."""

    pairs: pd.DataFrame
    faults: list[Fault]


@dataclass(frozen=True, eq=False)
class Source:
    """Where pairs come from.

    Attributes
    ----------
    path
        A file; None is standard input.
    format
        One of the values of `FORMATS`.
    """

    path: Path | None
    format: str

    @classmethod
    def of(cls, path: Path | None, *, format: str | None = None) -> "Source":  # noqa: A002  # what users call it
        """That of a file, whose suffix tells the format unless it is named."""
        found = format or FORMATS.get("" if path is None else path.suffix)
        if found is None:
            expected = "one of " + " ".join(suffix for suffix in FORMATS if suffix)
            raise CompetitionError("the format is not known", faults=[Fault(str(path), "its suffix", expected)])
        if path is None and found == "parquet":
            raise CompetitionError("Parquet cannot be read from a stream", advice="name the file")
        return cls(path, found)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.path is None else self.path.name

    def chunks(self, task: Task, *, size: int) -> Iterator[Chunk]:
        """The pairs, `size` at a time, in order.

        Raises
        ------
        CompetitionError
            It cannot be opened, is of another format, or has no column for query or target.
        """
        with self._opened() as file:
            for found in READERS[self.format](file, size, task, self.name):
                pairs, faults = checked_pairs(found.records, found.lines, task, name=self.name)
                yield Chunk(pairs, [*found.faults, *faults])

    def check(self, task: Task, *, size: int) -> None:
        """Refuse a file with faulty pairs; every one of the first `MOST_FAULTS` is named."""
        faults: list[Fault] = []
        for chunk in self.chunks(task, size=size):
            faults += chunk.faults
            if len(faults) >= MOST_FAULTS:
                break
        refuse(faults, task)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self.path is None:
            yield sys.stdin.buffer
            return
        try:
            refuse_irregular(self.path)
            file = self.path.open("rb")
        except OSError as error:
            fault = Fault(str(self.path), error.strerror or str(error), "a readable file, or - for standard input")
            raise CompetitionError("there are no pairs to score", faults=[fault]) from error
        with file:
            yield file


def read_pairs(path: Path, task: Task) -> pd.DataFrame:
    """All pairs of a file, checked; a CompetitionError names every fault."""
    chunks = list(Source.of(path).chunks(task, size=100_000))
    refuse([fault for chunk in chunks for fault in chunk.faults], task)
    nothing, _ = checked_pairs([], [], task, name=path.name)
    return pd.concat([nothing, *(chunk.pairs for chunk in chunks)], ignore_index=True)


def score_file(scorer: "PairScorer", source: Source, *, out: Path | None, writes: str, batch: int) -> int:
    """Score the pairs of a source in their order, and write id, score, decision; gives the number of pairs.

    A file is checked before anything is scored. A file that is written appears whole or not at all. From standard input
    to standard output scores are written batch by batch: those of the batches before a faulty one stand, no more
    follow, and the rest is only checked.

    Parameters
    ----------
    writes
        The format of what is written, one of `WRITERS`.

    Raises
    ------
    CompetitionError
        Faulty pairs, all named (of very many the first), or no readable source.
    """
    if source.path is not None:
        source.check(scorer.task, size=batch)
    with ExitStack() as stack:
        if out is None:
            sink: BinaryIO = sys.stdout.buffer
        else:
            sink = stack.enter_context(stack.enter_context(replacing(out)).open("wb"))
        return _score_chunks(scorer, source, WRITERS[writes](sink), batch)


def _score_chunks(scorer: "PairScorer", source: Source, writer: Writer, batch: int) -> int:
    n_pairs, faults, started = 0, list[Fault](), time.perf_counter()
    for chunk in source.chunks(scorer.task, size=batch):
        faults += chunk.faults
        if len(faults) >= MOST_FAULTS:
            break
        if not faults and len(chunk.pairs):
            writer.write(scorer.score_checked(chunk.pairs))
            n_pairs += len(chunk.pairs)
    refuse(faults, scorer.task)
    writer.close()
    seconds = time.perf_counter() - started
    log.info("%s pairs scored in %.1f s (%.0f/s)", f"{n_pairs:,}", seconds, n_pairs / max(seconds, 1e-9))
    return n_pairs


def _json_lines(file: BinaryIO, size: int, task: Task, name: str) -> Iterator[Records]:
    found, number = Records(), 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            found.faults.append(Fault(f"{name}:{number}", "the line does not end", f"at most {LONGEST_LINE:,} bytes"))
            break
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            found.faults.append(Fault(f"{name}:{number}", f"the line is not valid JSON: {error.msg}", "one object"))
        else:
            if isinstance(record, dict):
                found.add(number, record)
            else:
                found.faults.append(Fault(f"{name}:{number}", f"the line is {describe(record)}", "one JSON object"))
        if len(found) >= size:
            yield found
            found = Records()
    yield found


def _csv(file: BinaryIO, size: int, task: Task, name: str) -> Iterator[Records]:
    found = Records()
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        table = csv.DictReader(text, strict=True)
        _refuse_header(table.fieldnames or (), task, name)
        for row in table:
            if None in row or None in row.values():
                expected = f"{len(table.fieldnames or ())}, as in the header"
                found.faults.append(Fault(f"{name}:{table.line_num}", "too few or too many cells", expected))
            else:
                found.add(table.line_num, {column: cell or None for column, cell in row.items()})
            if len(found) >= size:
                yield found
                found = Records()
    except (UnicodeDecodeError, csv.Error) as error:
        found.faults.append(Fault(f"{name}:{table.line_num + 1}", f"it cannot be read further: {error}", "UTF-8 CSV"))
    finally:
        text.detach()
    yield found


def _parquet(file: BinaryIO, size: int, task: Task, name: str) -> Iterator[Records]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        _refuse_header(table.schema_arrow.names, task, name)
        known = {each for names in columns_of(task).values() for each in names}
        columns = [column for column in table.schema_arrow.names if column in known]
        start = 1
        for part in table.iter_batches(batch_size=size, columns=columns):
            records = part.to_pylist()
            yield Records(records, list(range(start, start + len(records))))
            start += len(records)
    except (pa.ArrowException, OSError) as error:
        raise CompetitionError(
            "there are no pairs to score", faults=[Fault(name, str(error)[:300], "a readable Parquet file")]
        ) from error


def _refuse_header(there: object, task: Task, name: str) -> None:
    names = list(there) if isinstance(there, list | tuple) else []
    faults = [
        Fault(f"{name}:1", f"there is no column {' or '.join(dict.fromkeys(wanted))}", f"it beside {', '.join(names)}")
        for column, wanted in columns_of(task).items()
        if column in ("query", "target") and not set(wanted) & set(names)
    ]
    refuse(faults, task)


READERS: dict[str, Callable[[BinaryIO, int, Task, str], Iterator[Records]]] = {
    "jsonl": _json_lines,
    "csv": _csv,
    "parquet": _parquet,
}
