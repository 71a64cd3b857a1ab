"""Seconds and peak memory of every stage of a run, kept in its ``timings.csv``."""

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from pipelines.progress import measured
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

COLUMNS = ("stage", "seconds", "peak_mb")


@contextmanager
def timed(run: RunFolder, stage: str) -> Iterator[None]:
    """Measure a stage and append a line to ``timings.csv``; a stage that failed leaves none."""
    with measured() as so_far:
        yield
        seconds, peak = so_far()
    log.info("%s: %.1f s, peak %.0f MB", stage, seconds, peak)
    new = not run.timings_file.exists()
    run.root.mkdir(parents=True, exist_ok=True)
    with run.timings_file.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([stage, f"{seconds:.2f}", f"{peak:.0f}"])


def timing_table(run: RunFolder) -> pd.DataFrame:
    """Per stage (the folds of a base learner together): times it ran, seconds in all, greatest peak."""
    if not run.timings_file.is_file():
        return pd.DataFrame(columns=["stage", "runs", "seconds", "peak_mb"])
    table = pd.read_csv(run.timings_file)
    table["stage"] = table["stage"].str.replace(r"/fold-\d+$", "", regex=True)
    grouped = table.groupby("stage", sort=False)
    return grouped.agg(runs=("seconds", "size"), seconds=("seconds", "sum"), peak_mb=("peak_mb", "max")).reset_index()
