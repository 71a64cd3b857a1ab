"""Tables about a run's folds: what `split` prints."""

import pandas as pd

from competition.fold_report import fold_report
from pipelines.run_folder import RunFolder


def fold_tables(run: RunFolder) -> dict[str, pd.DataFrame]:
    """Title -> table, for every task of a run: rows, positives, groups and languages per fold; overlaps that remain."""
    tables: dict[str, pd.DataFrame] = {}
    for task in run.tasks():
        folds, train = run.folds(task.name), run.rows(task.name)["train"]
        report = fold_report(train, folds.align(train), plan=folds.plan, task=task)
        tables[f"{task.name}: folds by {folds.plan.kind}"] = report.folds
        tables[f"{task.name}: languages per fold"] = report.languages
        overlaps = report.overlaps
        tables[f"{task.name}: what held-out rows share with their training side"] = overlaps[
            overlaps["fold"] == "all"
        ].drop(columns="fold")
    return tables
