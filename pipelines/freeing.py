"""What nothing needs any more: leftovers of killed processes, and, if asked for, weights and caches.

Lock files stay, empty as they are: deleting one that somebody waits for would let two in.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from competition.artefacts import (
    ASIDE,
    FREED,
    LOCK,
    MANIFEST,
    PARTIAL,
    SCRATCH,
    TEMPORARY,
    beside,
    discard,
    free_files,
    lock_of,
    read_manifest,
)
from competition.damage import refuse_damage
from competition.errors import CompetitionError, Fault
from oof.store import PartKey, train_command
from pipelines.config import Recipe
from pipelines.ensembling import complete_learners, ensembles
from pipelines.ensembling import read_manifest as read_ensemble_manifest
from pipelines.locks import is_alive
from pipelines.run_artefacts import artefacts
from pipelines.run_folder import RunFolder
from pipelines.weights import cache_dir

WEIGHTS = "weights"
OWNED = re.compile(rf"\.(?P<pid>\d+)@(?P<host>.+){re.escape(TEMPORARY)}$")


@dataclass(frozen=True)
class Freeable:
    """A file or folder that can go.

    Attributes
    ----------
    lock
        Whoever holds it works there, and it stays.
    artefact
        The finished artefact that it is a part of, where its hashes are noted; None for what is part of none.
    """

    path: Path
    reason: str
    lock: Path | None = None
    artefact: Path | None = None

    @property
    def n_bytes(self) -> int:
        """Its size on the disk."""
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)


def freeable(run: RunFolder, *, weights: bool = False, cache: bool = False) -> list[Freeable]:
    """What can go, less what a running process holds.

    Parameters
    ----------
    weights
        Those of base learners that no submission is made of, too.
    cache
        What the user's cache holds of other runs, and the run's own tables of features, too.
    """
    run.settings()  # refuses what is no run folder
    found = [*_leftovers(run), *_temporary(run), *_studies(run), *_states()]
    found += [*_unused_weights(run)] if weights else []
    found += [*_foreign_cache(run), *_tables(run)] if cache else []
    return [each for each in found if not _in_use(each)]


def free(found: Iterable[Freeable]) -> list[Freeable]:
    """Those that are gone now; what somebody began to work on meanwhile is left alone."""
    return [each for each in found if _free(each)]


def _in_use(each: Freeable) -> bool:
    """Whether a process holds its lock, or one inside it."""
    inside = each.path.rglob(f"*{LOCK}")
    return any(map(held, inside if each.lock is None else (each.lock, *inside)))


def held(lock: Path) -> bool:
    """Whether a process holds the lock now."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def refuse_freed_weights(run: RunFolder, keys: Iterable[PartKey]) -> None:
    """Refuse parts whose weights were freed; the command that makes them again is named."""
    freed = [key for key in keys if not (run.parts.folder(key) / WEIGHTS).exists()]
    if freed:
        words = [
            Fault(
                str(run.parts.folder(key)),
                "its weights were freed" if (run.parts.folder(key) / FREED).is_file() else "its weights are missing",
                f"weights: delete that folder, then `{train_command(key)} --run {run.root}`",
            )
            for key in freed
        ]
        raise CompetitionError(
            "there is nothing to score new rows with",
            faults=words,
            advice="make the weights again by the commands above",
        )


def _free(each: Freeable) -> bool:
    with _ours(each.lock) as ours:
        if not ours or any(map(held, each.path.rglob(f"*{LOCK}"))):
            return False
        if each.artefact is not None:
            free_files(each.artefact, each.path.name)
        elif each.path.is_dir():
            discard(each.path)
        else:
            each.path.unlink(missing_ok=True)
        return True


@contextmanager
def _ours(lock: Path | None) -> Iterator[bool]:
    if lock is None or not lock.parent.is_dir():
        yield True
        return
    try:
        with FileLock(lock, blocking=False):
            yield True
    except Timeout:
        yield False


def _leftovers(run: RunFolder) -> Iterator[Freeable]:
    for each in artefacts(run):
        folder = each.path
        if not each.manifest.is_file():
            continue
        lock = lock_of(folder)
        yield from _there(folder.with_name(f"{folder.name}{PARTIAL}"), f"{each.name} is finished", lock)
        for path in folder.parent.glob(f".{folder.name}{PARTIAL}-*"):
            yield Freeable(path, f"an unfinished try, {each.name} is finished", lock)
        yield from _there(folder.with_name(f".{folder.name}{ASIDE}"), f"replaced by a newer {each.name}", lock)
        yield from _there(folder / SCRATCH, f"checkpoints, {each.name} is finished", lock)
        yield from _there(folder.with_suffix(".journal.log"), f"trials, {each.name} is finished", lock)


def _there(path: Path, reason: str, lock: Path) -> list[Freeable]:
    return [Freeable(path, reason, lock)] if path.exists() else []


def _temporary(run: RunFolder) -> Iterator[Freeable]:
    for path in sorted(run.root.rglob(f".*{TEMPORARY}")):
        owner = OWNED.search(path.name)
        if owner and owner["host"] == socket.gethostname() and not is_alive(int(owner["pid"])):
            yield Freeable(path, f"half written by process {owner['pid']}, which is gone")


def _studies(run: RunFolder) -> Iterator[Freeable]:
    for study in sorted(run.root.glob("studies/*/*/")):
        locks = sorted(study.glob("workers/*.lock"))
        alive = [lock for lock in locks if held(lock)]
        yield from (Freeable(lock, "of a worker that is gone", lock) for lock in locks if lock not in alive)
        if not alive and (study / SCRATCH).is_dir():
            yield Freeable(study / SCRATCH, "of trials that nobody works on", study / ".study.lock")


def _states() -> Iterator[Freeable]:
    for folder in sorted((cache_dir() / "embeddings" / "states").glob("*/")):
        if not folder.name.startswith("."):
            yield Freeable(folder, "states of frozen layers, computed again where they are needed", lock_of(folder))


def submitted_learners(run: RunFolder, task: str) -> set[str]:
    """The base learners that the run's submissions are made of."""
    found: set[str] = set()
    for manifest in sorted(run.root.glob(f"submissions/*/{MANIFEST}")):
        refuse_damage(manifest.parent, what="a submission", advice="delete it, and make it again with relstack submit")
        chosen = read_manifest(manifest).get("chosen", {}).get(task)
        if chosen is None:
            continue
        name = chosen["ensemble"]
        if name in ensembles(run, task):
            found |= set(read_ensemble_manifest(run.ensemble(task, name))["learners"])
        else:
            found.add(name)
    return found


def _unused_weights(run: RunFolder) -> Iterator[Freeable]:
    for task in run.tasks():
        used = submitted_learners(run, task.name)
        if not used:
            raise CompetitionError(
                f"no submission says which base learners of {task.name} are used",
                advice=f"make one first: relstack submit --run {run.root}",
            )
        for learner in sorted(set(complete_learners(run, task.name)) - used):
            for fold in range(run.folds(task.name).plan.n_splits):
                folder = run.parts.folder(PartKey(task.name, learner, fold))
                if (folder / WEIGHTS).is_dir():
                    reason = f"no submission is made of {learner}"
                    yield Freeable(folder / WEIGHTS, reason, lock_of(folder), artefact=folder)


def _foreign_cache(run: RunFolder) -> Iterator[Freeable]:
    names = {f"{Path(name).name}-" for recipe in run.settings().recipes for name in _encoders(run.recipe(recipe))}
    for folder in sorted((cache_dir() / "embeddings").glob("*/")):
        if folder.name != "states" and not folder.name.startswith(tuple(names)):
            yield Freeable(folder, "embeddings by an encoder that this run has no recipe for")
    for folder in sorted((cache_dir() / "translations").glob("*/")):
        yield Freeable(folder, "translations; a run keeps its own, other runs may want these")


def _tables(run: RunFolder) -> Iterator[Freeable]:
    for table in sorted(run.root.glob("tables/*/*.npy")):
        for path in (table, beside(table)):
            yield from _there(path, "features of all rows, made again where they are needed", lock_of(table))


def _encoders(recipe: Recipe) -> list[str]:
    """The names of weights that a recipe embeds texts with."""
    named = [getattr(recipe, "weights", None), recipe.augment.neighbours]
    return [weights.name for weights in named if weights is not None]
