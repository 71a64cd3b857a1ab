"""Damage for what has columns and members: Parquet files, zip and NumPy archives; see `fuzz_mutations`."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DEEP = 10_000
LONG = "x" * 200_000


# Parquet


def parquet_columns(path: Path, rng: random.Random) -> None:
    table = pq.read_table(path)
    place = rng.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place)
    what = rng.choice(("drop", "rename", "repeat", "further", "none", "order"))
    if what == "drop":
        table = table.drop_columns([name])
    elif what == "rename":
        new = rng.choice(("", "id", "score", name.upper(), f"{name}.x", "withheld_0", "\n", "靴", "x" * 5000))
        table = table.rename_columns([new if i == place else each for i, each in enumerate(table.column_names)])
    elif what == "repeat":
        table = table.append_column(name, column)
    elif what == "further":
        table = table.append_column(
            rng.choice(("further", "__index_level_0__", "withheld_7")), odd_array(len(table), rng)
        )
    elif what == "none":
        table = table.select([])
    else:
        table = table.select(rng.sample(table.column_names, table.num_columns))
    pq.write_table(table, path)


def parquet_type(path: Path, rng: random.Random) -> None:
    table = pq.read_table(path)
    place = rng.randrange(table.num_columns)
    column = table.column(place)
    if rng.random() < 0.5:
        new = column.cast(
            rng.choice(
                (pa.string(), pa.float32(), pa.int32(), pa.int64(), pa.uint64(), pa.bool_(), pa.int8(), pa.binary())
            )
        )
    elif rng.random() < 0.5:
        new = column.combine_chunks().dictionary_encode()
    else:
        new = odd_array(len(table), rng)
    pq.write_table(table.set_column(place, table.column_names[place], new), path)


def parquet_cells(path: Path, rng: random.Random) -> None:
    frame = pq.read_table(path).to_pandas()
    column, place = rng.choice(list(frame)), rng.randrange(max(1, len(frame)))
    what = rng.choice(("value", "value", "rows", "repeat", "shuffle", "empty", "nulls", "half"))
    if what == "value":
        odd: list[Any] = [None, -1, 2, 127, 1e300, float("nan"), float("inf"), "x", "", "\0", LONG, True, 0.5, 10**18]
        frame[column] = frame[column].astype(object)
        frame.loc[place, column] = rng.choice(odd)
    elif what == "rows":
        frame = frame.sample(frac=rng.choice((0.5, 0.99)), random_state=rng.randrange(2**31))
    elif what == "repeat":
        frame = pd.concat([frame, frame.iloc[place : place + rng.choice((1, 1000))]])
    elif what == "shuffle":
        frame[column] = frame[column].sample(frac=1, random_state=rng.randrange(2**31)).to_numpy()
    elif what == "empty":
        frame = frame.iloc[:0]
    elif what == "nulls":
        frame[column] = None
    else:
        frame = frame.set_index(column)
    frame.to_parquet(path, index=None if rng.random() < 0.3 else False)


def parquet_bomb(path: Path, rng: random.Random) -> None:
    """Many equal values: a small file that unpacks to gigabytes."""
    schema = pq.read_table(path).schema.remove_metadata()
    n, text = rng.choice(((300_000, "a"), (20_000, LONG)))
    values = pa.array(np.zeros(n, dtype=np.int8))
    columns = []
    for kind in schema.types:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            columns.append(pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), pa.array([text])))
        else:
            columns.append(values.cast(kind))
    pq.write_table(pa.table(columns, names=schema.names), path, compression=rng.choice(("zstd", "snappy", "gzip")))


def parquet_metadata(path: Path, rng: random.Random) -> None:
    table = pq.read_table(path)
    own = {
        b"pandas": rng.choice(
            (b"", b"{}", b"[1]", b'{"index_columns":["id"],"columns":[],"column_indexes":[]}', b"[" * DEEP)
        )
    }
    pq.write_table(table.replace_schema_metadata({**own, b"x": LONG.encode()}), path)


def odd_array(n: int, rng: random.Random) -> pa.Array:
    """``(n,)`` values of a type that no column of ours has."""
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.array([[1.0]] * n),
        lambda: pa.array([["x", None]] * n),
        lambda: pa.array([{"a": 1, "b": {"c": "x"}}] * n),
        lambda: pa.array([b"\xff\xfe"] * n, pa.binary()),
        lambda: pa.array([0] * n, pa.timestamp("ns", tz="UTC")),
        lambda: pa.array([2**62] * n, pa.timestamp("s")),
        lambda: pa.array([0] * n, pa.date32()),
        lambda: pa.array([0] * n, pa.duration("us")),
        lambda: pa.array([1] * n).cast(pa.decimal128(38, 2)),
        lambda: pa.nulls(n),
        lambda: pa.array([float("nan")] * n),
        lambda: pa.array([1.0] * n, pa.float16()),
        lambda: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        lambda: _nested(n, 40),
        lambda: pa.Array.from_buffers(pa.string(), n, [None, *pa.array([b"\xff"] * n, pa.binary()).buffers()[1:]]),
    ]
    return rng.choice(makers)()


def _nested(n: int, depth: int) -> pa.Array:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return pa.array([value] * n)


# Archives


def zip_members(path: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice(list(members))
    what = rng.choice(("bomb", "repeat", "outside", "rename", "compress", "content", "many"))
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(path, "w", packing if what in ("compress", "bomb") else zipfile.ZIP_DEFLATED) as archive:
        for each, data in members.items():
            if each == name and what == "bomb":
                with archive.open(each, "w") as member:
                    for _ in range(32):
                        member.write(b"0" * 2**20)
            elif each == name and what == "content":
                archive.writestr(each, rng.choice((b"", b"\0", b"{}", b"x" * 1000)))
            elif each == name and what == "rename":
                archive.writestr(rng.choice(("x", "a/b", "\\a", "靴", "a" * 300)), data)
            else:
                archive.writestr(each, data)
        if what == "repeat":
            archive.writestr(name, b"")
        if what == "outside":
            archive.writestr(rng.choice(("../x", "/etc/x", "C:\\x", "a/../../x")), b"")
        if what == "many":
            for number_ in range(2000):
                archive.writestr(f"m{number_}", b"")


def npz_arrays(path: Path, rng: random.Random) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    name = rng.choice(list(arrays))
    what = rng.choice(("drop", "type", "shape", "object", "text", "compressed", "header", "nan"))
    odd = {"type": arrays[name].astype("S8"), "shape": arrays[name][..., None, None], "text": np.array("x"),
           "object": np.array([{"a": 1}], dtype=object), "nan": np.full(arrays[name].shape, np.nan)}  # fmt: skip
    if what == "drop":
        del arrays[name]
    arrays.update({name: odd[what]} if what in odd else {})
    if what == "header":
        shape = rng.choice(("(1000000000000,)", "(-1,)", "(" * 3000, "(3," + "9" * 400 + ")", "()", "(True,)"))
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(200) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little")[:2] + head
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for each in arrays:
                archive.writestr(f"{each}.npy", content)
        path.write_bytes(buffer.getvalue())
        return
    (np.savez_compressed if what == "compressed" else np.savez)(path, **arrays)
