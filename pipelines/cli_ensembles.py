"""Commands that combine base learners and look into what comes of it: stack, blend, ensemble, labels."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import (
    format_option,
    learners_option,
    names_of,
    run_folder,
    run_option,
    task_option,
    tracker_option,
)
from pipelines.completion import COMBINERS, ensembles, one_of, trained, word_of


def ensemble_commands() -> list[click.Command]:
    """The commands of this file, in the order of the work."""
    return [stack, blend, ensemble, labels]


@click.command()
@run_option
@task_option
@learners_option
@tracker_option
def stack(run_dir: Path, task: str | None, models: str | None) -> None:
    """Combine the base learners with the LightGBM stacker."""
    _combine(run_dir, task, "stack", models)


@click.command()
@run_option
@task_option
@learners_option
@tracker_option
def blend(run_dir: Path, task: str | None, models: str | None) -> None:
    """Combine the base learners with the Optuna-tuned blend."""
    _combine(run_dir, task, "blend", models)


@click.group()
def ensemble() -> None:
    """Look into the ensembles of a run."""


@ensemble.command()
@run_option
@task_option
@click.option(
    "--name",
    required=True,
    help="mean, greedy, convex, logistic-by-language, ...: any that evaluate lists.",
    shell_complete=one_of(word_of(*COMBINERS)),
)
@learners_option
@tracker_option
def make(run_dir: Path, task: str | None, name: str, models: str | None) -> None:
    """Combine the base learners with any of the combiners; then it can be submitted by its name."""
    _combine(run_dir, task, name, models)


@ensemble.command()
@run_option
@task_option
@click.option(
    "--name",
    "names",
    multiple=True,
    help="A combiner; all if left out.",
    shell_complete=one_of(word_of(*COMBINERS)),
)
@click.option("--repeats", default=1, show_default=True, help="Nested estimates, each over folds dealt anew.")
@format_option
def evaluate(run_dir: Path, task: str | None, names: tuple[str, ...], repeats: int, output: Any) -> None:
    """Nested F1 of every combiner, how much its own rows flatter it, F1 on labelled dev, differences to the default."""
    from pipelines.evaluating import evaluate as make_tables
    from pipelines.output import print_tables

    run = run_folder(run_dir)
    tables: dict[str, Any] = {}
    for each in run.tasks_named(task):
        tables |= make_tables(run, each.name, names, n_repeats=repeats)
    print_tables(tables, output)


@ensemble.command(name="compare")
@click.argument("first", shell_complete=one_of(ensembles, trained))
@click.argument("second", shell_complete=one_of(ensembles, trained))
@run_option
@task_option
@format_option
def compare_entries(first: str, second: str, run_dir: Path, task: str | None, output: Any) -> None:
    """Two base learners or ensembles on the same training rows: paired interval, McNemar's test, per language too."""
    from pipelines.evaluating import compare_entries as make_table
    from pipelines.output import print_tables

    run = run_folder(run_dir)
    names = [each.name for each in run.tasks_named(task)]
    print_tables({f"{each}: {first} against {second}": make_table(run, each, first, second) for each in names}, output)


@ensemble.command()
@run_option
@task_option
@click.option(
    "--name",
    "names",
    multiple=True,
    help="An ensemble (stack, blend); all finished ones if left out.",
    shell_complete=one_of(ensembles),
)
@format_option
def explain(run_dir: Path, task: str | None, names: tuple[str, ...], output: Any) -> None:
    """Weights, importance of features, and what each base learner adds (the ensemble is fitted again without it)."""
    from pipelines.explaining import explain as make_tables
    from pipelines.output import print_tables

    run = run_folder(run_dir)
    tables: dict[str, Any] = {}
    for each in run.tasks_named(task):
        tables |= make_tables(run, each.name, names)
    print_tables(tables, output)


@click.command()
@run_option
@task_option
@click.option("--top", default=20, show_default=True, help="Rows listed per task, the surest doubts first.")
@format_option
def labels(run_dir: Path, task: str | None, top: int, output: Any) -> None:
    """Training rows whose label no base learner believes: how many per language, and which."""
    from pipelines.label_report import label_tables
    from pipelines.output import print_tables

    run = run_folder(run_dir)
    tables: dict[str, Any] = {}
    for each in run.tasks_named(task):
        tables |= label_tables(run, each.name, top=top)
    print_tables(tables, output)


def _combine(run_dir: Path, task: str | None, name: str, models: str | None) -> None:
    from pipelines.steps import combine

    run = run_folder(run_dir)
    tasks = [each.name for each in run.tasks_named(task)]
    for folder in combine(run, tasks, name, models=names_of(models) if models else None):
        print(folder)
