"""Damage for files: bytes, lines, values and columns changed at random, and what is no file in the place of a file.

Every mutation takes the file's path and a generator, and leaves something else there. The same generator does the same.
"""

import copy
import io
import json
import os
import random
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[Path, random.Random], None]

DEEP = 10_000
LONG = "x" * 200_000
CHUNKS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"\r\n", b"\r", b"\n\n", b'"', b"'", b",",
    b"\t", b"[", b"{", b"}", b"]", b":", b"=", b"\\u0000", b"\\ud800", b"-1", b"1e999", b"NaN",
    b"99999999999999999999", b"9" * 5000, b"\xe2\x80\xa8", b"[" * DEEP, b'{"a":' * DEEP, b"x" * 200_000, b"..",
    b"../../../etc/passwd", b"log:", b"%s", b"{query.__class__}",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "0", "1.0", "x", "\0", "\ud800", "靴", LONG, "../../x", "/dev/zero", [], {}, [None], {"": None},
    {"a": {"b": [1]}}, ["x", 1, None], [[0.5]], 2.0,
]  # fmt: skip
TOML_VALUES = [
    "true", "0", "-1", "1e400", "nan", "inf", "-inf", '""', '"x"', "[]", "{}", "[[1]]", '["a", 1]', "1979-05-27",
    "0xff", "9" * 400, "9" * 5000, "[" * DEEP, "[" * 300 + "]" * 300, "{a=" * 300 + "1" + "}" * 300, f'"{LONG}"',
    "'''", '"\\ud800"', "1_000", "18446744073709551616",
]  # fmt: skip
NUMBERS = [
    b"0",
    b"-1",
    b"1",
    b"2",
    b"65536",
    b"2147483647",
    b"-2147483648",
    b"99999999999",
    b"1e308",
    b"nan",
    b"inf",
    b"x",
    b"",
    b"0.5",
]
DIGITS = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def mutate(path: Path, rng: random.Random) -> str:
    """Damage one file in one to three ways; the names of these."""
    kinds = [*BYTES.items(), *BY_SUFFIX.get(path.suffix, {}).items()]
    own = [*BY_SUFFIX.get(path.suffix, {}).items()] or kinds
    names = []
    if rng.random() < 0.04:
        name, mutation = rng.choice([*PLACES.items()])
        mutation(path, rng)
        return name
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name, mutation = rng.choice(own if rng.random() < 0.6 else kinds)
        try:
            mutation(path, rng)
        except UNFIT:  # what an earlier mutation has left has no such structure any more
            continue
        names.append(name)
    return " ".join(names)


UNFIT = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RuntimeError, OverflowError, EOFError,
    pa.ArrowException, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


# Bytes and lines


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def overwrite(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start, n = _place(data, rng), rng.choice((1, 2, 4, 8, 32))
    data[start : start + n] = rng.choice((b"\0", b"\xff", b"\x7f", rng.randbytes(1))) * n
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice((0, 1, len(data) - 1, _place(data, rng)))])


def insert(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = rng.choice((0, len(data), _place(data, rng)))
    chunk = rng.choice(CHUNKS) if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 50))
    path.write_bytes(data[:start] + chunk + data[start:])


def cut_out(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = _place(data, rng)
    path.write_bytes(data[:start] + data[start + rng.choice((1, 2, 10, 100, 1000)) :])


def repeat(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start, end = sorted((_place(data, rng), _place(data, rng)))
    path.write_bytes(data[:end] + data[start:end] * rng.choice((1, 1, 2, 5)) + data[end:])


def number(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    found = rng.choice(list(DIGITS.finditer(data)))
    path.write_bytes(data[: found.start()] + rng.choice(NUMBERS) + data[found.end() :])


def lines(path: Path, rng: random.Random) -> None:
    rows = path.read_bytes().split(b"\n")
    one, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    what = rng.choice(("swap", "repeat", "delete", "join", "blank"))
    if what == "swap":
        rows[one], rows[other] = rows[other], rows[one]
    elif what == "repeat":
        rows.insert(other, rows[one])
    elif what == "delete":
        del rows[one]
    elif what == "join":
        rows[one] += rows[other]
    else:
        rows.insert(one, rng.choice((b"", b"   ", b"\t", b"#", b"\xc2\xa0")))
    path.write_bytes(b"\n".join(rows))


def encoding(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    text = data.decode("utf-8", "replace")
    changed = [
        b"\xef\xbb\xbf" + data,
        data.replace(b"\n", b"\r\n"),
        data.replace(b"\n", b"\r"),
        data.replace(b" ", b"\0"),
    ]
    changed += [text.encode(name, "replace") for name in ("utf-16", "utf-16-be", "utf-32", "cp1252", "shift_jis")]
    path.write_bytes(rng.choice(changed))


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.choice((b"", b"\n", b"\0" * 1000, b"null", b"[]", b"{}", b"0", b'"x"', rng.randbytes(500))))


BYTES: Mapping[str, Mutation] = {
    function.__name__: function
    for function in (flip, overwrite, truncate, insert, cut_out, repeat, number, lines, encoding, empty)
}


# What is no file


def folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice((path.with_name("nowhere"), path, Path("/dev/zero"), path.parent)))


def pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


PLACES: Mapping[str, Mutation] = {function.__name__: function for function in (folder, missing, link, pipe)}


# JSON, JSON Lines, TOML, CSV


def damaged_value(values: Any, rng: random.Random) -> Any:
    """Plain values with one of them changed, removed, renamed or nested."""
    values = copy.deepcopy(values)
    places = list(_places(values))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    what = rng.choice(("value", "value", "value", "delete", "rename", "further", "wrap", "text", "scale"))
    if what == "value":
        holder[key] = rng.choice(VALUES)
    elif what == "delete":
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        holder[rng.choice(("", "x", str(key).upper(), f"{key} ", "\ud800"))] = holder.pop(key)
    elif what == "further" and isinstance(holder, dict):
        holder["further"] = rng.choice(VALUES)
    elif what == "wrap":
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}))
    elif what == "text":
        holder[key] = str(holder[key])
    else:
        holder[key] = holder[key] * rng.choice((2, -1, 0, 1000))
    return values


def _places(values: Any) -> Any:
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield values, key
        yield from _places(value)


def json_value(path: Path, rng: random.Random) -> None:
    path.write_text(json.dumps(damaged_value(json.loads(path.read_bytes()), rng)), encoding="utf-8")


def json_line(path: Path, rng: random.Random) -> None:
    rows = path.read_text(encoding="utf-8").splitlines()
    place = rng.randrange(len(rows))
    rows[place] = json.dumps(damaged_value(json.loads(rows[place]), rng), ensure_ascii=rng.random() < 0.5)
    path.write_text("\n".join(rows), encoding="utf-8", errors="surrogatepass")


def json_deep(path: Path, rng: random.Random) -> None:
    n, (begin, end) = rng.choice((100, 990, DEEP)), rng.choice((("[", "]"), ('{"a":', "}")))
    deep = begin * n + "1" + end * n
    text = path.read_text(encoding="utf-8")
    found = rng.choice(list(re.finditer(r':\s*("[^"]*"|[\d.]+)', text)))
    path.write_text(text[: found.start(1)] + deep + text[found.end(1) :], encoding="utf-8")


def json_keys(path: Path, rng: random.Random) -> None:
    keys = ",".join(f'"k{i}":0' for i in range(rng.choice((10, 5_000))))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("{", "{" + keys + ",", 1), encoding="utf-8")


def toml_value(path: Path, rng: random.Random) -> None:
    rows = path.read_text(encoding="utf-8").splitlines()
    place = rng.choice([i for i, row in enumerate(rows) if "=" in row])
    rows[place] = f"{rows[place].split('=')[0]}= {rng.choice(TOML_VALUES)}"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def toml_line(path: Path, rng: random.Random) -> None:
    rows = path.read_text(encoding="utf-8").splitlines()
    new = [
        "[text]",
        "[[text]]",
        "[a.b.c]",
        "kind = 1",
        "x = 1",
        ".".join("a" * DEEP) + " = 1",
        "[" + ".".join("a" * DEEP) + "]",
    ]
    new += ['"" = 1', "text.view.x = 1", f"{'k' * 5000} = {'1'}", "'a' = 'b'", "a = [\n" * 500, "kind.x = 1"]
    rows.insert(rng.randrange(len(rows) + 1), rng.choice(new))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def csv_cell(path: Path, rng: random.Random) -> None:
    rows = path.read_text(encoding="utf-8").split("\n")
    mark, place = "\t" if path.suffix == ".tsv" else ",", rng.randrange(len(rows))
    cells = rows[place].split(mark)
    what, cell = rng.choice(("value", "value", "delete", "further", "swap")), rng.randrange(len(cells))
    if what == "value":
        cells[cell] = rng.choice(
            ("", "x", "-1", "nan", "inf", "1e999", '"', '"a\nb"', '""""', "\0", "靴", LONG, "9" * 5000)
        )
    elif what == "delete":
        del cells[cell]
    elif what == "further":
        cells.insert(cell, rng.choice(("x", "id", cells[cell])))
    else:
        rng.shuffle(cells)
    rows[place] = mark.join(cells)
    path.write_text("\n".join(rows), encoding="utf-8")


def csv_columns(path: Path, rng: random.Random) -> None:
    mark = "\t" if path.suffix == ".tsv" else ","
    rows = [line.split(mark) for line in path.read_text(encoding="utf-8").split("\n")]
    place = rng.randrange(len(rows[0]))
    for cells in rows[: rng.choice((1, len(rows)))]:
        if rng.random() < 0.5:
            cells.insert(0, cells[place])
        elif place < len(cells):
            del cells[place]
    path.write_text("\n".join(map(mark.join, rows)), encoding="utf-8")


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
                archive.writestr(each, rng.choice(CHUNKS))
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


PARQUET = (
    parquet_columns,
    parquet_columns,
    parquet_type,
    parquet_type,
    parquet_cells,
    parquet_cells,
    parquet_bomb,
    parquet_metadata,
)
JSON_LINES, CSV = (json_line, json_line, json_deep, json_keys, lines), (csv_cell, csv_cell, csv_columns)


def _named(*mutations: Mutation) -> dict[str, Mutation]:
    return {f"{function.__name__}-{place}": function for place, function in enumerate(mutations)}


BY_SUFFIX: Mapping[str, Mapping[str, Mutation]] = {
    ".json": _named(json_value, json_value, json_value, json_deep, json_keys),
    ".jsonl": _named(*JSON_LINES),
    ".log": _named(*JSON_LINES),
    ".txt": _named(*JSON_LINES, number, number),
    ".toml": _named(toml_value, toml_value, toml_line),
    ".csv": _named(*CSV),
    ".tsv": _named(*CSV),
    ".parquet": _named(*PARQUET),
    ".zip": _named(zip_members),
    ".npz": _named(npz_arrays),
}
"""Suffix -> mutations that know the format; one that stands there twice is taken twice as often."""
