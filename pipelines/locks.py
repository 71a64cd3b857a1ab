"""One process at a time makes a thing; others wait and say for whom."""

import glob
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from competition.artefacts import TEMPORARY, beside, lock_of

log = logging.getLogger(__name__)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside, this process is the only one that makes `path` (a file or a folder, there already or not).

    Whoever comes second waits, says so, and must look inside whether the work is done. The lock is the operating
    system's and goes with its holder, however that ends; its file ``.<name>.lock`` stays. On NFS that needs a lock
    service that all machines share (NFS 4, or NFS 3 with lockd): a mount with the option ``nolock`` or ``local_lock``
    would keep the lock to one machine. On a file system without locks filelock falls back to a marker file, with a
    warning; that one outlives a machine that went down, and has to be deleted by hand.

    It is not re-entrant: the same process would wait for itself.
    """
    with one_at_a_time(path):
        for name in (path.name, beside(path).name):
            sweep(path.parent, name)
        yield


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """As `alone`, where others may write files of that name: what they left is not looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held, note = FileLock(lock_of(path)), path.with_name(f".{path.name}.holder")
    try:
        held.acquire(blocking=False)
    except Timeout:
        log.info("waiting for %s, which makes %s", _holder(note), path)
        held.acquire()
    try:
        note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        held.release()


def sweep(folder: Path, name: str = "*") -> None:
    """Delete what writers of a file of this name in `folder` left who died before they could rename it.

    Call it where nobody else writes such a file.
    """
    pattern = "*" if name == "*" else glob.escape(name)
    for leftover in folder.glob(f"*.{pattern}.*{TEMPORARY}"):  # a temporary file's own one begins with two dots
        if leftover.name.startswith("."):
            leftover.unlink()


def _holder(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8") or "another process"
    except FileNotFoundError:  # it has the lock since this moment
        return "another process"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine works; one that has ended and waits for being noticed does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # it cannot be told
    return words.rpartition(")")[2].split()[0] == "Z"  # after the command's name, which may hold anything
