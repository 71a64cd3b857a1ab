"""Fold plans: which rows are held out together.

A group (rows that would give each other away: the same query, the same part of the category tree) never spans
two folds, and every fold holds about the same share of every stratum (language, label, ...). How groups are dealt
is in `competition.splitter`, how folds are saved in `competition.fold_store`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from competition.categories import prefix
from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.splitter import assign_groups
from competition.tasks import Task

MAX_SPLITS = 100  # folds are int8
MAX_NAMED = 5  # ids named in one fault


@dataclass(frozen=True)
class FoldPlan:
    """How rows are dealt into folds; the same rows and plan give the same folds, whatever the row order.

    Attributes
    ----------
    kind
        What a group is, one of `GROUPINGS`: ``category-group`` (the first `depth` levels of the target's
        category path) or ``query-group`` (the query, normalised, in whatever language).
    n_splits
        Number of folds, 2 to `MAX_SPLITS`.
    seed
        Orders groups that are alike; another seed gives other folds of the same quality.
    depth
        Levels of the category path that make a group (category-group only).
    """

    kind: str
    n_splits: int = 5
    seed: int = 0
    depth: int = 3

    def __post_init__(self) -> None:
        faults = []
        if self.kind not in GROUPINGS:
            faults.append(Fault("kind", repr(self.kind), f"one of {', '.join(GROUPINGS)}"))
        if not 2 <= self.n_splits <= MAX_SPLITS:
            faults.append(Fault("n_splits", str(self.n_splits), f"2 to {MAX_SPLITS}"))
        if self.depth < 1:
            faults.append(Fault("depth", str(self.depth), "1 or more"))
        if self.seed < 0:
            faults.append(Fault("seed", str(self.seed), "0 or more"))
        if faults:
            raise CompetitionError("this fold plan cannot be", faults=faults)

    def group(self, rows: pd.DataFrame, task: Task) -> pd.Series:
        """The group of every row, ``(n_rows,)`` text named "group".

        Raises
        ------
        CompetitionError
            The plan groups by category and the task's target is no category.
        """
        return GROUPINGS[self.kind](self, rows, task).rename("group")

    def assign(self, rows: pd.DataFrame, task: Task) -> pd.Series:
        """The fold of every row, ``(n_rows,)`` int8 named "fold", with the index of `rows`.

        No row is left out and no group spans two folds: that is guaranteed. Even shares of every stratum
        are an effort, and depend on the size of the groups.

        Raises
        ------
        CompetitionError
            A row without a label, fewer groups than folds, or a fold without both labels.
        """
        _require_labels(rows)
        groups, keys = pd.factorize(self.group(rows, task), sort=True)
        if len(keys) < self.n_splits:
            found = f"{len(keys):,} groups make at most {len(keys)} folds, {self.n_splits} were asked for"
            raise CompetitionError(f"{task.name}: {found}", advice=self._advice(task))
        strata, _ = pd.factorize(task.stratum(rows), sort=True)
        fold_of_group = assign_groups(groups, strata, n_splits=self.n_splits, seed=self.seed)
        folds = pd.Series(fold_of_group[groups], index=rows.index, name="fold")
        self._require_both_labels(rows, folds, task=task, n_groups=len(keys))
        return folds

    def _require_both_labels(self, rows: pd.DataFrame, folds: pd.Series, *, task: Task, n_groups: int) -> None:
        faults = []
        for fold in range(self.n_splits):
            labels = set(rows["label"][folds == fold].unique())
            if labels != {0, 1}:
                found = f"only rows labelled {labels.pop()}" if labels else "no rows"
                faults.append(Fault(f"fold {fold}", found, "rows of both labels"))
        if faults:
            summary = f"{task.name}: {n_groups:,} groups do not fill {self.n_splits} folds with both labels"
            raise CompetitionError(summary, faults=faults, advice=self._advice(task))

    def _advice(self, task: Task) -> str:
        if self.kind == "category-group" and task.target_is_category:
            return "take fewer folds, another depth (deeper: more and smaller groups) or the plan query-group"
        return "take fewer folds"


def _category_groups(plan: FoldPlan, rows: pd.DataFrame, task: Task) -> pd.Series:
    if not task.target_is_category:
        raise CompetitionError(
            f"the plan {plan.kind} groups by category, and the target {task.target} of {task.name} is none",
            advice="take the plan query-group",
        )
    return map_distinct(rows["target"], lambda path: prefix(path, plan.depth))


def _query_groups(_plan: FoldPlan, rows: pd.DataFrame, _task: Task) -> pd.Series:
    return map_distinct(rows["query"], normalise_query)


GROUPINGS: dict[str, Callable[[FoldPlan, pd.DataFrame, Task], pd.Series]] = {
    "category-group": _category_groups,
    "query-group": _query_groups,
}


def _require_labels(rows: pd.DataFrame) -> None:
    unlabelled = rows["id"][rows["label"].isna()]
    if len(unlabelled):
        fault = Fault("label", f"{len(unlabelled):,} rows have none: {name_ids(unlabelled)}", "0 or 1")
        raise CompetitionError("folds are dealt to labelled rows", faults=[fault])


def name_ids(ids: pd.Series) -> str:
    """The first few ids, for a message.

    Examples
    --------
    >>> name_ids(pd.Series([3, 1, 4, 1, 5, 9]))
    'id 3, 1, 4, 1, 5, ...'
    """
    tail = ", ..." if len(ids) > MAX_NAMED else ""
    return "id " + ", ".join(str(found) for found in ids[:MAX_NAMED]) + tail
