"""Where memory runs out: how that is told from other errors, what is freed, and how work goes on in smaller pieces."""

import gc
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from competition.errors import WORTH_RETRYING, CompetitionError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SIGNS = (  # torch has no error of its own for the CPU's memory, nor for that of CUDA's libraries; LightGBM has none
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


class MemoryShortageError(CompetitionError):
    """Memory ran out: worth retrying with less to do, or on a larger machine."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class SmallerPiecesError(MemoryShortageError):
    """Memory ran out in one of several processes: all of them must begin again with smaller pieces."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out: Python's, a GPU's, or that of a library in C++.

    Examples
    --------
    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("std::bad_alloc")), out_of_memory(RuntimeError("no"))
    (True, True, False)
    """
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError | MemoryShortageError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    ):
        return True
    return any(sign in str(error) for sign in SIGNS)


def machine_gib() -> float:
    """Main memory of this machine, or as much as its container may take; infinite where nobody tells."""
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    sizes = [math.prod(map(os.sysconf, names))] if set(names) <= os.sysconf_names.keys() else []
    for file in map(Path, LIMITS):
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError:  # no such limit here
            continue
        sizes += [int(text)] if text.isdecimal() else []
    return min(sizes, default=math.inf) / 2**30


def first_line(error: BaseException) -> str:
    """What the error says, without torch's account of the allocator."""
    return str(error).partition("\n")[0].strip() or type(error).__name__


def free_memory() -> None:
    """Give back what nobody holds any more; call it where the exception is gone, which holds on to its frames."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def halves(rows: np.ndarray) -> list[np.ndarray]:
    """The rows in two parts, or in one if there is only one row.

    Examples
    --------
    >>> [part.tolist() for part in halves(np.array([4, 2, 9]))], [part.tolist() for part in halves(np.array([4]))]
    ([[4, 2], [9]], [[4]])
    """
    return [part for part in np.array_split(rows, 2) if len(part)]


def fitting(
    batches: Iterable[np.ndarray], compute: Callable[[np.ndarray], Result], *, may_halve: bool = True
) -> Iterator[tuple[np.ndarray, Result]]:
    """Each batch's row numbers and what `compute` gives for them, in the order of the batches.

    Where memory runs out, that batch and all later ones are cut in two, and it goes on. A single row that does not fit
    raises the error that `compute` raised.
    """
    waiting = deque(batches)
    while waiting:
        try:
            found = compute(waiting[0])
        except (MemoryError, RuntimeError) as error:
            if not (may_halve and len(waiting[0]) > 1 and out_of_memory(error)):
                raise
            cause = first_line(error)
        else:
            yield waiting.popleft(), found
            continue
        free_memory()
        log.warning("out of memory with %d rows, going on with half as many (%s)", len(waiting[0]), cause)
        waiting = deque(half for rows in waiting for half in halves(rows))
