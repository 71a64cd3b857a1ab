"""Stages as commands and the Python interface take them: for all folds or tasks, noted in the run's log and timings."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from oof.store import PartKey
from pipelines.config import for_learner, learner_name
from pipelines.ensembling import ensemble
from pipelines.job_state import working
from pipelines.jobs import ENSEMBLE, TRAIN, job_name
from pipelines.run_folder import RunFolder
from pipelines.timing import timed
from pipelines.train import record_recipes, train


def train_folds(
    run: RunFolder, task: str, model: str, *, fold: int | None = None, overrides: Sequence[str] = ()
) -> Iterator[Path]:
    """The parts of a base learner, one after the other: of one fold, or of all; finished ones are left as they are.

    Parameters
    ----------
    model
        Name or path of its recipe.
    overrides
        ``key=value`` of the recipe, recorded in the run as those of this base learner alone.
    """
    learner = learner_name(model)
    record_recipes(run, [model], [for_learner(each, learner) for each in overrides])
    for k in range(run.folds(task).plan.n_splits) if fold is None else [fold]:
        key = PartKey(task, learner, k)
        name = job_name(TRAIN, task, key.learner, k)
        done = partial(run.parts.is_finished, key)
        with nullcontext() if done() else working(run, name, done=done), timed(run, f"train {key}"):
            part = train(run, key)
        yield part


def combine(run: RunFolder, tasks: Sequence[str], name: str, *, models: Sequence[str] | None = None) -> Iterator[Path]:
    """The ensembles of this name, one a task, of all base learners with all their parts unless `models` are named."""
    for task in tasks:
        with working(run, job_name(ENSEMBLE, task, name)), timed(run, f"{name} {task}"):
            folder = ensemble(run, task, name, models)
        yield folder
