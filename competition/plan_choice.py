"""Which fold plan makes out-of-fold rows look like the rows that the leaderboard scores."""

from collections.abc import Mapping

import pandas as pd

from competition.fold_report import split_overlaps
from competition.tasks import Task

SHARED_TARGETS = 0.5


def choose_plan(rows: Mapping[str, pd.DataFrame], task: Task) -> tuple[str, str]:
    """The fold plan's kind for a task, and the reason in words; labels are not looked at.

    A category-group plan asks how well a model does on categories that it has never seen. Where most rows of test
    (or dev) have targets that stand in train, that is the wrong question: its scores are too low, and the threshold
    chosen on them too. Then folds are grouped by query; otherwise the task's own plan is taken.

    Parameters
    ----------
    rows
        Split -> rows; without dev and test the task's default plan is taken.
    """
    judged = judged_split(rows)
    if not task.target_is_category or task.layout.group or judged is None:
        return task.default_plan, "the task's default"
    table = split_overlaps(rows["train"], rows[judged], task=task).set_index("key")
    share = float(str(table.loc["target", "share"]))
    words = f"{share:.0%} of the {judged} rows have a target that stands in train"
    return ("query-group", words) if share > SHARED_TARGETS else (task.default_plan, words)


def judged_split(rows: Mapping[str, pd.DataFrame]) -> str | None:
    """The split that out-of-fold rows should look like: test, or dev without a test, or None without either.

    Examples
    --------
    >>> judged_split({"train": pd.DataFrame(), "dev": pd.DataFrame()})
    'dev'
    """
    return next((split for split in ("test", "dev") if split in rows), None)
