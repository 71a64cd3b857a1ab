"""Damage for files: bytes, lines, values and columns changed at random, and what is no file in the place of a file.

Every mutation takes the file's path and a generator, and leaves something else there. The same generator does the same.
"""

import copy
import json
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzz_columns import (
    DEEP,
    LONG,
    npz_arrays,
    parquet_bomb,
    parquet_cells,
    parquet_columns,
    parquet_metadata,
    parquet_type,
    zip_members,
)

Mutation = Callable[[Path, random.Random], None]

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
        except Exception:  # what an earlier mutation has left breaks the libraries that this one works with
            continue
        names.append(name)
    return " ".join(names)


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
