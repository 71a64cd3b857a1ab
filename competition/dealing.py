"""Dealing: a plan, and rows that may be test's, become folds with all that their training sides go without."""

import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.folds import PURGED, TEST_MATCHED, Dealt, FoldPlan
from competition.purging import purged_rows
from competition.tasks import Task
from competition.test_matching import match_rows


def deal(plan: FoldPlan, rows: pd.DataFrame, *, task: Task, like: pd.DataFrame | None = None) -> Dealt:
    """The folds of the labelled `rows` by `plan`; the same for every order of rows.

    Parameters
    ----------
    rows
        With `query_en` where there are translations: queries are the same in English too.
    like
        Rows of test (or dev), for a plan that matches them; their labels are not looked at.

    Raises
    ------
    CompetitionError
        As `FoldPlan.assign`; or a training side without both labels, or a plan without the rows that it matches.
    """
    if plan.kind == TEST_MATCHED:
        if like is None:
            advice = "give a dev or test file, or take another plan"
            raise CompetitionError(
                f"{task.name}: the plan {plan.kind} has no rows of dev or test to match", advice=advice
            )
        dealt = match_rows(plan, rows, task=task, like=like)
    else:
        folds = plan.assign(rows, task)
        withheld = purged_rows(rows, folds, n_splits=plan.n_splits) if plan.kind == PURGED else None
        dealt = Dealt(folds, plan.group(rows, task), withheld)
    _require_training(plan, rows, dealt, task=task)
    return dealt


def _require_training(plan: FoldPlan, rows: pd.DataFrame, dealt: Dealt, *, task: Task) -> None:
    faults = []
    for fold in range(plan.n_splits):
        labels = rows["label"][dealt.training(fold)]
        if labels.nunique() < 2:
            found = f"{len(labels):,} rows, {labels.nunique()} different labels"
            faults.append(Fault(f"fold {fold}, training side", found, "rows of both labels"))
    if faults:
        summary = f"{task.name}: the plan {plan.kind} leaves too little to train on"
        raise CompetitionError(summary, faults=faults, advice=f"take another plan: --plan {task.name}=query-group")
