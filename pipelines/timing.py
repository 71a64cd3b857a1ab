"""Seconds and peak memory of every stage of a run, kept in its ``timings.csv``."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import SEEK_END
from pathlib import Path

import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.regular_files import read_bytes
from pipelines.failures import naming_failures
from pipelines.progress import measured
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

COLUMNS = ("stage", "seconds", "peak_mb")
MOST_BYTES = 2**28


@contextmanager
def timed(run: RunFolder, stage: str) -> Iterator[None]:
    """Measure a stage and append a line to ``timings.csv``; a stage that failed leaves none.

    Raises
    ------
    CompetitionError
        The stage failed for want of disk, memory or permission; see `pipelines.failures`.
    """
    with naming_failures(stage, run.root):
        with measured() as so_far:
            yield
            seconds, peak = so_far()
        log.info("%s: %.1f s, peak %.0f MB", stage, seconds, peak)
        _append(run.timings_file, f"{stage},{seconds:.2f},{peak:.0f}\n")


def _append(path: Path, line: str) -> None:
    """Add a line in one write, so that lines of several processes do not mix; after a torn one it is a new line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, SEEK_END)
        file.seek(max(size - 1, 0))
        begin = ",".join(COLUMNS) + "\n" if size == 0 else "" if file.read(1) == b"\n" else "\n"
        file.write((begin + line).encode())


def timing_table(run: RunFolder) -> pd.DataFrame:
    """Per stage (the folds of a base learner together): times it ran, seconds in all, greatest peak."""
    if not run.timings_file.is_file():
        return pd.DataFrame(columns=["stage", "runs", "seconds", "peak_mb"])
    table = read_timings(run.timings_file)
    table["stage"] = table["stage"].str.replace(r"/fold-\d+$", "", regex=True)
    grouped = table.groupby("stage", sort=False)
    return grouped.agg(runs=("seconds", "size"), seconds=("seconds", "sum"), peak_mb=("peak_mb", "max")).reset_index()


def read_timings(path: Path) -> pd.DataFrame:
    """The lines of ``timings.csv``: stage, seconds, peak_mb; those that a kill left half-written are passed over.

    Raises
    ------
    CompetitionError
        It is no file, or cannot be read.
    """
    try:
        text = read_bytes(path, most=MOST_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        fault = Fault(str(path), str(error), "a readable file")
        raise CompetitionError(
            "the timings cannot be read", faults=[fault], advice="delete it: nothing needs it"
        ) from error
    lines = [line.split(",") for line in text.splitlines()]
    whole = [cells for cells in lines if len(cells) == len(COLUMNS)]
    table = pd.DataFrame(whole, columns=list(COLUMNS), dtype="str")
    for name in COLUMNS[1:]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table.dropna(ignore_index=True)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds.

    Examples
    --------
    >>> duration(3725), duration(65), duration(9.6)
    ('1 h 2 min', '1 min 5 s', '10 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
