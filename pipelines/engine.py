"""The order of the work: which jobs a run needs, done here one after the other; what is finished is skipped."""

import logging
from pathlib import Path

import pandas as pd

from competition.cleaning import get_preset
from competition.rows import find_files
from competition.tasks import get_task
from pipelines import prepare
from pipelines.config import learner_name, load_recipe
from pipelines.ensembling import DEFAULTS, ensemble
from pipelines.pretraining import origin_values
from pipelines.progress import progress
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scoreboard import leaderboard
from pipelines.timing import timed
from pipelines.train import part_keys, train
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
    todo = part_keys(run, tasks, settings.recipes)
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
    """The jobs of a run, one line each: job, state (done or to do). Nothing is written."""
    files = find_files(Path(settings.data), [get_task(name) for name in settings.tasks])
    tasks = [name for name in settings.tasks if (name, "train") in files]
    lines = [("prepare", run.settings_file.is_file())]
    from oof.store import PartKey
    from pipelines.backbones import applies

    for task in tasks:
        lines.append((f"split {task}", any(run.folds_folder(task).glob("*.json"))))
        for name in settings.recipes:
            if applies(load_recipe(name, settings.overrides), get_task(task)):
                keys = [PartKey(task, learner_name(name), fold) for fold in range(settings.folds)]
                lines += [(f"train {key}", run.parts.is_finished(key)) for key in keys]
        for name in DEFAULTS:
            lines.append((f"{name} {task}", (run.ensemble(task, name) / "manifest.json").is_file()))
    lines.append(("submit", run.submission("final").is_dir()))
    return pd.DataFrame([(job, "done" if done else "to do") for job, done in lines], columns=["job", "state"])
