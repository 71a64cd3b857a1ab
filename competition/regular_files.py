"""Regular files alone: what else may stand under a name (a folder, a pipe, a device) is refused before it is opened."""

import errno
import os
import stat
from pathlib import Path


def refuse_irregular(path: Path, *, most: int | None = None) -> None:
    """Nothing if `path` is a regular file of at most `most` bytes.

    Raises
    ------
    OSError
        It is not there, is no regular file (to open a pipe would wait for ever), or is larger.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than {most:,}", str(path))


def is_file(path: Path) -> bool:
    """Whether a regular file stands at `path`; false too of a name that no file can have.

    Examples
    --------
    >>> is_file(Path("a" * 5000)), is_file(Path(__file__))
    (False, True)
    """
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes; an OSError as `refuse_irregular` otherwise."""
    refuse_irregular(path, most=most)
    return path.read_bytes()
