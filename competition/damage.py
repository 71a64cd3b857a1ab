"""Artefacts that are about to be used: refused if they are not as they were written."""

from functools import lru_cache
from pathlib import Path

from competition.artefacts import MANIFEST, inspect
from competition.errors import CompetitionError, Fault

Stamp = tuple[tuple[str, int, int, int], ...]


def damage(folder: Path) -> tuple[Fault, ...]:
    """What is wrong with a finished artefact; its files are hashed once in a process, as long as none changes.

    What older versions did not hash is not looked at, nor what lies beside the files of the manifest.
    """
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return _faults(folder, tuple((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino) for path, stat in files))


def refuse_damage(folder: Path, *, what: str, advice: str) -> None:
    """Raise what is wrong with a finished artefact, all of it.

    Parameters
    ----------
    what
        What the artefact is, for the error: "the ensemble ...".
    advice
        How it is made again.

    Raises
    ------
    CompetitionError
        A file, or the manifest itself, is missing or changed.
    """
    if faults := damage(folder):
        raise CompetitionError(f"{what} is damaged", faults=faults, advice=advice)


@lru_cache(maxsize=1024)
def _faults(folder: Path, stamp: Stamp) -> tuple[Fault, ...]:
    found = inspect(folder / MANIFEST)
    return tuple(fault for fault in found.faults if fault not in found.unlisted)
