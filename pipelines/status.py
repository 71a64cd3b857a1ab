"""How the jobs of a run stand, read from what they leave in ``logs/``, and how long the rest may take."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import pandas as pd

from pipelines.engines.processes import last_lines
from pipelines.job_state import SILENT_SECONDS, JobState, read_state
from pipelines.jobs import ENSEMBLE, TRAIN, Job, job_graph
from pipelines.locks import is_alive
from pipelines.run_folder import RunFolder
from pipelines.timing import duration

DONE, RUNNING, FAILED, STOPPED, WAITING = "done", "running", "failed", "stopped", "waiting"
COLUMNS = ("job", "state", "percent", "seconds", "attempts", "host", "detail")


@dataclass(frozen=True)
class JobLine:
    """One job and how it stands.

    Attributes
    ----------
    state
        ``done``, ``running``, ``failed``, ``stopped`` (begun, and neither ended nor heard of any more) or ``waiting``.
    percent
        Of a training's steps; None where it has none.
    seconds
        Of the last attempt; None before the first.
    detail
        The last line of a failed job's log.
    """

    job: Job
    state: str
    percent: float | None = None
    seconds: float | None = None
    attempts: int = 0
    host: str = ""
    detail: str = ""


def job_lines(run: RunFolder) -> list[JobLine]:
    """All jobs of the run's recipes, in the order of the work."""
    settings = run.settings()
    split = [task.name for task in run.tasks() if any(run.folds_folder(task.name).glob("*.json"))]
    now = file_system_now(run.logs)
    lines = [_line(run, job, now) for job in job_graph(run, split, settings.recipes)]
    done = {line.job.name for line in lines if line.state == DONE}
    return [_stale(line) if line.state == DONE and not done.issuperset(line.job.needs) else line for line in lines]


def status_table(lines: Sequence[JobLine]) -> pd.DataFrame:
    """The lines as a table."""
    values = [(x.job.name, x.state, x.percent, x.seconds, x.attempts, x.host, x.detail) for x in lines]
    return pd.DataFrame(values, columns=list(COLUMNS))


def time_left(lines: Sequence[JobLine]) -> str:
    """A sentence: what remains, and how long it takes as long as finished jobs of the same base learner took.

    Before one is finished, the steps of one that runs tell.

    Where a base learner has none yet, the mean of all others stands in and is said to.
    """
    rest = [line for line in lines if line.state != DONE]
    if not rest:
        return f"all {len(lines)} jobs are done"
    seconds: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if line.state == DONE and line.seconds is not None:
            seconds.setdefault((line.job.kind, line.job.learner), []).append(line.seconds)
    words = f"{len(rest)} of {len(lines)} jobs remain"
    for line in lines:
        if line.state == RUNNING and line.percent and line.seconds:  # by its own steps, where no other tells
            seconds.setdefault((line.job.kind, line.job.learner), [100 * line.seconds / line.percent])
    if not seconds:
        return f"{words}; none is done yet that tells how long they take"
    known = {key: mean(values) for key, values in seconds.items()}
    guess, slots = mean(known.values()), max(1, sum(line.state == RUNNING for line in lines))
    work = sum(max(0.0, known.get((x.job.kind, x.job.learner), guess) - _so_far(x)) for x in rest)
    strange = sorted({x.job.learner for x in rest if (x.job.kind, x.job.learner) not in known})
    told = f"; nothing is known yet of {', '.join(strange)}: the others' mean stands in" if strange else ""
    return f"{words}: about {duration(work / slots)} with {slots} at a time{told}"


def file_system_now(folder: Path) -> float:
    """The time that the file system gives a file written now; this machine's where it cannot be asked.

    Heartbeats are times of files: they are compared with each other, not with the clock of whoever looks.
    """
    probe = folder / f".now.{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # nothing has been begun, or it is not ours to write to
        return time.time()
    return now


def _line(run: RunFolder, job: Job, now: float) -> JobLine:
    file = run.job_state(job.name)
    state = read_state(file)
    if state is None:
        return JobLine(job, DONE, seconds=_measured(run, job)) if job.done else JobLine(job, WAITING)
    word = _word(state, job, now - file.stat().st_mtime)
    percent = 100 * state.done / state.total if state.total and word != DONE else None
    detail = _detail(run, state) if word == FAILED else ""
    return JobLine(job, word, percent, state.seconds, state.attempt, state.host, detail)


def _stale(line: JobLine) -> JobLine:
    """An ensemble of parts that are not all there waits to be made again; a part is never made twice."""
    return replace(line, state=WAITING, seconds=None) if line.job.kind == ENSEMBLE else line


def _word(state: JobState, job: Job, silent_seconds: float) -> str:
    if state.exit_code is None and silent_seconds <= SILENT_SECONDS and _may_live(state):
        return RUNNING
    if job.done and (job.kind != ENSEMBLE or not state.exit_code):  # ensembles are made again, parts once
        return DONE
    if state.exit_code is None:
        return STOPPED
    return FAILED if state.exit_code else WAITING  # it was done, and somebody deleted what it made


def _may_live(state: JobState) -> bool:
    """False if the job worked on this machine and its process is gone."""
    return state.host != socket.gethostname() or is_alive(state.pid)


def _detail(run: RunFolder, state: JobState) -> str:
    log = run.job_log(state.name)
    last = last_lines(log) if log.is_file() else []
    return state.error or (last[-1] if last else f"exit code {state.exit_code}")


def _measured(run: RunFolder, job: Job) -> float | None:
    """Seconds that a part took by its own account, for parts made before jobs kept their state."""
    if job.kind != TRAIN:
        return None
    manifest = run.parts.manifest(job.part)
    return manifest.fit_seconds + manifest.predict_seconds


def _so_far(line: JobLine) -> float:
    return line.seconds or 0.0 if line.state == RUNNING else 0.0
