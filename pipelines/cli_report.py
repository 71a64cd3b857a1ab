"""The command that puts everything about a run on one page."""

from pathlib import Path

import click

from pipelines.cli_options import run_folder, run_option
from pipelines.report import N_ROWS


@click.command()
@run_option
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it; RUN/report.html if left out.")
@click.option("--rows", "n_rows", default=N_ROWS, show_default=True, help="Rows that the page takes along, at most.")
def report(run_dir: Path, out: Path | None, n_rows: int) -> None:
    """Write one HTML file with all there is to see of a run; it opens from disk and needs no network.

    Leaderboard, languages and folds, ensembles, thresholds, calibration, leaks and shift, time and memory, and a
    browser of rows with every model's score.
    """
    from pipelines.report.writing import report as make_report

    print(make_report(run_folder(run_dir), out=out, n_rows=n_rows))
