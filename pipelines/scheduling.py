"""Which job is next, and what became of all of them: the same for every engine."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from competition.errors import WORTH_RETRYING, CompetitionError, Fault
from pipelines.engines.protocol import Engine, Outcome
from pipelines.failures import naming_sigterm
from pipelines.jobs import Job
from pipelines.ranking import chains, rank

log = logging.getLogger(__name__)

NOTHING_KNOWN: Mapping[str, float] = {}


class JobsRefusedError(CompetitionError):
    """Jobs failed on what a user can mend."""


class JobsFailedError(CompetitionError):
    """Jobs failed, at least one of them for a reason of its own."""

    exit_code: ClassVar[int] = 1


class JobsLostError(CompetitionError):
    """Jobs ran out of memory, were killed or lost their machine: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


@dataclass(frozen=True)
class Skipped:
    """A job that was not begun, and the failed job that it needs."""

    job: Job
    because: str


def work_off(
    jobs: Sequence[Job],
    engine: Engine,
    *,
    seconds: Mapping[str, float] = NOTHING_KNOWN,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Outcome], list[Skipped]]:
    """Do all jobs, as many at a time as the engine has room for; gives those that failed and those not begun.

    A job starts when all jobs that it needs are done; those that are not among `jobs` are taken to be. Of the jobs
    that could start, those with most GPUs do first, and of these those with the longest chain of jobs behind them by
    `seconds` (by name of the job): small ones fill the gaps later (simulated by `benchmarks/scheduler.py`). A failed
    job stops nothing but what needs it. `tell` is called with every end that is final.
    """
    waiting, running = list(jobs), set[str]()
    open_jobs, tries = {job.name for job in jobs}, Counter[str]()
    failed: list[Outcome] = []
    chain = chains({job.name: job.needs for job in jobs}, seconds)
    while waiting or running:
        ready = [job for job in waiting if not open_jobs.intersection(job.needs)]
        for job in sorted(ready, key=lambda job: rank(gpus=job.resources.gpus, chain=chain[job.name])):
            if engine.has_room(job):
                engine.start(job)
                waiting.remove(job)
                running.add(job.name)
                tries[job.name] += 1
        if not running:
            assert not ready, "an engine that runs nothing has room"
            break  # what waits needs a failed job
        for outcome in engine.ended():
            job = outcome.job
            running.discard(job.name)
            if outcome.worth_retrying and tries[job.name] < engine.tries:
                log.warning("%s: exit code %d, is tried again", job.name, outcome.exit_code)
                waiting.append(job)
                continue
            if outcome.done:
                log.info("%s is done", job.name)
                open_jobs.discard(job.name)
            else:
                log.warning("%s failed: %s", job.name, outcome.last[-1] if outcome.last else outcome.exit_code)
                failed.append(outcome)
            tell(outcome)
    return failed, [Skipped(job, next(name for name in job.needs if name in open_jobs)) for job in waiting]


def failure(failed: Sequence[Outcome], skipped: Sequence[Skipped]) -> CompetitionError:
    """The error that names every failed job with the end of its log, and what was not begun because of it."""
    faults = [Fault(o.job.name, f"exit code {o.exit_code}{_said(o)}", f"again: {o.job.command}") for o in failed]
    faults += [Fault(each.job.name, f"not begun: {each.because} is not done") for each in skipped]
    if all(outcome.worth_retrying for outcome in failed):
        kind: type[CompetitionError] = JobsLostError
    elif all(outcome.worth_retrying or outcome.exit_code == CompetitionError.exit_code for outcome in failed):
        kind = JobsRefusedError
    else:
        kind = JobsFailedError
    words = f"{len(failed)} jobs failed; {len(skipped)} that need them were not begun"
    return kind(words, faults=faults, advice="mend what the logs say; the same command does what remains")


def _said(outcome: Outcome) -> str:
    return "; the last lines of its log:\n    " + "\n    ".join(outcome.last) + "\n   " if outcome.last else ""


@contextmanager
def stopping(engine: Engine) -> Iterator[None]:
    """Stop the engine at the end of the block, whatever ends it; SIGTERM does so as Ctrl-C does.

    Raises
    ------
    StoppedError
        SIGTERM ended the block.
    """
    try:
        with naming_sigterm():
            yield
    finally:
        engine.stop()
