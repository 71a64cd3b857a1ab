"""Parquet files that we write and anybody may damage: read column by column, or said what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.regular_files import refuse_irregular

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["id", "text", "text or null", "whole number", "number", "truth value", "label"]
"""What a column holds: an id is a whole number or text, a label is 0, 1 or null."""

BATCH_ROWS = 512
ROWS_PER_BYTE = 4
FEW_ROWS = 100_000
GROWTH = 100
FEW_BYTES = 2**28
"""Runs of equal values pack well, bombs pack better: rows per byte, and bytes per byte, above these are refused."""


def read_frame(
    path: Path,
    columns: Mapping[str, Kind],
    *,
    what: str,
    advice: str,
    optional: Mapping[str, Kind] | None = None,
) -> pd.DataFrame:
    """The rows of a Parquet file, with a RangeIndex: all `columns` are there, each once and of its kind.

    Further columns are kept where they hold plain numbers, texts or truth values; `optional` says what some must hold.

    Raises
    ------
    CompetitionError
        It is not there, is not Parquet, or has other columns: all that is wrong is named.
    """
    import pyarrow as pa

    try:
        _, table = read_table(path)
        table.validate(full=True)  # text is UTF-8
    except (OSError, ValueError) as error:
        faults = [Fault(str(path), reason(error), "a Parquet file")]
        raise CompetitionError(f"{what} cannot be read", faults=faults, advice=advice) from error
    known = {**columns, **{name: kind for name, kind in (optional or {}).items() if name in table.column_names}}
    asked = dict.fromkeys((*columns, *table.column_names))
    found = [fault for name in asked if (fault := _column_fault(table, name, known.get(name), where=str(path)))]
    if found:
        raise CompetitionError(f"{what} is damaged", faults=found, advice=advice)
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas(ignore_metadata=True)
    for name, kind in known.items():
        if kind == "label":
            frame[name] = frame[name].astype("Int8")
        if kind == "id" and pa.types.is_integer(table.schema.field(name).type):
            frame[name] = frame[name].astype("int64")
    return frame


def read_table(path: Path, columns: Sequence[str] | None = None) -> "tuple[list[str], pa.Table]":
    """Names of all columns of a Parquet file, and the (named) columns, categories as their values.

    Whether text is UTF-8 is not checked.

    Raises
    ------
    OSError
        It is not there, or is no regular file.
    ValueError
        It is not Parquet, or unpacks to so much that it must have been made to fill the memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_irregular(path)
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            _refuse_bomb(file.metadata.num_rows, "rows", max(FEW_ROWS, size * ROWS_PER_BYTE))
            names = file.schema_arrow.names
            wanted = names if columns is None else [name for name in columns if name in names]
            batches, n_bytes = [], 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                n_bytes += sum(map(_n_bytes, batch.columns))
                _refuse_bomb(n_bytes, "bytes of values", max(FEW_BYTES, size * GROWTH))
                batches.append(batch)
            schema = batches[0].schema if batches else file.schema_arrow
            table = pa.Table.from_batches(batches, schema)
        table = _without_categories(table)
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise ValueError(f"the file cannot be read as Parquet: {reason(error)}") from error
    return names, table


def is_plain(kind: Any) -> bool:
    """Whether an Arrow type is one of numbers, texts, truth values, or of nothing but nulls."""
    return _holds(kind, None)


def reason(error: BaseException) -> str:
    """What an error says, on one line.

    Examples
    --------
    >>> reason(ValueError("no\\n such thing"))
    'no such thing'
    """
    return " ".join(str(error).split())[:500] or type(error).__name__


def _n_bytes(column: "pa.Array") -> int:
    """The bytes of a column; where it holds categories, those that their values will take."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_dictionary(column.type) and _holds(column.type.value_type, "text")):
        return int(column.nbytes)
    column.validate(full=True)
    return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _without_categories(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, values)
    return table


def _refuse_bomb(n: int, what: str, most: int) -> None:
    if not 0 <= n <= most:
        raise ValueError(f"it claims {n:,} {what}, which no file of its size holds unless it was made to fill memory")


def _column_fault(table: "pa.Table", name: str, kind: Kind | None, *, where: str) -> Fault | None:
    """What is wrong with a column; None if it is right."""
    place, expected = f"{where}: {name[:60]}", kind or "numbers, texts or truth values"
    times = table.column_names.count(name)
    if times != 1:
        return Fault(place, f"{times} columns of this name" if times else "no column of this name", "one")
    column = table.column(name)
    if not _holds(column.type, kind):
        return Fault(place, f"a column of type {str(column.type)[:60]}", expected)
    if column.null_count and kind not in (None, "text or null", "label"):
        return Fault(place, f"{column.null_count:,} nulls", expected)
    if kind == "label" and not _are_labels(column):
        return Fault(place, "values other than 0, 1 and null", "labels")
    return None


def _holds(found: Any, kind: Kind | None) -> bool:
    from pyarrow import types

    text = types.is_string(found) or types.is_large_string(found)
    whole = types.is_integer(found) and not types.is_uint64(found)
    number = whole or types.is_floating(found)
    by_kind: dict[Kind | None, bool] = {
        "id": text or whole,
        "text": text,
        "text or null": text,
        "whole number": whole,
        "number": number,
        "truth value": types.is_boolean(found),
        "label": whole or types.is_null(found),
        None: text or number or types.is_boolean(found) or types.is_null(found),
    }
    return by_kind[kind]


def _are_labels(column: Any) -> bool:
    import pyarrow.compute as pc

    return {*pc.unique(column).to_pylist()} <= {0, 1, None}
