"""Fitted combiners read back from their folders, by their kind."""

from collections.abc import Callable
from pathlib import Path

from oof.combiner import FittedCombiner
from oof.mix import MEMBER_READERS, FittedMix
from oof.state import read_by_kind

READERS: dict[str, Callable[[Path], FittedCombiner]] = {**MEMBER_READERS, FittedMix.kind: FittedMix.from_folder}


def read_combiner(folder: Path) -> FittedCombiner:
    """The fitted combiner in `folder`, by the `kind` in its `combiner.json`."""
    return read_by_kind(folder, READERS)
