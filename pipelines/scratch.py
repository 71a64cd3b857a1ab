"""The scratch folder of a job: checkpoints of an attempt that was cut off, if they are of the same work."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from competition.artefacts import SCRATCH, write_text

log = logging.getLogger(__name__)

ORIGIN = "origin.json"


def scratch_of(work: Path, made_of: Mapping[str, Any]) -> Path:
    """The scratch folder in `work`, an artefact that is being made; call it under the artefact's lock.

    All else that an earlier attempt left in `work` is deleted. Its checkpoints too, if it was made from something else:
    other rows, folds, another recipe or seed.

    Parameters
    ----------
    made_of
        All that decides over the result, as JSON can hold it.
    """
    scratch = work / SCRATCH
    text = json.dumps(made_of, sort_keys=True, ensure_ascii=False)
    if scratch.is_dir() and _read(scratch / ORIGIN) != text:
        log.warning("%s was begun with another recipe, other rows or folds, and begins anew", work)
        shutil.rmtree(work)
    scratch.mkdir(parents=True, exist_ok=True)
    for leftover in work.iterdir():
        if leftover == scratch:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    write_text(scratch / ORIGIN, text)
    return scratch


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
