"""Scores by id as JSON Lines, CSV, TSV or Parquet, some lines at a time."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Protocol

import orjson
import pandas as pd

from competition.errors import CompetitionError, Fault


class Writer(Protocol):
    """Writes frames of id, score and decision, one after the other."""

    def write(self, scored: pd.DataFrame) -> None:
        """The next lines."""

    def close(self) -> None:
        """What ends the file."""


@dataclass(frozen=True, eq=False)
class JsonLinesWriter:
    """One object per line."""

    sink: BinaryIO

    def write(self, scored: pd.DataFrame) -> None:
        """See `Writer`."""
        columns = zip(scored["id"].tolist(), scored["score"].tolist(), scored["decision"].tolist(), strict=True)
        lines = [orjson.dumps({"id": key, "score": score, "decision": cut}) for key, score, cut in columns]
        self.sink.write(b"\n".join([*lines, b""]))
        self.sink.flush()

    def close(self) -> None:
        """See `Writer`."""
        self.sink.flush()


class CsvWriter:
    """A header, then one line per pair."""

    def __init__(self, sink: BinaryIO, delimiter: str = ",") -> None:
        self.sink, self.delimiter = sink, delimiter
        self.sink.write(delimiter.join(("id", "score", "decision")).encode() + b"\n")

    def write(self, scored: pd.DataFrame) -> None:
        """See `Writer`."""
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerows(
            scored.itertuples(index=False, name=None)
        )
        self.sink.write(text.getvalue().encode())
        self.sink.flush()

    def close(self) -> None:
        """See `Writer`."""
        self.sink.flush()


class ParquetWriter:
    """A Parquet file whose ids are numbers if those of the first pairs are."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink = sink
        self._writer: Any = None

    def write(self, scored: pd.DataFrame) -> None:
        """See `Writer`; a CompetitionError if ids are numbers first and text later."""
        import pyarrow as pa
        from pyarrow import parquet

        numbers = all(type(each) is int for each in scored["id"])
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self.sink, _schema(numbers=numbers))
        try:
            table = pa.Table.from_pandas(scored, schema=self._writer.schema, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            fault = Fault("id", "both numbers and text", "one of them: a column of Parquet has one type")
            raise CompetitionError("these ids cannot be written", faults=[fault], advice="--format jsonl") from error
        self._writer.write_table(table)

    def close(self) -> None:
        """See `Writer`."""
        from pyarrow import parquet

        writer = self._writer or parquet.ParquetWriter(self.sink, _schema(numbers=False))
        writer.close()


def _schema(*, numbers: bool) -> Any:
    import pyarrow as pa

    return pa.schema([("id", pa.int64() if numbers else pa.string()), ("score", pa.float64()), ("decision", pa.int8())])


WRITERS: dict[str, Callable[[BinaryIO], Writer]] = {
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
    "tsv": partial(CsvWriter, delimiter="\t"),
    "parquet": ParquetWriter,
}
