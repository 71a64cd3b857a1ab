"""What a run would take: the options and output of ``run --dry-run``, and the memory that networks take."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli_options import format_option, names_of
from pipelines.completion import list_of, recipes

if TYPE_CHECKING:
    from pipelines.run_folder import RunFolder, RunSettings


def estimate_commands() -> list[click.Command]:
    """The commands of this file."""
    return [memory]


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--dry-run, and what its estimates are for and from."""
    options = [
        click.option(
            "--dry-run",
            is_flag=True,
            help="List the jobs that are done and to do, with hours, memory and disk; read and write nothing else.",
        ),
        click.option(
            "--rates-from",
            multiple=True,
            type=click.Path(path_type=Path),
            help="With --dry-run: a run whose finished parts tell how long parts take. Repeatable.",
        ),
        click.option(
            "--gpus",
            metavar="NAME:COUNT",
            help="With --dry-run: plan for these GPUs, as H100:8, instead of those of this machine.",
        ),
    ]
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def show_plan(
    run: "RunFolder",
    settings: "RunSettings",
    *,
    output: Any,
    rates_from: tuple[Path, ...] = (),
    gpus: str | None = None,
    engine: str = "here",
    workers: int | None = None,
) -> None:
    """Print the jobs on stdout; on stderr what they add up to by base learner and stage, and the wall time."""
    from pipelines.output import print_table, say, table_text
    from pipelines.planning import group_table, other_runs, plan_run, plan_table, schedule_of
    from pipelines.slots import slots_here

    one = engine == "here" and gpus is None  # on other GPUs than those here, not one job after the other
    slots = slots_here(1 if one else workers, gpus)
    plan = plan_run(run, settings, other_runs(rates_from), slots=slots)
    print_table(plan_table(plan), output)
    say(table_text(group_table(plan)))
    schedule = schedule_of(plan, slots)
    on = f"{slots.n_gpus} x {slots.card}" if slots.n_gpus else "no GPU"
    say(f"wall time: {schedule.makespan / 3600:.2f} h with {slots.workers} workers, {on} (simulated)")


@click.command()
@click.option(
    "--recipes",
    "names",
    default="",
    help="Recipes, comma-separated; all built-in transformers if left out.",
    shell_complete=list_of(recipes),
)
@format_option
def memory(names: str, output: Any) -> None:
    """GPU memory that transformer recipes train in, the smallest card for each, disk of a part: all computed."""
    from pipelines.footprint import memory_table
    from pipelines.output import print_table

    print_table(memory_table(names_of(names)), output)
