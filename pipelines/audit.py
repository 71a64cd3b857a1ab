"""Tables about a competition's files and a run's folds: what `check` and `split` print."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from competition.adversarial import adversarial_validation
from competition.cleaning import duplicate_report
from competition.fold_report import compare_overlaps, fold_report, split_overlaps
from competition.folds import TEST_MATCHED
from competition.plan_choice import judged_split
from competition.rows import read_competition
from competition.tasks import get_task
from competition.test_matching import match_table
from pipelines.run_folder import RunFolder

N_FEATURES = 15


def audit(folder: Path, tasks: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Title -> table, for every task of a data folder: sizes, labels, languages, duplicates, overlaps.

    Raises
    ------
    CompetitionError
        The files have faults; every one is named with file and line.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name, splits in read_competition(folder, [get_task(task) for task in tasks]).items():
        task = get_task(name)
        tables[f"{name}: rows"] = pd.DataFrame([_sizes(split, rows) for split, rows in splits.items()])
        tables[f"{name}: rows per language"] = _languages(splits)
        duplicates = [_duplicates(split, rows) for split, rows in splits.items()]
        tables[f"{name}: repeated pairs"] = pd.DataFrame(duplicates)
        conflicts = duplicate_report(splits["train"].fillna({"target": ""})).conflicts
        if len(conflicts):
            tables[f"{name}: pairs of train with both labels"] = conflicts
        filled = {split: rows.fillna({"target": ""}) for split, rows in splits.items()}
        for split in splits:
            if split != "train":
                overlaps = split_overlaps(filled["train"], filled[split], task=task)
                tables[f"{name}: what {split} shares with train"] = overlaps
    return tables


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


def _sizes(split: str, rows: pd.DataFrame) -> dict[str, object]:
    labelled = rows["label"].notna()
    return {
        "split": split,
        "rows": len(rows),
        "queries": rows["query"].nunique(),
        "targets": rows["target"].nunique(),
        "languages": rows["language"].nunique(),
        "null_targets": int(rows["target"].isna().sum()),
        "empty_queries": int((rows["query"].str.strip() == "").sum()),
        "labelled": int(labelled.sum()),
        "positive_rate": float(rows.loc[labelled, "label"].mean()) if labelled.any() else None,
    }


def _languages(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    counts = {split: rows["language"].value_counts() for split, rows in splits.items()}
    table = pd.DataFrame(counts).fillna(0).astype(int).rename_axis("language").reset_index()
    return table.assign(in_train=table["train"] > 0)


def _duplicates(split: str, rows: pd.DataFrame) -> dict[str, object]:
    report = duplicate_report(rows.fillna({"target": ""}))
    counts = {key: value for key, value in vars(report).items() if key.startswith("n_")}
    return {"split": split, **counts}
