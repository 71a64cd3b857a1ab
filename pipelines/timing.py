"""Seconds and peak memory of every stage of a run, kept in its ``timings.csv``."""

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.regular_files import refuse_irregular
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
    table = read_timings(run.timings_file)
    table["stage"] = table["stage"].str.replace(r"/fold-\d+$", "", regex=True)
    grouped = table.groupby("stage", sort=False)
    return grouped.agg(runs=("seconds", "size"), seconds=("seconds", "sum"), peak_mb=("peak_mb", "max")).reset_index()


def read_timings(path: Path) -> pd.DataFrame:
    """The lines of ``timings.csv``: stage, seconds, peak_mb.

    Raises
    ------
    CompetitionError
        It is not such a file: every faulty line is named.
    """
    faults: list[Fault] = []
    lines: list[tuple[str, float, float]] = []
    try:
        refuse_irregular(path)
        with path.open(encoding="utf-8", newline="") as file:
            header, *records = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        header, records = [*COLUMNS], []
        faults.append(Fault(str(path), str(error), "a readable UTF-8 CSV file"))
    if header != [*COLUMNS]:
        faults.append(Fault(f"{path}:1", f"the columns are {','.join(header)[:80]}", ",".join(COLUMNS)))
    for number, cells in enumerate(records, start=2):
        try:
            stage, seconds, peak = cells
            lines.append((stage, float(seconds), float(peak)))
        except ValueError:
            faults.append(Fault(f"{path}:{number}", f"{','.join(cells)[:80]}", "a stage and two numbers"))
    if faults:
        raise CompetitionError(
            "the timings cannot be read", faults=faults, advice="delete the file: nothing else needs it"
        )
    return pd.DataFrame(lines, columns=[*COLUMNS])
