"""Fitted combiners read back from their folders, by their kind."""

from collections.abc import Callable
from pathlib import Path

from competition.errors import CompetitionError, Fault
from oof.combiner import FittedCombiner
from oof.mix import MEMBER_READERS, FittedMix
from oof.state import COMBINER_FILE, read_state

READERS: dict[str, Callable[[Path], FittedCombiner]] = {**MEMBER_READERS, FittedMix.kind: FittedMix.from_folder}


def read_combiner(folder: Path) -> FittedCombiner:
    """The fitted combiner in `folder`, by the `kind` in its `combiner.json`."""
    kind = read_state(folder).get("kind", "")
    if kind not in READERS:
        fault = Fault(str(folder / COMBINER_FILE), f"kind {kind!r}", f"one of {', '.join(READERS)}")
        raise CompetitionError("no combiner of this kind can be read", faults=[fault])
    return READERS[kind](folder)
