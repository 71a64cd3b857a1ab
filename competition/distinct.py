"""A table that keeps the first row of each key, in order, for any number of rows in bounded memory."""

import csv
import heapq
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import orjson

HELD = 100_000
"""Keys that are held in memory; those after them are sorted out on disk."""
N_BUCKETS = 64


class DistinctTable:
    """Writes a CSV file with one row for each key, the first; use it as a context.

    The first `HELD` keys are known in memory. Rows with other keys go to one of `N_BUCKETS` files by their key, and
    when the context ends each of these is read alone: memory grows with a 64th of the keys only.

    Parameters
    ----------
    path
        The CSV file.
    columns
        Its header; the first `n_key` of them are the key.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, n_key: int) -> None:
        self.path, self.columns, self.n_key = path, columns, n_key
        self.n_rows = 0
        self._n_seen = 0
        self._held: set[tuple[str, ...]] = set()
        self._buckets: dict[int, IO[bytes]] = {}
        self._open = ExitStack()

    def __enter__(self) -> "DistinctTable":
        file = self._open.enter_context(self.path.open("w", encoding="utf-8", newline=""))
        self._table = csv.writer(file, lineterminator="\n")
        self._table.writerow(self.columns)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                self._write_spilled()

    def add(self, *row: str) -> None:
        """Write `row` unless its key was there before."""
        key = row[: self.n_key]
        if key in self._held:
            return
        if len(self._held) < HELD:
            self._held.add(key)
            self._write(row)
            return
        self._n_seen += 1
        bucket = zlib.crc32("\0".join(key).encode()) % N_BUCKETS
        if bucket not in self._buckets:
            self._buckets[bucket] = self._open.enter_context(self._bucket_path(bucket).open("w+b"))
        self._buckets[bucket].write(orjson.dumps([self._n_seen, *row]) + b"\n")

    def _write(self, row: Sequence[str]) -> None:
        self.n_rows += 1
        self._table.writerow(row)

    def _bucket_path(self, bucket: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{bucket}")

    def _write_spilled(self) -> None:
        for file in self._buckets.values():
            self._keep_first(file)
        for _, *row in heapq.merge(*map(_records, self._buckets.values()), key=lambda record: record[0]):
            self._write(row)
        for bucket in self._buckets:
            self._bucket_path(bucket).unlink()

    def _keep_first(self, file: IO[bytes]) -> None:
        """Leave only the first record of each key in a bucket."""
        first: dict[tuple[str, ...], list[str]] = {}
        for record in _records(file):
            first.setdefault(tuple(record[1 : 1 + self.n_key]), record)
        file.seek(0)
        file.truncate()
        file.writelines(orjson.dumps(record) + b"\n" for record in first.values())


def _records(file: IO[bytes]) -> Iterator[list[str]]:
    """The records of a bucket: a number that orders them, and the row."""
    file.seek(0)
    yield from map(orjson.loads, file)
