"""Submission files beside the rows of a run: what they are for, whether they are right, where two of them differ."""

from pathlib import Path

import pandas as pd

from competition.errors import CompetitionError
from competition.tasks import Task
from pipelines.run_folder import RunFolder
from submissions.compare import compare, read_predictions
from submissions.validate import Validation, validate_files


def submitted_rows(run: RunFolder, split: str | None, task: str | None) -> tuple[dict[str, pd.DataFrame], list[Task]]:
    """Rows by task name of the split that a submission is for, and the tasks that have it; of one task if named."""
    found = {}
    for each in run.tasks_named(task):
        there = [name for name in ([split] if split else ["test", "dev"]) if name in run.splits(each.name)]
        if there:
            found[each.name] = run.rows(each.name)[there[0]]
    if not found:
        words = f"the run has no {split or 'dev or test'} rows to compare with"
        raise CompetitionError(words, advice="name another split, or task")
    return found, [run.task(name) for name in found]


def validate_submission(run: RunFolder, path: Path, *, split: str | None = None, task: str | None = None) -> Validation:
    """What was checked of a folder, zip, text or CSV; a CompetitionError names all that is wrong."""
    rows, tasks = submitted_rows(run, split, task)
    return validate_files(path, rows, tasks)


def compare_submissions(
    run: RunFolder, first: Path, second: Path, *, split: str | None = None, task: str | None = None
) -> pd.DataFrame:
    """Where two submissions differ, in total and per language, for every task."""
    rows, tasks = submitted_rows(run, split, task)
    tables = []
    for each in tasks:
        a, b = (read_predictions(path, each) for path in (first, second))
        tables.append(compare(a, b, rows[each.name]).assign(task=each.name))
    return pd.concat(tables, ignore_index=True)
