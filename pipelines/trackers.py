"""Metrics of a run for experiment trackers, by one hook: `tracked` opens a tracker's run, `log_metrics` writes to it.

Every tracker lives in a process of its own (`pipelines.tracker_process`) and is told by a pipe that nobody waits for: a
server that hangs, or a library that prints, raises or crashes, costs metrics and nothing else.
"""

import atexit
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pipelines.run_folder import RunFolder
from pipelines.secrets import redacted_values

TRACKERS = ("trackio", "mlflow", "wandb")
CHOICE = "RELSTACK_TRACKER"  # their names, comma-separated; jobs that this process starts inherit it
PATIENCE = "RELSTACK_TRACKER_SECONDS"
DEFAULT_PATIENCE = 60.0  # seconds that a tracker gets at the end to write what it was told

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where metrics go."""

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Open a run of the tracker."""
        ...

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Write metrics to the open run."""
        ...

    def finish(self) -> None:
        """Close the open run."""
        ...


@dataclass(eq=False)
class Channel:
    """A tracker in a process of its own; one that is lost is dropped with a warning, and told nothing more."""

    name: str
    process: "subprocess.Popen[bytes]" = field(repr=False)
    lost: bool = False

    @classmethod
    def open(cls, name: str, folder: Path) -> "Channel":
        """Start the tracker's process; what it keeps on this disk stands below `folder`, what it says in its log."""
        folder.mkdir(parents=True, exist_ok=True)
        packages = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
        with (folder / f"{name}.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipelines.tracker_process", name, str(folder)],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                start_new_session=True,  # an interrupt from the keyboard is ours; it ends with its pipe
            )
        assert process.stdin is not None, "it was asked for"
        os.set_blocking(process.stdin.fileno(), False)
        atexit.register(close_trackers)
        return cls(name, process)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self._tell({"start": name, "config": config})

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        self._tell({"log": dict(metrics), "step": step})

    def finish(self) -> None:
        """See `Tracker`."""
        self._tell({"finish": True})

    def close(self, patience: float) -> None:
        """Let the tracker write what it was told; end its process after `patience` seconds."""
        assert self.process.stdin is not None, "it was asked for"
        self.process.stdin.close()
        try:
            if self.process.wait(0 if self.lost else patience):
                self._lose("ended with an error")
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._lose(f"did not finish within {patience:.0f} s")

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self.lost:
            return
        assert self.process.stdin is not None, "it was asked for"
        line = json.dumps(message).encode() + b"\n"
        try:
            if os.write(self.process.stdin.fileno(), line) < len(line):
                self._lose("does not keep up")
        except BlockingIOError:
            self._lose("does not keep up")
        except OSError:
            self._lose("has ended")

    def _lose(self, why: str) -> None:
        if not self.lost:
            log.warning("tracker %s %s and is dropped; its log is in the run's folder trackers/", self.name, why)
        self.lost = True


_channels: dict[tuple[str, Path], Channel] = {}
_open: list[Tracker] = []


@contextmanager
def tracked(run: RunFolder, name: str, config: Mapping[str, Any]) -> Iterator[None]:
    """A block whose `log_metrics` go to a run called `name` of every tracker in `CHOICE`, without secrets."""
    trackers = _channels_of(run.trackers_folder)
    for tracker in trackers:
        tracker.start(name, redacted_values(config))
    try:
        with logging_to(trackers):
            yield
    finally:
        for tracker in trackers:
            tracker.finish()


@contextmanager
def logging_to(trackers: Sequence[Tracker]) -> Iterator[None]:
    """A block whose `log_metrics` go to these trackers."""
    _open.extend(trackers)
    try:
        yield
    finally:
        for tracker in trackers:
            _open.remove(tracker)


def log_metrics(metrics: Mapping[str, float | None], step: int | None = None) -> None:
    """Write metrics to the trackers of the block that this is in; None is left out."""
    known = {name: float(value) for name, value in metrics.items() if value is not None}
    for tracker in _open:
        tracker.log(known, step)


def is_tracked() -> bool:
    """Whether `log_metrics` goes anywhere."""
    return bool(_open)


def chosen() -> tuple[str, ...]:
    """The trackers in `CHOICE`; names that there are none of are left out with a warning."""
    return _known(os.environ.get(CHOICE, ""))


@cache
def _known(choice: str) -> tuple[str, ...]:
    names = dict.fromkeys(name.strip() for name in choice.split(",") if name.strip())
    for name in names:
        if name not in TRACKERS:
            log.warning("%s: no tracker is called %r; there are %s", CHOICE, name, ", ".join(TRACKERS))
    return tuple(name for name in names if name in TRACKERS)


def close_trackers() -> None:
    """End the trackers of this process, each with what it was told written."""
    patience = float(os.environ.get(PATIENCE) or DEFAULT_PATIENCE)
    while _channels:
        _channels.popitem()[1].close(patience)


def _channels_of(folder: Path) -> list[Channel]:
    """A process per tracker and run folder for all runs of the tracker: their libraries take seconds to import."""
    for name in chosen():
        if (name, folder) not in _channels:
            try:
                _channels[name, folder] = Channel.open(name, folder)
            except OSError as error:
                log.warning("tracker %s cannot be started: %s", name, error)
    return [_channels[name, folder] for name in chosen() if (name, folder) in _channels]
