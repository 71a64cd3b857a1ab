"""How a job stands, in a small file of the run's ``logs/``: who works on it, how far it is, how it ended.

The process that works writes the file anew every few seconds; one that has not been written for a while belongs to a
job that was killed. Seconds are counted by that process and never by a clock that somebody may set.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from competition.errors import CompetitionError
from pipelines.failures import named
from pipelines.locks import is_alive, one_at_a_time, sweep
from pipelines.progress import listening
from pipelines.run_folder import RunFolder
from pipelines.secrets import redacted
from pipelines.sections import Section

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
FAILED = 1
ATTEMPT = "RELSTACK_ATTEMPT"  # environment of a job's process
LONGEST_ERROR = 500


class JobState(Section):
    """``logs/<job>.json``.

    Attributes
    ----------
    attempt
        1 for the first.
    started
        Time of day, for people.
    seconds
        Since it started, as the working process counts.
    exit_code
        None while it works; negative: the signal that killed it.
    error
        The first line of what went wrong.
    done, total
        Steps of its training, 0 of 0 where there is none.
    """

    name: str
    host: str
    pid: int = Field(ge=1, le=2**31 - 1)
    attempt: int = Field(ge=1)
    started: str
    seconds: float = Field(0.0, ge=0)
    exit_code: int | None = None
    error: str = ""
    done: int = Field(0, ge=0)
    total: int = Field(0, ge=0)


def read_state(file: Path) -> JobState | None:
    """The state in a file; None if there is none, or none that can be read."""
    try:
        return JobState.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is damaged and is left out: %s", file, str(error).splitlines()[0])
        return None


def at_work(file: Path, state: JobState, *, now: float) -> bool:
    """Whether the process of a state lives, as far as can be told; `now` is the file system's time."""
    if state.exit_code is not None or now - file.stat().st_mtime > SILENT_SECONDS:
        return False
    return state.host != socket.gethostname() or is_alive(state.pid)


def write_state(file: Path, state: JobState) -> None:
    """Write the file in one step; the temporary name is this process's own."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(state.model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(file)


def new_state(file: Path) -> JobState:
    """The state of an attempt that begins now in this process.

    It is the one that whoever started this process has counted, else the next one after what the file says; what an
    attempt left that was killed while it wrote is then deleted.
    """
    before = read_state(file)
    counted = os.environ.get(ATTEMPT)
    if not counted:
        sweep(file.parent, file.name)
    return JobState(
        name=file.stem,
        host=socket.gethostname(),
        pid=os.getpid(),
        attempt=int(counted) if counted else 1 if before is None else before.attempt + 1,
        started=datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
    )


@contextmanager
def working(run: RunFolder, name: str, *, done: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Keep the state of a job while the block works on it: every few seconds, and in the end how it ended.

    Whoever comes second waits before the block, and leaves the state to the one that works. `done` is asked then: of
    a job that the other has finished, no new attempt is noted.
    A job that is interrupted from outside has no end: it is begun and silent, as if it had been killed.
    """
    with one_at_a_time(run.job_state(name)):
        if done():
            yield
            return
        with _kept(run, name):
            yield


@contextmanager
def _kept(run: RunFolder, name: str) -> Iterator[None]:
    keeper = _Keeper(run.job_state(name))
    with keeper.beating(), listening(keeper.advance):
        try:
            yield
        except Exception as error:
            keeper.end(exit_code_of(error), words_of(error))
            raise
        keeper.end(0)


def exit_code_of(error: Exception) -> int:
    """The exit code that an error leads to."""
    known = error if isinstance(error, CompetitionError) else named(error)
    return FAILED if known is None else known.exit_code


def words_of(error: Exception) -> str:
    """One line that says what went wrong, without secrets."""
    text = str(error) if isinstance(error, CompetitionError) else f"{type(error).__name__}: {error}"
    return redacted(text.partition("\n")[0])[:LONGEST_ERROR]


class _Keeper:
    """Writes one job's state; a thread of its own does so every few seconds."""

    def __init__(self, file: Path) -> None:
        self.file, self.begun = file, time.monotonic()
        self.lock, self.over = threading.Lock(), threading.Event()
        self.state = new_state(file)

    @contextmanager
    def beating(self) -> Iterator[None]:
        self._write()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()

    def advance(self, done: int, total: int) -> None:
        with self.lock:
            self.state = self.state.model_copy(update={"done": done, "total": total})

    def end(self, exit_code: int, error: str = "") -> None:
        self.over.set()
        with self.lock:
            self.state = self.state.model_copy(update={"exit_code": exit_code, "error": error})
        self._write()

    def _beat(self) -> None:
        while not self.over.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        with self.lock:
            self.state = self.state.model_copy(update={"seconds": round(time.monotonic() - self.begun, 1)})
            try:
                write_state(self.file, self.state)
            except OSError as error:  # a full disk stops the job where it matters, not here
                log.warning("the state of %s cannot be written: %s", self.state.name, error)
