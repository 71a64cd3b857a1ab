"""What every fitted combiner keeps in its folder: its kind and plain values, in ``combiner.json``."""

import json
from pathlib import Path
from typing import Any

COMBINER_FILE = "combiner.json"


def write_state(folder: Path, kind: str, state: dict[str, Any]) -> None:
    """Write `kind` and `state` (what JSON can hold) as `combiner.json`; floats come back to the last bit."""
    text = json.dumps({"kind": kind, **state}, ensure_ascii=False, indent=1)
    (folder / COMBINER_FILE).write_text(text, encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote, `kind` included; lists stay lists."""
    state: dict[str, Any] = json.loads((folder / COMBINER_FILE).read_text(encoding="utf-8"))
    return state
