"""Progress on stderr: a bar on a terminal, a line at the end otherwise; the machine's threads and peak memory."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_listeners: list[Callable[[int, int], None]] = []


@contextmanager
def progress(words: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """A function that advances the bar by a number of items; what was done and how fast is logged at the end."""
    started = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            item = bar.add_task(words, total=total)
            yield lambda count: bar.advance(item, count)
    else:
        yield lambda count: None
    seconds = time.perf_counter() - started
    log.info("%s: %s in %.1f s (%.0f/s)", words, f"{total:,}", seconds, total / max(seconds, 1e-9))


@contextmanager
def listening(listener: Callable[[int, int], None]) -> Iterator[None]:
    """`listener` is told steps done and steps in all whenever a training of this process reports them."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


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
