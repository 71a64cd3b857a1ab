"""Commands that learn from an ensemble's scores: pseudo, distil."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import format_option, names_of, run_folder, run_option, set_option, task_option
from pipelines.completion import ensembles, list_of, one_of, or_file, recipes, trained, word_of

SPLITS_HELP = "Rows to learn from besides train, comma-separated; dev and test, as far as they are there, if left out."


def selftraining_commands() -> list[click.Command]:
    """The commands of this file, in the order of the work."""
    return [pseudo, distil]


def ensemble_option(command: Any) -> Any:
    """--ensemble NAME."""
    words = "The teacher: stack, blend, or a base learner that is trained for all folds."
    known = one_of(ensembles, trained)
    return click.option("--ensemble", default="stack", show_default=True, help=words, shell_complete=known)(command)


@click.command()
@run_option
@task_option
@ensemble_option
@click.option("--splits", help=SPLITS_HELP, shell_complete=list_of(word_of("dev", "test")))
@click.option("--confidence", type=float, help="How sure a row must be to be taken; .9 if left out.")
@click.option("--balance", type=float, help="How far a language may be ahead of its share of rows; 1.25 if left out.")
@click.option("--soft", is_flag=True, help="All rows, with their scores as soft labels, instead of the sure ones.")
@click.option("--name", help="Name of the set, for a recipe's extra.pseudo; ENSEMBLE or ENSEMBLE-soft if left out.")
@format_option
def pseudo(
    run_dir: Path,
    task: str | None,
    ensemble: str,
    splits: str | None,
    confidence: float | None,
    balance: float | None,
    soft: bool,
    name: str | None,
    output: Any,
) -> None:
    """Label rows of dev and test by an ensemble, one set per fold, made without the fold's rows.

    A base learner trains on them where its recipe says so: relstack train --set extra.pseudo=NAME (a copy of the
    recipe under a name of its own), extra.weight=0.5.
    """
    from pipelines.output import print_tables
    from pipelines.pseudo import BALANCE, CONFIDENCE, PseudoLabelling, counts_table, pseudo_label
    from pipelines.timing import timed

    if soft and (confidence is not None or balance is not None):
        raise click.UsageError("--soft takes all rows: leave --confidence and --balance out")
    run, called = run_folder(run_dir), name or (f"{ensemble}-soft" if soft else ensemble)
    tables = {}
    for each in [one.name for one in run.tasks_named(task)]:
        asked = PseudoLabelling(
            each,
            called,
            ensemble,
            names_of(splits or ""),
            CONFIDENCE if confidence is None else confidence,
            BALANCE if balance is None else balance,
            soft,
        )
        with timed(run, f"pseudo {each}/{called}"):
            pseudo_label(run, asked)
        tables[f"{each}: {called}"] = counts_table(run, each, called)
    print_tables(tables, output)


@click.command()
@run_option
@task_option
@click.option(
    "--student",
    required=True,
    help="Recipe name, or the path of a recipe file.",
    shell_complete=or_file(one_of(recipes)),
)
@ensemble_option
@click.option("--mix", default=0.5, show_default=True, help="Share of the teacher's score in a training row's label.")
@click.option("--splits", help=f"{SPLITS_HELP} none: train alone.", shell_complete=list_of(word_of("dev", "test")))
@click.option("--name", help="Name of the student; that of its recipe if left out.")
@set_option
@format_option
def distil(
    run_dir: Path,
    task: str | None,
    student: str,
    ensemble: str,
    mix: float,
    splits: str | None,
    name: str | None,
    overrides: tuple[str, ...],
    output: Any,
) -> None:
    """Train one small model on all rows, towards an ensemble's scores; compare the two on labelled dev rows."""
    from pipelines.config import learner_name
    from pipelines.distilling import Distillation, distilled_table
    from pipelines.distilling import distil as make_student
    from pipelines.output import print_tables
    from pipelines.timing import timed

    run, called = run_folder(run_dir), name or learner_name(student)
    named = None if splits is None else () if splits == "none" else names_of(splits)
    tables = {}
    for each in [one.name for one in run.tasks_named(task)]:
        with timed(run, f"distil {each}/{called}"):
            make_student(run, Distillation(each, student, called, ensemble, mix, named), overrides=overrides)
        tables[f"{each}: {ensemble} and {called}"] = distilled_table(run, each, called)
    print_tables(tables, output)
