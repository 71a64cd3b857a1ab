"""Steps of trainings for whoever listens; the machine's threads and peak memory. Bars: `competition.progress`."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from competition.progress import progress as progress

log = logging.getLogger(__name__)

_listeners: list[Callable[[int, int], None]] = []


@contextmanager
def listening(listener: Callable[[int, int], None]) -> Iterator[None]:
    """`listener` is told steps done and steps in all whenever a training of this process reports them."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def steps_shown(words: str) -> Iterator[None]:
    """Progress of the training steps that are reported in the block; of several processes the first shows it."""
    advance: Callable[[int], None] | None = None
    before = 0

    def show(done: int, total: int) -> None:
        nonlocal advance, before
        if advance is None:
            advance = bars.enter_context(progress(words, total=total))
        advance(done - before)
        before = done

    with ExitStack() as bars:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            bars.enter_context(listening(show))
        yield


def report_progress(done: int, total: int) -> None:
    """Tell whoever listens how far a training is; cheap enough for every step."""
    for listener in _listeners:
        listener(done, total)


def available_threads() -> int:
    """CPU threads this process may use: `OMP_NUM_THREADS` if set, else the CPUs it may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), allowed) if asked.isdigit() and int(asked) > 0 else allowed


@contextmanager
def measured() -> Iterator[Callable[[], tuple[float, float]]]:
    """A function that gives seconds and peak resident memory in MB since the block began.

    On Linux the peak is that of this process in this block (the kernel's high-water mark is reset), elsewhere that
    of the process so far.
    """
    _reset_peak()
    started = time.perf_counter()
    yield lambda: (time.perf_counter() - started, _peak_mb())


def _reset_peak() -> None:
    path = Path("/proc/self/clear_refs")
    if path.exists():
        try:
            path.write_text("5")
        except OSError:  # not permitted in some containers: the peak is then that of the process so far
            log.debug("cannot reset the memory high-water mark")


def _peak_mb() -> float:
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
