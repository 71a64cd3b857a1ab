"""Progress on stderr: a bar with rate and time left on a terminal; elsewhere lines, of what takes long only.

Nothing is drawn with ``--quiet``, nor where nobody asked for narration (the logger ``competition`` says so).
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task

log = logging.getLogger(__name__)

Advance = Callable[[int], None]

SLOW = 2.0
"""Seconds: what took longer gets a line in the end."""
EVERY = 60.0
"""Seconds between lines of what goes on, where there is no bar."""
DRAWN_AFTER = 0.5
"""Seconds before a bar is drawn: what is done by then would only flicker."""


@contextmanager
def progress(words: str, *, total: int | None = None) -> Iterator[Advance]:
    """A function that is told how many items were done; without `total` only that the work goes on is shown.

    Blocks may stand in each other, as their bars do.

    Examples
    --------
    >>> with progress("count", total=3) as advance:
    ...     for number in range(3):
    ...         advance(1)
    """
    pace = Pace(words, total)
    shown = _bar(words, total) if is_drawn() else _lines(pace)
    with shown as advance:
        yield advance
    log.log(logging.INFO if pace.seconds() >= SLOW else logging.DEBUG, "%s", pace.summary())


def is_drawn() -> bool:
    """Whether bars are drawn: stderr is a terminal that can, and narration is asked for."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and log.isEnabledFor(logging.INFO)


def no_colour() -> bool:
    """Whether the user wants no colours: NO_COLOR is set (no-color.org), or FORCE_COLOR is 0."""
    return os.environ.get("NO_COLOR", "") != "" or os.environ.get("FORCE_COLOR") == "0"


@dataclass
class Pace:
    """How far some work is, and how fast it goes."""

    words: str
    total: int | None
    done: int = 0
    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.perf_counter() - self.started

    def now(self) -> str:
        """A line on work that goes on.

        Examples
        --------
        >>> Pace("embed", 1200, done=300, started=time.perf_counter() - 10.0).now()
        'embed: 300 of 1,200, 30/s, 30 s left'
        """
        rate = self.done / max(self.seconds(), 1e-9)
        if self.total is None or not self.done:
            return f"{self.words}: {self.seconds():.0f} s so far"
        left = (self.total - self.done) / rate
        return f"{self.words}: {self.done:,} of {self.total:,}, {per_second(rate)}, {left:.0f} s left"

    def summary(self) -> str:
        """A line on work that is done."""
        seconds = self.seconds()
        if self.total is None:
            return f"{self.words}: {seconds:.1f} s"
        return f"{self.words}: {self.total:,} in {seconds:.1f} s ({per_second(self.total / max(seconds, 1e-9))})"


def per_second(rate: float) -> str:
    """A rate in words.

    Examples
    --------
    >>> per_second(12345.6), per_second(0.25)
    ('12,346/s', '0.25/s')
    """
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


@contextmanager
def _lines(pace: Pace) -> Iterator[Advance]:
    """No bar: a line every `EVERY` seconds."""
    told = pace.started

    def advance(count: int) -> None:
        nonlocal told
        pace.done += count
        if time.perf_counter() - told >= EVERY:
            told = time.perf_counter()
            log.info("%s", pace.now())

    yield advance


class _Display:
    """The one place on the terminal where all bars of this process are drawn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._users = 0

    def enter(self) -> "Progress":
        with self._lock:
            if self._bars is None:
                self._bars = _new_bars()
                self._bars.start()
            self._users += 1
            return self._bars

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._bars is not None and not self._users:
                self._bars.stop()
                self._bars = None


_display = _Display()


@contextmanager
def _bar(words: str, total: int | None) -> Iterator[Advance]:
    bars = _display.enter()
    item = bars.add_task(words, total=total)
    try:
        yield lambda count: bars.advance(item, count)
    finally:
        bars.remove_task(item)
        _display.leave()


def _new_bars() -> "Progress":
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items a second."""

        def render(self, task: "Task") -> Text:
            return Text("" if task.speed is None else per_second(task.speed))

    class Bars(Progress):
        """Bars of what is not done at once."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0.0) >= DRAWN_AFTER])

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    console = Console(stderr=True, force_terminal=True, no_color=no_colour(), markup=False)
    return Bars(*columns, console=console, transient=True, redirect_stdout=False)
