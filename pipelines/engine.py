"""The order of the work: which jobs a run needs, done here one after the other; what is finished is skipped."""

import logging

import pandas as pd

from competition.cleaning import get_preset
from pipelines import prepare
from pipelines.config import load_recipe
from pipelines.ensembling import DEFAULTS, ensemble
from pipelines.planning import plan_run, plan_table
from pipelines.pretraining import origin_values
from pipelines.progress import progress
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scoreboard import leaderboard
from pipelines.timing import timed
from pipelines.train import jobs, train
from submissions.leaderboard import Leaderboard

log = logging.getLogger(__name__)


def run_all(run: RunFolder, settings: RunSettings) -> Leaderboard:
    """All stages up to the leaderboard. Done again it does nothing again.

    Raises
    ------
    CompetitionError
        Before anything is written: unknown recipes, tasks or presets, faulty recipes, faulty input files.
    """
    for name in settings.recipes:
        load_recipe(name, settings.overrides)
    get_preset(settings.cleaning)
    with timed(run, "prepare"):
        prepare.prepare(run, settings)
    run.add_recipes(settings.recipes, settings.overrides)
    with timed(run, "split"):
        prepare.split(run)
    tasks = [task.name for task in run.tasks()]
    todo = [job.key for job in jobs(run, tasks, settings.recipes)]
    for key in todo:
        origin_values(run, run.recipe(key.learner), key)  # refuses pretrained weights that are not there
    with progress("base learners", total=len(todo)) as advance:
        for key in todo:
            with timed(run, f"train {key}"):
                train(run, key)
            advance(1)
    for task in tasks:
        for name in DEFAULTS:
            with timed(run, f"{name} {task}"):
                ensemble(run, task, name, dict.fromkeys(key.learner for key in todo if key.task == task))
    with timed(run, "leaderboard"):
        return leaderboard(run)


def planned(run: RunFolder, settings: RunSettings) -> pd.DataFrame:
    """The jobs of a run, one line each: job, state (done or to do), estimates. Nothing is written."""
    return plan_table(plan_run(run, settings))
