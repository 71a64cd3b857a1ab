"""The order of the work: rows and folds, then the jobs that remain, then the leaderboard; what is there is skipped."""

import logging
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace

from competition.cleaning import get_preset
from pipelines import prepare
from pipelines.config import load_recipe
from pipelines.engines import ENGINES
from pipelines.engines.protocol import Engine, EngineOptions
from pipelines.ensembling import is_current
from pipelines.jobs import ENSEMBLE, TRAIN, Job, job_graph
from pipelines.locks import sweep
from pipelines.planning import expected
from pipelines.progress import progress
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scheduling import failure, stopping, work_off
from pipelines.scoreboard import leaderboard
from pipelines.timing import timed
from pipelines.train import check_part, record_recipes
from submissions.leaderboard import Leaderboard

log = logging.getLogger(__name__)

HERE = EngineOptions()


def run_all(
    run: RunFolder, settings: RunSettings, *, engine: str = "here", options: EngineOptions = HERE
) -> Leaderboard:
    """All stages up to the leaderboard. Done again it does nothing again.

    Rows, folds and leaderboard are made here, the jobs between them wherever the engine runs them.

    Raises
    ------
    CompetitionError
        Before anything is written: unknown recipes, tasks or presets, faulty recipes, faulty input files, an engine
        that is not there. In the end: every job that failed, with the end of its log and its command.
    """
    for name in settings.recipes:
        load_recipe(name, settings.overrides)
    get_preset(settings.cleaning)
    with ExitStack() as begun:
        place = None if _seems_done(run, settings) else begun.enter_context(_engine(run, engine, options))
        with timed(run, "prepare"):
            prepare.prepare(run, settings)
        record_recipes(run, settings.recipes, settings.overrides)
        with timed(run, "split"):
            prepare.split(run)
        graph = job_graph(run, [task.name for task in run.tasks()], settings.recipes, cpus=options.cpus or 1)
        if todo := unfinished(run, graph):
            planned = {} if engine == "here" else expected(run, settings, todo)
            seconds = {name: job.seconds for name, job in planned.items()}
            memory = {name: job.memory_gib for name, job in planned.items()} if engine == "local" else {}
            todo = [_with_memory(job, options.memory_gib or memory.get(job.name)) for job in todo]
            _work_off(todo, place or begun.enter_context(_engine(run, engine, options)), seconds)
    sweep(run.logs)  # of jobs that were killed when all but their last word was written
    with timed(run, "leaderboard"):
        return leaderboard(run)


@contextmanager
def _engine(run: RunFolder, name: str, options: EngineOptions) -> Iterator[Engine]:
    """The engine, which is stopped in the end, whatever ends the block."""
    engine = ENGINES[name](run, options)
    with stopping(engine):
        yield engine


def _with_memory(job: Job, gib: float | None) -> Job:
    """The job with the memory that is kept free for it; 0 is none."""
    return replace(job, resources=replace(job.resources, memory_gib=gib or None))


def _seems_done(run: RunFolder, settings: RunSettings) -> bool:
    """Whether every job has left its manifest, by names alone: then no engine is needed, unless ensembles are old."""
    if not run.settings_file.is_file() or not set(settings.recipes) <= set(run.settings().recipes):
        return False
    tasks = [task.name for task in run.tasks()]
    if not all(any(run.folds_folder(task).glob("*.json")) for task in tasks):
        return False
    return all(job.done for job in job_graph(run, tasks, settings.recipes))


def unfinished(run: RunFolder, graph: Sequence[Job]) -> list[Job]:
    """The jobs that remain.

    Raises
    ------
    CompetitionError
        A part is there but was made differently; a base learner begins with weights that no job makes.
    """
    by_name, todo = {job.name: job for job in graph}, dict[str, Job]()
    for job in graph:
        if job.kind == TRAIN and not any(name in todo for name in job.needs):
            check_part(run, job.part)
        if not job.done or (job.kind == ENSEMBLE and not _is_current(run, job, by_name, todo)):
            todo[job.name] = job
    return list(todo.values())


def _is_current(run: RunFolder, job: Job, by_name: Mapping[str, Job], todo: Container[str]) -> bool:
    """Whether an ensemble is of the parts that there are."""
    if any(name in todo for name in job.needs):
        return False
    return is_current(run, job.task, job.learner, dict.fromkeys(by_name[name].learner for name in job.needs))


def _work_off(todo: Sequence[Job], engine: Engine, seconds: Mapping[str, float]) -> None:
    with progress("jobs", total=len(todo)) as advance, redirect_stdout(sys.stderr):
        # what libraries print of jobs is no data; redirected last, to where a bar is drawn around it
        failed, skipped = work_off(todo, engine, seconds=seconds, tell=lambda outcome: advance(1))
    if failed:
        raise failure(failed, skipped)
