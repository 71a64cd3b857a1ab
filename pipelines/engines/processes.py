"""A job as a process of its own: environment, log, end. Engines start it on this machine or wherever they are.

The process ends with the one that started it, whatever ends that one: see `pipelines.job_process`.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO

from pipelines.engines.protocol import Outcome
from pipelines.failures import named
from pipelines.job_state import ATTEMPT, FAILED, JobState, at_work, new_state, read_state, write_state
from pipelines.jobs import Job
from pipelines.run_folder import RunFolder
from pipelines.secrets import redacted

log = logging.getLogger(__name__)

GRACE_SECONDS = 15
LAST_LINES = 12
TAIL_BYTES = 16_384
CARRIED = (
    "RELSTACK_CACHE",
    "RELSTACK_TRACKER",
    "RELSTACK_TRACKER_SECONDS",
    "RELSTACK_TRUST_REMOTE_CODE",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "OMP_WAIT_POLICY",
)
"""What jobs on other machines are told of this environment; no secrets: these are set on each machine."""

NONE: Mapping[str, str] = {}
WANT_OF_MEMORY = "perhaps for want of memory: fewer --workers, or less at once"


@dataclass(frozen=True)
class Place:
    """What a job's process is told besides its command, the same on every machine that shares the file system."""

    run: Path
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunFolder, variables: Mapping[str, str] = NONE) -> "Place":
        """The place of this process, with what jobs share of its environment, and `variables`."""
        carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
        return cls(run.root.resolve(), Path.cwd(), {**carried, **variables})


class JobProcess:
    """A job that has been started."""

    def __init__(self, job: Job, place: Place) -> None:
        run = RunFolder(place.run)
        self.job, self.log, self.state = job, run.job_log(job.name), run.job_state(job.name)
        self.manifest = place.folder / job.manifest
        self.was_done, self.fresh = self.manifest.is_file(), new_state(self.state)
        before = read_state(self.state)
        packages = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(job.resources.cpus),
            **place.variables,
            ATTEMPT: str(self.fresh.attempt),
            "PYTHONSAFEPATH": "1",  # modules are never taken from the working folder, which may be a stranger's
            "PYTHONPATH": os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")])),
        }
        with open_log(run, job) as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.job_process", *job.argv], cwd=place.folder, env=environment,
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.fresh = self.fresh.model_copy(update={"pid": self.process.pid})
        if before is None or not at_work(self.state, before, now=time.time()):
            _note(self.state, self.fresh)  # an attempt that dies while it still imports counts too

    def poll(self) -> Outcome | None:
        """How it ended, None while it works."""
        return None if self.process.poll() is None else self.wait()

    def wait(self) -> Outcome:
        """How it ended, once it has."""
        exit_code = self.process.wait()
        there = self.manifest.is_file()
        done = there and (exit_code == 0 or not self.was_done)
        last = tuple(last_lines(self.log))
        if exit_code == 0 and not there:
            exit_code, last = FAILED, (*last, f"ended without its manifest {self.manifest}")
        if exit_code < 0:
            last = (*last, killed_by(-exit_code))
        self._note_end(exit_code, last)
        return Outcome(self.job, exit_code, done, last)

    def terminate(self) -> None:
        """Ask it and all processes of its group to end, if it still works."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def stop(self) -> None:
        """End it and all processes of its group, if it still works."""
        assert self.process.stdin is not None, "it was asked for"
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.process.stdin.close()

    def _note_end(self, exit_code: int, last: tuple[str, ...]) -> None:
        """Write down the end of a process that did not do so itself, or wrote another."""
        state = read_state(self.state)
        state = self.fresh if state is None else state
        if state.exit_code != exit_code:
            words = last[-1] if last else ""
            _note(self.state, state.model_copy(update={"exit_code": exit_code, "error": words}))


def _note(file: Path, state: JobState) -> None:
    try:
        write_state(file, state)
    except OSError as error:  # the process runs or has ended, whether that can be noted or not
        log.warning("the state of %s cannot be written: %s", state.name, error)


def unwritten(run: RunFolder, job: Job, error: OSError) -> Outcome:
    """The end of a job whose log cannot be written: what the machine does to it is what is said of it."""
    known = named(error, stage=job.name, folder=run.root)
    exit_code, words = (FAILED, str(error)) if known is None else (known.exit_code, str(known))
    return Outcome(job, exit_code, done=job.done, last=tuple(words.splitlines()))


def killed_by(number: int) -> str:
    """What is said of a job that a signal ended.

    Examples
    --------
    >>> killed_by(15), killed_by(9)[:31]
    ('killed by signal 15', 'killed by signal 9, perhaps for')
    """
    return f"killed by signal {number}" + (f", {WANT_OF_MEMORY}" if number == signal.SIGKILL else "")


def run_job(job: Job, place: Place) -> Outcome:
    """Do a job in a process of its own and wait for its end; whatever ends this function ends the process."""
    try:
        process = JobProcess(job, place)
    except OSError as error:
        return unwritten(RunFolder(place.run), job, error)
    try:
        return process.wait()
    finally:
        process.stop()


def open_log(run: RunFolder, job: Job) -> TextIO:
    """The job's log, opened to append, with a line that begins the new attempt."""
    file = run.job_log(job.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    log = file.open("a", encoding="utf-8")
    log.write(f"== {datetime.now().isoformat(' ', 'seconds')} {socket.gethostname()}: {redacted(job.command)}\n")
    log.flush()
    return log


def last_lines(log: Path) -> list[str]:
    """The last lines of a log, without reading all of it."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-LAST_LINES:]
