"""Options that several commands share; no command is defined here, so that every file of commands may import it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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


def set_option(command: Command) -> Command:
    """--set key=value, several times."""
    words = "Override a recipe key: key=value, or MODEL:key=value for one base learner. Repeatable."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=words)(command)
