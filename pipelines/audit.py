"""Tables about a run's folds: what `split` prints."""

import pandas as pd

from competition.adversarial import adversarial_validation
from competition.fold_report import compare_overlaps, fold_report
from competition.folds import TEST_MATCHED
from competition.plan_choice import judged_split
from competition.test_matching import match_table
from pipelines.run_folder import RunFolder

N_FEATURES = 15


def fold_tables(run: RunFolder) -> dict[str, pd.DataFrame]:
    """Title -> table, for every task of a run: rows, positives, groups and languages per fold; overlaps that remain."""
    tables: dict[str, pd.DataFrame] = {}
    for task in run.tasks():
        folds, rows = run.folds(task.name), run.rows(task.name)
        dealt = folds.dealt(rows["train"])
        report = fold_report(rows["train"], dealt, plan=folds.plan, task=task)
        tables[f"{task.name}: folds by {folds.plan.kind}"] = report.folds
        tables[f"{task.name}: languages per fold"] = report.languages
        title = f"{task.name}: what held-out rows share with their training side, and dev and test with train"
        tables[title] = compare_overlaps(report, rows, task=task)
        judged = judged_split(rows)
        if folds.plan.kind == TEST_MATCHED and judged is not None:
            tables[f"{task.name}: folds matched to {judged}"] = match_table(rows["train"], dealt, like=rows[judged])
    return tables


def adversarial_tables(run: RunFolder) -> dict[str, pd.DataFrame]:
    """Title -> table, for every task of a run with a test or dev file: what tells its rows from held-out rows.

    The first table is the AUC with its interval, .5 where nothing does; see `competition.adversarial`.
    """
    tables: dict[str, pd.DataFrame] = {}
    for task in run.tasks():
        rows = run.rows(task.name)
        judged = judged_split(rows)
        if judged is None:
            continue
        dealt = run.folds(task.name).dealt(rows["train"])
        found = adversarial_validation(rows["train"], rows[judged], task=task, dealt=dealt, seed=run.settings().seed)
        title = f"{task.name}: {judged} against held-out rows"
        tables[f"{title}, AUC"] = pd.DataFrame([vars(found.auc)])
        tables[f"{title}, by kind of feature"] = found.blocks
        tables[f"{title}, features"] = found.features.head(N_FEATURES)
        tables[f"{title}, words"] = found.words
        tables[f"{title}, languages"] = found.languages
    return tables
