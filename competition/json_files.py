"""JSON files that we write and anybody may damage: read whole and held against their shape, or said what is wrong."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from competition.errors import CompetitionError, Fault
from competition.raw_rows import describe
from competition.regular_files import read_bytes

MOST_BYTES = 256 * 2**20
DEEPEST = 60
"""Objects and lists in one another; what walks over values by recursion gets by with that."""
MOST_FAULTS = 50

Shape = Any
"""``str, int, float, bool, Any``, a union of these, ``list[...]``, ``dict[str, ...]``, or a mapping of key to shape.

A float must be finite and may be a whole number, an int has at most 64 bits; neither is a truth value.
"""

WORDS: Mapping[Any, str] = {
    str: "text",
    int: "a whole number of at most 64 bits",
    float: "a finite number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def read_json(
    path: Path,
    shape: Mapping[str, Shape],
    *,
    what: str,
    advice: str,
    optional: Mapping[str, Shape] | None = None,
) -> dict[str, Any]:
    """The object in the file at `path`: every key of `shape` is there and of its kind; further keys are kept.

    Those of `optional` are of their kind where they are there.

    Parameters
    ----------
    what
        What the file is, for the error: "the manifest of ...".
    advice
        What to do if it is damaged.

    Raises
    ------
    CompetitionError
        It is not there, is not JSON, or has another shape: every place is named.
    """
    try:
        values = parse_json(read_bytes(path, most=MOST_BYTES))
    except OSError as error:
        raise CompetitionError(
            f"{what} cannot be read", faults=[Fault(str(path), str(error.strerror or error))], advice=advice
        ) from error
    except ValueError as error:
        raise CompetitionError(f"{what} is damaged", faults=[Fault(str(path), str(error))], advice=advice) from error
    there = {key: each for key, each in (optional or {}).items() if isinstance(values, dict) and key in values}
    if faults := list(islice(shape_faults(values, {**shape, **there}, str(path)), MOST_FAULTS)):
        raise CompetitionError(f"{what} is damaged", faults=faults, advice=advice)
    return dict(values)


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8; NaN and the infinities may stand in it, as `json` writes them.

    Raises
    ------
    ValueError
        It is none, is nested deeper than `DEEPEST`, or has text that UTF-8 cannot hold.

    Examples
    --------
    >>> parse_json(b'{"a": [1, NaN]}')
    {'a': [1, nan]}
    """
    try:
        values = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST}") from error
    if found := misfit(values):
        raise ValueError(found)
    return values


def misfit(values: object) -> str:
    """What is wrong with plain values: nested too deep, or text that UTF-8 cannot hold; "" if nothing is.

    Examples
    --------
    >>> misfit({"a": ["b"]}), misfit(["\\ud800"])
    ('', "the text '\\\\ud800' cannot be written as UTF-8")
    """
    level: list[object] = [values]
    for _ in range(DEEPEST):
        texts = [each for each in level if isinstance(each, str)]
        texts += [str(key) for each in level if isinstance(each, dict) for key in each]
        for text in texts:
            if not text.isascii() and text.encode("utf-8", "ignore").decode("utf-8") != text:
                return f"{describe(text)} cannot be written as UTF-8"
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return ""
    return f"nested deeper than {DEEPEST}"


def _inner(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def shape_faults(value: object, shape: Shape, where: str) -> Iterator[Fault]:
    """Every place below `where` at which `value` is not of `shape`.

    Examples
    --------
    >>> for fault in shape_faults({"a": [1, "x"], "b": True}, {"a": list[float], "b": float, "c": str}, "f.json"):
    ...     print(fault)
    f.json: a[1]: the text 'x'; expected a finite number
    f.json: b: the truth value true; expected a finite number
    f.json: c: missing; expected text
    """
    for place, found, expected in _misshapen(value, shape, ""):
        yield Fault(f"{where}: {place}" if place else where, found, expected)


def _misshapen(value: object, shape: Shape, place: str) -> Iterator[tuple[str, str, str]]:
    kind: Any = get_origin(shape) or shape
    inner = get_args(shape)
    if isinstance(shape, Mapping):
        yield from _keys_misshapen(value, shape, place)
    elif kind in (Union, UnionType):
        if all(any(True for _ in _misshapen(value, each, place)) for each in inner):
            yield place, describe(value), _words(shape)
    elif not _is_a(value, kind):
        yield place, describe(value), _words(kind)
    elif isinstance(value, dict) and inner:
        for key, each in value.items():
            yield from _misshapen(each, inner[1], f"{place}.{key[:40]}" if place else key[:40])
    elif isinstance(value, list) and inner:
        for number, each in enumerate(value):
            yield from _misshapen(each, inner[0], f"{place}[{number}]")


def _keys_misshapen(value: object, shape: Mapping[str, Shape], place: str) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, dict):
        yield place, describe(value), "an object"
        return
    for key, each in shape.items():
        inside = f"{place}.{key}" if place else key
        if key in value:
            yield from _misshapen(value[key], each, inside)
        else:
            yield inside, "missing", _words(each)


def _is_a(value: object, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    return isinstance(value, kind)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _words(shape: Shape) -> str:
    if isinstance(shape, Mapping):
        return WORDS[dict]
    kind: Any = get_origin(shape) or shape
    if kind in (Union, UnionType):
        return " or ".join(_words(each) for each in get_args(shape))
    return WORDS.get(kind, "a value")
