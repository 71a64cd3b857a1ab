"""Commands that make and use single base learners: tune, pretrain, train, predict."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import (
    format_option,
    model_option,
    one_task_option,
    run_folder,
    run_option,
    set_option,
    tracker_option,
)
from pipelines.cli_tune import tune
from pipelines.completion import folds, one_of, pretrained, students, tasks, trained


def model_commands() -> list[click.Command]:
    """The commands of this file, in the order of the work."""
    return [tune, pretrain, train, predict]


@click.command()
@run_option
@one_task_option
@model_option
@click.option("--fold", type=int, help="The held-out fold; all folds if left out.", shell_complete=one_of(folds))
@set_option
@tracker_option
def train(run_dir: Path, task: str, model: str, fold: int | None, overrides: tuple[str, ...]) -> None:
    """Fit one base learner without one fold; score that fold, dev and test: one part."""
    from pipelines.steps import train_folds

    for part in train_folds(run_folder(run_dir), task, model, fold=fold, overrides=overrides):
        print(part)


@click.command()
@run_option
@click.option(
    "--task",
    required=True,
    help="The task that the weights are for: its held-out rows stay unseen.",
    shell_complete=one_of(tasks),
)
@click.option("--on", help="The task to learn from; the run's other task if left out.", shell_complete=one_of(tasks))
@model_option
@click.option("--name", help="Name of the weights, for init_from and --from; MODEL-tapt if left out.")
@click.option(
    "--objective",
    type=click.Choice(["supervised", "masked-lm"]),
    default="supervised",
    show_default=True,
    help="Learn from labels, or fill gaps in the texts.",
)
@click.option("--fold", type=int, help="For this fold only: fewer rows must be left out.", shell_complete=one_of(folds))
@click.option("--every-fold", is_flag=True, help="Once for every fold.")
@click.option(
    "--from", "parent", help="Begin with pretrained weights of this name: a chain.", shell_complete=one_of(pretrained)
)
@set_option
def pretrain(
    run_dir: Path,
    task: str,
    on: str | None,
    model: str,
    name: str | None,
    objective: str,
    fold: int | None,
    every_fold: bool,
    parent: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Train a network on another task first; fold training begins with it where a recipe says init_from = NAME.

    Rows that would show a held-out row of TASK, by id or by query text, are left out and counted.
    """
    from pipelines.config import learner_name
    from pipelines.job_state import working
    from pipelines.jobs import PRETRAIN, job_name
    from pipelines.pretraining import Pretraining, source_task
    from pipelines.pretraining import pretrain as make_weights
    from pipelines.timing import timed

    if every_fold and fold is not None:
        raise click.UsageError("name --fold K, or --every-fold")
    run = run_folder(run_dir)
    source = source_task(run, task, on)
    called = name or f"{learner_name(model)}-tapt"
    folds = list(range(run.folds(task).plan.n_splits)) if every_fold else [fold]
    for k in folds:
        asked = Pretraining(called, task, source, model, objective, k, parent)
        stage = f"pretrain {task}/{called}" + ("" if k is None else f"/fold-{k}")
        with working(run, job_name(PRETRAIN, task, called, k)), timed(run, stage):
            print(make_weights(run, asked, overrides=overrides))


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@run_option
@one_task_option
@click.option("--model", help="A base learner that has been trained for all folds.", shell_complete=one_of(trained))
@click.option("--student", help="A distilled student instead.", shell_complete=one_of(students))
@format_option
def predict(data: Path, run_dir: Path, task: str, model: str | None, student: str | None, output: Any) -> None:
    """Score the rows of DATA, a file in the competition's format, with a base learner's fold models: id, score."""
    from pipelines.output import print_table
    from pipelines.predict import predict as score

    if (model is None) == (student is None):
        raise click.UsageError("name --model NAME, or --student NAME")
    print_table(score(run_folder(run_dir), task=task, learner=model, student=student, data=data), output)
