"""Optuna's journal of trials in a file: one line per event, mended after a kill in the middle of a line."""

from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> "JournalStorage":
    """The trials in this file, which is made if it is not there; any number of processes may have it open.

    What was written of a line when a process was killed or the disk was full is cut off: it would make one unreadable
    line with what comes next. The lock is the operating system's and goes with its holder; optuna's own outlives a
    killed process by half a minute, and for ever where the path is relative.

    Raises
    ------
    ValueError, KeyError
        The file is no journal.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    with lock:
        cut_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def cut_torn_line(path: Path) -> None:
    """Cut the file after its last whole line; one that is not there is left alone."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
