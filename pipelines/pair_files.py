"""Files of pairs, of any size, some pairs at a time: JSON Lines, CSV, TSV or Parquet in, scores out."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd

from competition.artefacts import replacing
from competition.errors import CompetitionError, Fault
from competition.mapping import read_records, required_columns
from competition.regular_files import refuse_irregular
from competition.rows import faults_of
from competition.tasks import Task
from pipelines.new_pairs import checked_pairs, refuse
from pipelines.pair_columns import PairColumns
from pipelines.pair_readers import READERS, names_in
from pipelines.pair_writers import WRITERS, Writer

if TYPE_CHECKING:
    from pipelines.pair_scorer import PairScorer

log = logging.getLogger(__name__)

FORMATS = {
    "": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
MOST_FAULTS = 1000  # after so many a file is not looked at further
JOINED = ("id", "language", "query", "target")
OURS = Task("pairs", "target", target_is_category=False, default_plan="query-group", query="query")
"""What rows are that a contest's own file became: their columns have our names."""


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
            fault = Fault(str(path), "its suffix", expected)
            advice = "say what it is: --input-format csv, tsv, jsonl or parquet"
            raise CompetitionError("the format is not known", faults=[fault], advice=advice)
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
        if self._is_joined(task):
            yield from self._joined(task, size)
            return
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

    def look(self, task: Task) -> None:
        """Refuse a file that cannot be opened or has not the columns, by its beginning; a stream is left alone."""
        if self.path is None:
            return
        names = self._names(task)
        if self.format != "jsonl" and not self._is_joined(task):
            refuse(PairColumns(task).header_faults(names, f"{self.name}:1"), task)

    def _names(self, task: Task) -> list[str]:
        with self._opened() as file:
            return names_in(file, self.format, task, name=self.name)

    def _is_joined(self, task: Task) -> bool:
        """Whether it is one of the contest's own files, whose texts stand in a second one or whose rows are chosen."""
        if self.path is None or not (task.layout.joins or task.layout.filters):
            return False
        names = self._names(task)
        has_target = ("target",) in PairColumns(task).present("target", names)
        return not has_target and {*required_columns(task, labelled=False, split="")} <= {*names}

    def _joined(self, task: Task, size: int) -> Iterator[Chunk]:
        """As a run reads such a file: whole."""
        assert self.path is not None, "a stream has no second file"
        raw = read_records(self.path, task, labelled=False, split="")
        nothing, _ = checked_pairs([], [], OURS, name=self.name)
        yield Chunk(nothing, faults_of(self.name, raw.findings, n_records=len(raw.lines)))
        columns = [raw.columns.get(name, []) for name in (task.id, *task.text_columns)]
        for start in range(0, len(raw.lines), size):
            rows = zip(*(values[start : start + size] for values in columns), strict=True)
            records = [dict(zip(JOINED, row, strict=True)) for row in rows]
            yield Chunk(*checked_pairs(records, raw.lines[start : start + size], OURS, name=self.name))

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
            advice = "name a file of pairs: relstack score FILE, or - for standard input"
            raise CompetitionError("there are no pairs to score", faults=[fault], advice=advice) from error
        with file:
            yield file


def refuse_out(out: Path | None) -> None:
    """Refuse a place where no file can be written, before there is anything to write."""
    found = ""
    if out is not None and out.is_dir():
        found = "it is a folder"
    elif out is not None and (above := next(each for each in out.absolute().parents if each.exists())):
        found = "" if above.is_dir() else f"{above} is no folder"
    if found:
        faults = [Fault(str(out), found, "a file, there already or not")]
        raise CompetitionError("the scores cannot be written there", faults=faults, advice="name a file: --out FILE")


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
