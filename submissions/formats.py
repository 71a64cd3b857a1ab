"""The formats of a submission's files: JSON Lines and CSV, read record by record with what is wrong with each alone."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from competition.errors import Fault
from competition.tasks import Task
from submissions.build import Fields, RowId
from submissions.values import csv_header, expected_cell, prediction_of

SUFFIXES = (".txt", ".jsonl", ".csv")

ABSENT = object()
BOM = b"\xef\xbb\xbf"
ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u([0-9a-fA-F]{4})")


class Record(NamedTuple):
    """One line of a file: what could be read of it, and what is wrong with it alone.

    `fields` are language, query and target (`ABSENT` without the key); a CSV has none.
    """

    line: int
    id: RowId | None
    prediction: float | None
    fields: tuple[Any, ...] | None
    faults: Sequence[Fault] = ()


def json_records(data: bytes, name: str, task: Task) -> Iterator[Record]:
    """The records of a JSON Lines file, blank lines at its end left out."""
    data, bom_faults = _without_bom(data, name)
    if bom_faults:
        yield Record(1, None, None, None, bom_faults)
    lines = data.rstrip(b" \t\r\n").split(b"\n")
    keys = (task.id, *task.text_columns, task.prediction)
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        yield _json_record(line.rstrip(b"\r"), number, name, keys)


def _json_record(line: bytes, number: int, name: str, keys: Sequence[str]) -> Record:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        problem = f"unreadable: {error}" if line.strip() else "blank line"
        fault = Fault(f"{name}:{number}", problem, "one JSON object in UTF-8")
        return Record(number, None, None, None, [fault])
    if not isinstance(found, dict):
        fault = Fault(f"{name}:{number}", f"{type(found).__name__}", "one JSON object")
        return Record(number, None, None, None, [fault])
    row_id, *fields, prediction = [found.get(key, ABSENT) for key in keys]
    is_id, is_binary = is_row_id(row_id), type(prediction) is int and prediction in (0, 1)
    # Most lines are right; the words for what is wrong are made for the others only.
    right = is_id and is_binary and len(found) == len(keys) and _is_plain(found, line)
    return Record(
        number,
        row_id if is_id else None,
        prediction if is_binary else None,
        tuple(fields),
        () if right else _object_faults(found, line, f"{name}:{number}", keys),
    )


def _is_plain(found: Mapping[str, Any], line: bytes) -> bool:
    """Whether `line` surely has no escapes and no key twice: no backslash, no quotes but those of `found`."""
    n_texts = len(found) + sum(type(value) is str for value in found.values())
    return b"\\" not in line and line.count(b'"') == 2 * n_texts


def _object_faults(found: Mapping[str, Any], line: bytes, where: str, keys: Sequence[str]) -> list[Fault]:
    row_id, prediction = found.get(keys[0], ABSENT), found.get(keys[-1], ABSENT)
    where = where if row_id is ABSENT else f"{where}, id {shown(row_id)}"
    faults = [*_spelling_faults(line, where), *_key_faults(found, where, keys)]
    if row_id is not ABSENT and not is_row_id(row_id):
        faults.append(Fault(where, f"{keys[0]} is {shown(row_id)}", "text or a 64-bit integer"))
    if prediction is not ABSENT and (type(prediction) is not int or prediction not in (0, 1)):
        faults.append(Fault(where, f"{keys[-1]} is {shown(prediction)}", "an integer, 0 or 1"))
    return faults


def shown(value: object) -> str:
    """A JSON value for a message; of a list or an object only the kind (deep ones have no `repr`).

    Examples
    --------
    >>> shown("1"), shown([1])
    ("'1'", 'a list')
    """
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value)


def is_row_id(value: object) -> bool:
    """Whether a JSON value can be a row id: text, or an integer of 64 bits (True is neither)."""
    return type(value) is str or (type(value) is int and -(2**63) <= value < 2**63)


def _spelling_faults(line: bytes, where: str) -> list[Fault]:
    pairs: list[list[tuple[str, Any]]] = []
    try:
        json.loads(line, object_pairs_hook=pairs.append)  # the outermost object comes last
    except RecursionError:
        return [Fault(where, "values are nested", "text, integers and null")]
    except ValueError:  # orjson took it: what Python refuses are numbers of thousands of digits
        return [Fault(where, "a number has too many digits", "integers of 64 bits")]
    times = Counter(key for key, _ in pairs[-1])
    repeated = sorted(key for key, n in times.items() if n > 1)
    escapes = [digits.decode() for digits in ESCAPE.findall(line) if int(digits, 16) > 0x7F]
    faults = [Fault(where, f"\\u{escapes[0]} is escaped", "unescaped UTF-8")] if escapes else []
    return faults + [Fault(where, f"key {key!r} is repeated", "each key once") for key in repeated]


def _key_faults(found: Iterable[str], where: str, keys: Sequence[str]) -> list[Fault]:
    missing, extra = sorted(set(keys) - set(found)), sorted(set(found) - set(keys))
    wanted = f"exactly the keys {', '.join(keys)}"
    faults = [Fault(where, f"key {key!r} is missing", wanted) for key in missing]
    return faults + [Fault(where, f"key {key!r} is too much", wanted) for key in extra]


def csv_records(data: bytes, name: str, task: Task) -> Iterator[Record]:
    """The records of a CSV file of ids and predictions; ids are text. Blank lines at its end are left out."""
    data, faults = _without_bom(data, name)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Record(line, None, None, None, [*faults, Fault(f"{name}:{line}", "not UTF-8", "UTF-8")])
        return
    header = list(csv_header(task))
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
    try:
        first = next(reader, [])
        if first != header:
            faults.append(Fault(f"{name}:1", f"the header is {','.join(first)!r}", f"{','.join(header)!r}"))
        yield Record(1, None, None, None, faults)
        start = reader.line_num + 1
        for cells in reader:
            yield _csv_record(cells, start, name, task)
            start = reader.line_num + 1  # a quoted id may span lines
    except csv.Error as error:
        fault = Fault(f"{name}:{reader.line_num}", f"unreadable: {error}", "CSV")
        yield Record(reader.line_num, None, None, None, [fault])


def _csv_record(cells: Sequence[str], number: int, name: str, task: Task) -> Record:
    if len(cells) != 2:
        found = f"{len(cells)} cells" if cells else "blank line"
        fault = Fault(f"{name}:{number}", found, f"two: {','.join(csv_header(task))}")
        return Record(number, None, None, None, [fault])
    row_id, value = cells
    if (prediction := prediction_of(task, value)) is not None:
        return Record(number, row_id, prediction, None)
    found = f"{csv_header(task)[1]} is {value!r}"
    fault = Fault(f"{name}:{number}, id {row_id!r}", found, expected_cell(task))
    return Record(number, row_id, None, None, [fault])


def _without_bom(data: bytes, name: str) -> tuple[bytes, list[Fault]]:
    if not data.startswith(BOM):
        return data, []
    return data[len(BOM) :], [Fault(f"{name}:1", "starts with a byte order mark", "UTF-8 without one")]


# --- the short way through files of our own


def json_predictions(data: bytes, task: Task, rows: Mapping[RowId, Fields]) -> list[int] | None:
    """The predictions of a JSON Lines file that is, but for them, the bytes due for `rows` in their order, else None.

    None says nothing against the file, only that its records must be read. It saves 170,000 parsed lines.
    """
    keys = (task.id, *task.text_columns, task.prediction)
    heads = [orjson.dumps(dict(zip(keys, (row_id, *fields, 0), strict=True)))[:-2] for row_id, fields in rows.items()]
    return _predictions_after(heads, data, {b"0}": 0, b"1}": 1})


def csv_predictions(data: bytes, task: Task, ids: Collection[RowId]) -> list[int] | None:
    """The same of a CSV file; None also where ids are text, which may be quoted, or predictions are no digits."""
    if prediction_of(task, "0") != 0 or prediction_of(task, "1") != 1:
        return None
    header, _, lines = data.partition(b"\n")
    heads = [b"%d," % row_id for row_id in ids if isinstance(row_id, int)]
    if len(heads) < len(ids) or any(record.faults for record in csv_records(header, "", task)):
        return None
    return _predictions_after(heads, lines, {b"0": 0, b"1": 1})


def _predictions_after(heads: Sequence[bytes], data: bytes, ends: Mapping[bytes, int]) -> list[int] | None:
    """The values of the `ends` that follow the `heads`, one on each line of `data`; None if any line differs.

    Examples
    --------
    >>> _predictions_after([b"7,", b"8,"], b"7,1\\n8,0\\n", {b"0": 0, b"1": 1})
    [1, 0]
    """
    width = len(next(iter(ends)))
    *lines, rest = data.split(b"\n")
    found = [ends[line[-width:]] for line in lines if line[-width:] in ends]
    matches = not rest and len(found) == len(lines) and [line[:-width] for line in lines] == heads
    return found if matches else None
