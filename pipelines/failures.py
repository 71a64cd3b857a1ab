"""What a machine does to a stage: its disk is full, a folder cannot be written to, memory runs out."""

import errno
import re
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from competition.errors import WORTH_RETRYING, CompetitionError, Fault
from pipelines.memory import MemoryShortageError, first_line, out_of_memory

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
OS_ERROR = re.compile(r"\((?:os error|errno) (\d+)\)|\[Errno (\d+)\]")  # as libraries in Rust and C++ pass it on
CANNOT_WRITE = re.compile(
    r"PytorchStreamWriter failed writing|unexpected pos \d|iostream error"
    r"|Cannot write binary data to|requested and \d+ written"
)
"""What torch, LightGBM and numpy say of a full disk, without the system's number."""
UNFINISHED = ("*.partial", "*.tmp")


class DiskFullError(CompetitionError):
    """There was no room for a file: worth retrying once there is."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class StoppedError(CompetitionError):
    """Somebody, or a machine that is taken back, stopped the work: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class _Terminated(BaseException):
    """SIGTERM has come; no handler of ordinary errors may take it for a job's."""


@contextmanager
def naming_sigterm() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does.

    Raises
    ------
    StoppedError
        SIGTERM ended the block.
    """

    def stop(number: int, frame: Any) -> None:
        raise _Terminated

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except _Terminated:
        raise StoppedError("stopped by SIGTERM", advice="the same command goes on where this one stopped") from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


class FileAccessError(CompetitionError):
    """A file or folder could not be written to, or not be read."""

    exit_code: ClassVar[int] = 1


@contextmanager
def naming_failures(stage: str, folder: Path) -> Iterator[None]:
    """Inside, what the machine does to a stage that writes below `folder` becomes a `CompetitionError`.

    Raises
    ------
    CompetitionError
        `DiskFullError`, `FileAccessError` or `MemoryShortageError`; other errors pass.
    """
    try:
        yield
    except Exception as error:
        if (known := named(error, stage=stage, folder=folder)) is None:
            raise
        raise known from error


def named(error: Exception, *, stage: str = "this command", folder: Path | None = None) -> CompetitionError | None:
    """The error as one that says what to do next; None for those that a machine's state does not explain."""
    if isinstance(error, CompetitionError):
        return None
    if out_of_memory(error):
        return MemoryShortageError(
            f"{stage} ran out of memory",
            faults=[Fault(type(error).__name__, first_line(error))],
            advice="run it again when the machine has more memory to spare, or give it less to do: "
            "a smaller training.batch_size or max_length, fewer jobs at once",
        )
    number = _number(error)
    path = _path(error) or folder
    if number in FULL:
        return _disk_full(stage, first_line(error), path or Path.cwd(), folder, size_limit=number == errno.EFBIG)
    if number in FORBIDDEN:
        return FileAccessError(
            f"{stage} may not use {path or 'a file'}",
            faults=[Fault(str(path or "file"), first_line(error))],
            advice="give yourself the right to write there, mount it writable, or name another folder (--run, "
            "RELSTACK_CACHE); what is finished is untouched",
        )
    return None


def _disk_full(stage: str, cause: str, path: Path, folder: Path | None, *, size_limit: bool) -> DiskFullError:
    usage = shutil.disk_usage(_existing(path))
    free = f"{readable(usage.free)} free of {readable(usage.total)}"
    faults = [Fault(str(path), "files may not become that large here (ulimit -f)" if size_limit else free)]
    faults.append(Fault("the system", cause))
    if folder is not None:
        faults.append(Fault(str(folder), f"{readable(_unfinished(folder))} of unfinished work so far"))
    run = "RUN" if folder is None else shlex.quote(str(folder))
    return DiskFullError(
        f"{stage} found no room on the disk",
        faults=faults,
        advice=f"make room (`relstack gc {run}` lists what nothing needs), then give the same "
        "command again: what is finished is kept, and the rest goes on from its last checkpoint",
    )


def readable(n_bytes: float) -> str:
    """Bytes in the unit that suits them.

    Examples
    --------
    >>> readable(0), readable(2_500_000)
    ('0 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _number(error: Exception) -> int | None:
    """The operating system's number of the error, also where a library made an error of its own of it."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if CANNOT_WRITE.search(str(error)):
        return errno.ENOSPC
    found = OS_ERROR.search(str(error))
    return int(found[1] or found[2]) if found else None


def _path(error: Exception) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(name) if isinstance(name, str) else None


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def _unfinished(folder: Path) -> int:
    found = {file for pattern in UNFINISHED for path in folder.rglob(pattern) for file in (path, *path.rglob("*"))}
    return sum(file.stat().st_size for file in found if file.is_file())
