"""``relstack tune``: a study over the keys of one recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_options import format_option, model_option, one_task_option, run_option, set_option
from pipelines.completion import folds as folds_of
from pipelines.completion import list_of

if TYPE_CHECKING:
    from pipelines.study_plan import Tuning
    from pipelines.tune import Tuned

VARY = """A recipe key and its values: KEY=a,b,c (one of them), KEY=lo..hi (a number between, whole if both ends are), \
KEY=log:lo..hi (even over orders of magnitude). Repeatable."""


@click.command()
@run_option
@one_task_option
@model_option
@click.option("--vary", multiple=True, required=True, metavar="KEY=VALUES", help=VARY)
@click.option(
    "--folds",
    default="0",
    show_default=True,
    help="Held-out folds to score; the others stay fresh.",
    shell_complete=list_of(folds_of),
)
@click.option("--rows", default=4000, show_default=True, help="About so many rows to fit on, and to score, per fold.")
@click.option("--trials", default=20, show_default=True, help="Trials in all, earlier ones included.")
@click.option("--metric", type=click.Choice(["f1", "auc", "log-loss"]), default="f1", show_default=True)
@click.option("--study", help="Name of the study; the model's if left out.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share it.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the tuned recipe here as well.")
@set_option
@format_option
def tune(run_dir: Path, folds: str, workers: int, out: Path | None, output: Any, **options: Any) -> None:
    """Search good values of a base learner's recipe keys; the best trial becomes a recipe file.

    The first trial is the recipe as it stands. The same command again goes on with the study, and the same command
    several times at once shares it. The best value is optimistic, because it is chosen on the rows it is measured on:
    train the tuned recipe on folds that the study did not use to see how good it is.
    """
    from pipelines.output import print_table, say
    from pipelines.run_folder import RunFolder
    from pipelines.study_plan import Tuning
    from pipelines.timing import timed
    from pipelines.tune import tune as search

    run = RunFolder(run_dir)
    tuning = Tuning(run=run, folds=_numbers(folds), **options)
    with timed(run, f"tune {tuning.task}/{tuning.name}"):
        tuned = search(tuning, workers=workers, out=out)
    print_table(tuned.trials, output)
    say(_advice(tuning, tuned))


def _advice(tuning: "Tuning", tuned: "Tuned") -> str:
    """How far the result can be trusted, and what to do with it."""
    folds = range(tuning.run.folds(tuning.task).plan.n_splits)
    fresh = [k for k in folds if k not in tuning.folds]
    base = "" if tuned.base_value is None else f" (the recipe as it stands: {tuned.base_value:.4f})"
    command = f"relstack train --run {tuning.run.root} --task {tuning.task} --model {tuned.path}"
    return "\n".join(
        [
            f"best of {len(tuned.trials)} trials: {tuning.metric} {tuned.value:.4f}{base} on {tuned.n_held_out:,} "
            "held-out rows; optimistic, as it was chosen on these rows",
            f"tuned recipe: {tuned.path}",
            f"judge it on a fold that the study did not use: {command} --fold {fresh[0]}"
            if fresh
            else "no fold is fresh: the study used them all",
            f"use it: {command}",
        ]
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of folds such as 0,1", param_hint="--folds") from error
