"""NumPy archives (``.npz``) that we write and anybody may damage: read array by array, or said what is wrong."""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from competition.errors import CompetitionError, Fault
from competition.regular_files import refuse_irregular

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, RecursionError, MemoryError,
    NotImplementedError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile raises for damaged archives, and NumPy for headers, which it reads as Python literals."""


def read_arrays(path: Path, names: Sequence[str], *, what: str, advice: str) -> dict[str, np.ndarray]:
    """The arrays of these names; nothing that they hold is executed.

    Raises
    ------
    CompetitionError
        The file is not there, is no such archive, or lacks an array.
    """
    try:
        refuse_irregular(path)
        with zipfile.ZipFile(path) as archive:
            return {name: _array(archive, f"{name}.npy") for name in names}
    except UNREADABLE as error:
        fault = Fault(str(path), f"{type(error).__name__}: {error}"[:300], f"the arrays {', '.join(names)}")
        raise CompetitionError(f"{what} cannot be read", faults=[fault], advice=advice) from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array; its member is stored as it is, which `numpy.savez` does, so that it cannot unpack to more."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{name} is compressed")
    stream = io.BytesIO(archive.read(member))
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{name} is of version {version}")
    shape, _, kind = HEADERS[version](stream)
    size = math.prod(shape) * kind.itemsize
    if kind.hasobject or min(shape, default=0) < 0 or size != member.file_size - stream.tell():
        raise ValueError(f"{name} has a header for {shape} {kind}, and other content")
    stream.seek(0)
    return np.asarray(npy.read_array(stream, allow_pickle=False))
