"""Checkpoints of a training: when one is due, how it is sealed, and from which one a killed training goes on.

A checkpoint is what the Trainer writes, and `SEAL`, written last by the first process: the SHA-256 of every file, and
what a resumed training must know besides. One without a seal, or with a file that is not the one sealed (cut short by a
full disk, lost when power failed), does not count: the one before does, and without one training begins anew.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from competition.artefacts import sha256, write_text
from pipelines.backbones.losses import refuse_bad_weights
from pipelines.backbones.sharding import is_first_process, n_processes

log = logging.getLogger(__name__)

SEAL = "seal.json"
KEPT = 2  # so that there is one to fall back to
ASKED_EVERY = 10  # steps between two questions to the first process whether a checkpoint is due


def keep_checkpoints(minutes: float, notes: Callable[[], Mapping[str, Any]]) -> Any:
    """A Trainer callback that has a checkpoint written after every epoch and every so many minutes, and seals it.

    Weights that are no numbers are refused (`DivergedError`), or training would go on from them for ever.

    Parameters
    ----------
    notes
        Gives what the seal keeps for `notes_of`, plain values.
    """
    from transformers import TrainerCallback

    class KeepCheckpoints(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.saved_step, self.saved_at = 0, time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if args.save_strategy != "no" and self._due(state.global_step, args.device):
                control.should_save = True
            if control.should_save:
                refuse_bad_weights(model, step=state.global_step)

        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == self.saved_step:
                control.should_save = False  # it would be written again over the one that is sealed
            if control.should_save:
                refuse_bad_weights(model, step=state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved_step, self.saved_at = state.global_step, time.monotonic()
            _wait_for_all()  # each process writes what it has
            if is_first_process():
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", notes())
                for old in checkpoints(Path(args.output_dir))[:-KEPT]:
                    _discard(old)
            _wait_for_all()

        def _due(self, step: int, device: Any) -> bool:
            """Whether it is time; of several processes the first one's clock decides."""
            due = time.monotonic() - self.saved_at >= 60 * minutes
            if n_processes() == 1:
                return due
            return step % ASKED_EVERY == 0 and _as_the_first_says(due, device)

    return KeepCheckpoints()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, whole or not, the oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def seal(checkpoint: Path, notes: Mapping[str, Any]) -> None:
    """Say that the checkpoint is whole, and what its files are."""
    files = {name: sha256(checkpoint / name) for name in _names(checkpoint)}
    write_text(checkpoint / SEAL, json.dumps({"files": files, "notes": dict(notes)}, indent=1))


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint below `folder`; later ones that are not whole are named and deleted."""
    for checkpoint in reversed(checkpoints(folder)):
        fault = _fault(checkpoint)
        if fault is None:
            return str(checkpoint)
        log.warning("%s is not whole and is deleted: %s", checkpoint, fault)
        _discard(checkpoint)
    return None


def notes_of(checkpoint: str | Path) -> dict[str, Any]:
    """What was noted when the checkpoint was sealed."""
    notes: dict[str, Any] = json.loads((Path(checkpoint) / SEAL).read_bytes())["notes"]
    return notes


def _fault(checkpoint: Path) -> str | None:
    """Why the checkpoint does not count; None if it does."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_bytes())["files"]
    except FileNotFoundError:
        return "writing it was cut off"
    except (ValueError, KeyError, TypeError) as error:
        return f"{SEAL}: {error}"
    changed = [
        name for name, digest in sealed.items()
        if not (checkpoint / name).is_file() or sha256(checkpoint / name) != digest
    ]  # fmt: skip
    return f"{', '.join(changed)} changed since it was written" if changed else None


def _names(checkpoint: Path) -> list[str]:
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    return sorted(path.relative_to(checkpoint).as_posix() for path in files if path.name != SEAL)


def _discard(checkpoint: Path) -> None:
    """Delete a checkpoint, its seal first: half deleted it does not count."""
    (checkpoint / SEAL).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _as_the_first_says(due: bool, device: Any) -> bool:
    import torch

    said = torch.tensor(int(due), device=device)
    torch.distributed.broadcast(said, src=0)
    return bool(said.item())


def _wait_for_all() -> None:
    if n_processes() > 1:
        import torch

        torch.distributed.barrier()
