"""One attempt at a command: its processes, the moment at which it is hit, and the hit.

All processes of an attempt carry its token in their environment, so that those are found too whose parent is gone. They
are read from ``/proc``, which only Linux has.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "RELSTACK_CHAOS"
LOOK_SECONDS = 0.02
DRIVER, CHILD, ALL = "driver", "child", "all"
WEIGHTS = {DRIVER: 4, CHILD: 3, ALL: 3}  # how often each is killed
FEW_EVENTS = 40  # kills that are aimed at writers come within so many changes of the run folder
EARLY = 0.2  # share of the rest


@dataclass(frozen=True)
class Moment:
    """When an attempt is hit: after so many seconds; or, if `events` is given, changes of the run folder."""

    seconds: float
    events: int | None = None

    def has_come(self, seconds: float, events: int) -> bool:
        """Whether it is there."""
        return seconds >= self.seconds if self.events is None else events >= self.events


def draw_moment(rng: random.Random, *, startup: float, rest: float) -> Moment:
    """One of three kinds: any time of the expected rest of the run, early in it, or just after something was written.

    The early ones let a run be killed often before it is done.
    """
    if rng.random() < 1 / 3:
        return Moment(0.0, rng.randint(1, FEW_EVENTS))
    return Moment(rng.uniform(0, startup + rest * rng.choice([1, EARLY, EARLY, EARLY])))


@dataclass
class Watch:
    """Counts changes in a folder: names that come and go in it or in folders below it, at each look."""

    root: Path
    events: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.look()
        self.events = 0

    def look(self) -> int:
        """Changes so far, this look included."""
        for path in [str(self.root), *self.seen]:
            self._look_at(path)
        return self.events

    def _look_at(self, path: str) -> None:
        try:
            changed = Path(path).stat().st_mtime_ns
            if self.seen.get(path) == changed:
                return
            folders = [each.path for each in os.scandir(path) if each.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            self.events += self.seen.pop(path, None) is not None
            return
        self.seen[path] = changed
        self.events += 1
        for folder in folders:
            if folder not in self.seen:
                self._look_at(folder)


class Attempt:
    """A command that has been started in a session of its own; `began` seconds after that it first wrote something."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path, run: Path) -> None:
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.watch, self.start, self.began = Watch(run), time.monotonic(), 0.0
        with log.open("ab") as output:
            self.driver = subprocess.Popen(
                command,
                env={**os.environ, **environment, TOKEN: self.token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.start

    def survives_until(self, moment: Moment) -> bool:
        """Whether it still works when the moment comes; comes back early if it ends."""
        while self.driver.poll() is None:
            events = self.watch.look()
            if events and not self.began:
                self.began = self.seconds
            if moment.has_come(self.seconds, events):
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def hit(self, rng: random.Random) -> str:
        """Kill some of its processes with SIGKILL; gives which: the driver, one of the others (if any), or all."""
        others = [pid for pid in processes(self.token) if pid != self.driver.pid]
        which = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if which == CHILD and not others:
            which = DRIVER
        for pid in {DRIVER: [self.driver.pid], CHILD: others and [rng.choice(others)], ALL: [self.driver.pid, *others]}[
            which
        ]:
            kill(pid)
        return which

    def end(self, limit: float) -> int | None:
        """The exit code of the driver, None if it does not end by itself within `limit` seconds; then all is killed."""
        if not self.survives_until(Moment(self.seconds + limit)):
            return self.driver.wait()
        self.kill_all()
        return None

    def orphans(self, limit: float) -> int:
        """Processes that are left `limit` seconds after the driver's end; they are killed."""
        until = time.monotonic() + limit
        while (left := processes(self.token)) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        self.kill_all()
        return len(left)

    def kill_all(self) -> None:
        """Kill all that is left of it."""
        for pid in processes(self.token):
            kill(pid)
        self.driver.wait()


def processes(token: str) -> list[int]:
    """Ids of the living processes that carry the token."""
    mark, found = f"{TOKEN}={token}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL; a process that is gone already is no fault."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
