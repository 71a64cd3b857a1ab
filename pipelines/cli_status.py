"""The command that says how the jobs of a run stand."""

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import format_option, run_folder, run_option


@click.command()
@run_option
@click.option("--by", type=click.Choice(["job", "learner"]), default="job", show_default=True)
@click.option("--timings", is_flag=True, help="Seconds and peak memory of every stage instead.")
@format_option
def status(run_dir: Path, by: str, timings: bool, output: Any) -> None:
    """How every job stands and what remains; --by learner: folds done and to do, rows per second."""
    from pipelines.output import print_table, say
    from pipelines.status import job_lines, status_table, time_left
    from pipelines.timing import timing_table
    from pipelines.train import job_table

    run = run_folder(run_dir)
    if timings:
        print_table(timing_table(run), output)
    elif by == "learner":
        print_table(job_table(run), output)
    else:
        lines = job_lines(run)
        print_table(status_table(lines), output, whole=("detail",))
        say(time_left(lines))
