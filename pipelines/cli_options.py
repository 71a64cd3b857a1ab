"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.completion import (
    TRACKERS,
    contests,
    ensembles,
    list_of,
    one_of,
    or_file,
    recipes,
    submissions,
    tasks,
    trained,
    word_of,
)

if TYPE_CHECKING:
    from pipelines.run_folder import RunFolder

Command = Callable[..., Any]


def run_option(command: Command) -> Command:
    """--run DIR."""
    return click.option("--run", "run_dir", required=True, type=click.Path(path_type=Path), help="The run folder.")(
        command
    )


def format_option(command: Command) -> Command:
    """--format table|json|csv."""
    choice = click.Choice(["table", "json", "csv"])
    return click.option("--format", "output", type=choice, default="table", show_default=True)(command)


def task_option(command: Command) -> Command:
    """--task QC|QI, all tasks of the run if it is left out."""
    words = "One task; all tasks of the run if left out."
    return click.option("--task", help=words, shell_complete=one_of(tasks))(command)


def set_option(command: Command) -> Command:
    """--set key=value, several times."""
    words = "Override a recipe key: key=value, or MODEL:key=value for one base learner. Repeatable."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=words)(command)


def tracker_option(command: Command) -> Command:
    """--tracker a,b: trackers of this command and of the jobs that it starts."""
    words = "Experiment trackers, comma-separated: trackio, mlflow, wandb; offline unless their own variables say more."
    known = list_of(word_of(*TRACKERS))
    return click.option("--tracker", expose_value=False, callback=_choose_trackers, help=words, shell_complete=known)(
        command
    )


def _choose_trackers(ctx: click.Context, option: click.Parameter, names: str | None) -> None:
    if ctx.resilient_parsing:  # a shell asks for names
        return
    from pipelines.trackers import CHOICE, close_trackers

    if names is None:  # those of the environment are the whole process's: they end with it
        return
    if unknown := [name for name in names_of(names) if name not in TRACKERS]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(TRACKERS)}", ctx, option)
    ctx.call_on_close(close_trackers)
    before = os.environ.get(CHOICE)
    os.environ[CHOICE] = names
    ctx.call_on_close(lambda: os.environ.pop(CHOICE) if before is None else os.environ.update({CHOICE: before}))


def competition_option(command: Command) -> Command:
    """--competition NAME|FILE."""
    words = "The contest: one that comes with relstack, or its .toml file; competition.toml of --data if left out."
    complete = or_file(one_of(contests))
    return click.option("--competition", metavar="NAME|FILE", help=words, shell_complete=complete)(command)


def ensemble_option(command: Command) -> Command:
    """--ensemble NAME: what is handed in or over."""
    return click.option(
        "--ensemble",
        default="best",
        show_default=True,
        help="An ensemble or base learner, or best.",
        shell_complete=one_of(word_of("best"), ensembles, trained),
    )(command)


def submission_option(command: Command) -> Command:
    """--submission NAME: one that was written."""
    words = "Name of the submission."
    return click.option(
        "--submission", default="final", show_default=True, help=words, shell_complete=one_of(submissions)
    )(command)


def learners_option(command: Command) -> Command:
    """--models a,b,c."""
    words = "Base learners to combine, comma-separated; all finished ones if left out."
    return click.option("--models", help=words, shell_complete=list_of(trained))(command)


def one_task_option(command: Command) -> Command:
    """--task QC|QI, which must be named."""
    return click.option("--task", required=True, help="A task of the contest: QC or QI.", shell_complete=one_of(tasks))(
        command
    )


def model_option(command: Command) -> Command:
    """--model NAME|FILE: a recipe."""
    words = "Recipe name, or the path of a recipe file."
    return click.option("--model", required=True, help=words, shell_complete=or_file(one_of(recipes, trained)))(command)


def engine_options(command: Command) -> Command:
    """--engine and its settings, see `pipelines.engines.protocol.EngineOptions`."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["here", "local", "ray", "slurm"]),
            default="here",
            show_default=True,
            help="Where jobs run: one after the other in this process, several processes of this machine, a cluster.",
        ),
        click.option("--workers", type=click.IntRange(1), help="Jobs at a time; as many as there is room for."),
        click.option("--cpus", type=click.IntRange(1), help="Threads of a job; local: its share, clusters: 1."),
        click.option(
            "--memory",
            type=click.FloatRange(0, min_open=True),
            metavar="GIB",
            help="Main memory kept free for each job; left out: local takes the plan's, clusters none.",
        ),
        click.option("--address", help="Ray: auto, or HOST:PORT; a cluster of this machine's own if left out."),
        click.option("--slurm", metavar="KEY=VALUE,...", help="SLURM: partition=gpu,time=240 (minutes),..."),
    ]
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def pairs_of(text: str) -> dict[str, str]:
    """Keys and values of ``key=value,key=value``.

    Examples
    --------
    >>> pairs_of("partition=gpu, time=240")
    {'partition': 'gpu', 'time': '240'}
    """
    pairs = [name.partition("=") for name in names_of(text)]
    if faulty := [key for key, equals, value in pairs if not (key and equals and value)]:
        raise click.UsageError(f"{', '.join(faulty)}: write KEY=VALUE,KEY=VALUE")
    return {key.strip(): value.strip() for key, _, value in pairs}


def run_folder(root: Path) -> "RunFolder":
    """The run folder at `root`; refused with links to files outside of it."""
    from pipelines.run_folder import RunFolder
    from pipelines.trust import refuse_links

    run = RunFolder(root)
    refuse_links(root, besides=run.trackers_folder / "wandb")  # which links to its own cache
    return run


def names_of(text: str) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
