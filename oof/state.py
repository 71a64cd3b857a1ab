"""What every fitted combiner keeps in its folder: its kind and plain values, in ``combiner.json``."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from competition.errors import CompetitionError, Fault
from competition.json_files import Shape, read_json

T = TypeVar("T")

COMBINER_FILE = "combiner.json"
MAKE_AGAIN = "delete the ensemble's folder, and make it again with `relstack ensemble make` or `relstack run`"


def write_state(folder: Path, kind: str, state: dict[str, Any]) -> None:
    """Write `kind` and `state` (what JSON can hold) as `combiner.json`; floats come back to the last bit."""
    text = json.dumps({"kind": kind, **state}, ensure_ascii=False, indent=1)
    (folder / COMBINER_FILE).write_text(text, encoding="utf-8")


def read_state(folder: Path, shape: Mapping[str, Shape] | None = None) -> dict[str, Any]:
    """What `write_state` wrote, `kind` included; lists stay lists.

    Raises
    ------
    CompetitionError
        The file is damaged, or the state has another shape.
    """
    return read_json(
        folder / COMBINER_FILE, {"kind": str, **(shape or {})}, what="a fitted combiner", advice=MAKE_AGAIN
    )


def read_by_kind(folder: Path, readers: Mapping[str, Callable[[Path], T]]) -> T:
    """What the reader for the `kind` in a folder's `combiner.json` makes of the folder.

    Raises
    ------
    CompetitionError
        There is no reader for that kind, or the folder is damaged.
    """
    kind = read_state(folder)["kind"]
    if kind not in readers:
        fault = Fault(str(folder / COMBINER_FILE), f"kind {kind[:40]!r}", f"one of {', '.join(readers)}")
        raise CompetitionError("no combiner of this kind can be read", faults=[fault], advice=MAKE_AGAIN)
    return readers[kind](folder)
