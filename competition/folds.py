"""Fold plans: which rows are held out together.

A group (rows that would give each other away: the same query, the same part of the category tree) never spans
two folds, and every fold holds about the same share of every stratum (language, label, ...). How groups are dealt
is in `competition.splitter`, what a plan keeps from training besides its held-out rows in `competition.dealing`, how
folds are saved in `competition.fold_store`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.categories import prefix
from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.language_folds import families, queries_in_language
from competition.mapping import GROUP
from competition.splitter import assign_groups
from competition.tasks import Task

MAX_SPLITS = 100  # folds are int8
MAX_NAMED = 5  # ids named in one fault


Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dealt:
    """Rows dealt into folds, and what their training sides go without.

    Attributes
    ----------
    fold, group
        ``(n_rows,)`` each, with the index of the rows: int8 "fold", text "group". No group spans two folds.
    withheld
        ``(n_rows, n_splits)``: the row is not held out in that fold, and not trained on either. None: no row is.
    """

    fold: pd.Series
    group: pd.Series
    withheld: Mask | None = None

    def training(self, fold: int) -> Mask:
        """Which rows are trained on for a fold, ``(n_rows,)``: neither held out nor withheld."""
        others = (self.fold != fold).to_numpy()
        return others if self.withheld is None else others & ~self.withheld[:, fold]


@dataclass(frozen=True)
class FoldPlan:
    """How rows are dealt into folds; the same rows and plan give the same folds, whatever the row order.

    Attributes
    ----------
    kind
        One of `GROUPINGS`, which says what a group is.

        - ``category-group``: the first `depth` levels of the target's category path.
        - ``query-group``: the query, normalised, in whatever language.
        - ``column-group``: the value of the column that the task's layout names.
        - ``purged``: groups of ``category-group``; rows that share a query (as written or in English) with held-out
          rows are withheld from training.
        - ``language-holdout``, ``family-holdout``: whole languages (or families, `competition.language_folds`) are
          dealt, each into one fold, so that every row is scored by models that know nothing of its language. Guaranteed
          is the language alone: the same query may be trained on in another language, and its target as well, as
          translation makes it possible for real. A group is the query in its language.
        - ``test-matched``: held-out rows share languages, queries and targets with their training side as often as
          test rows do with train (`competition.test_matching`). A group is the query in its language.
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
            raise CompetitionError("this fold plan cannot be", faults=faults, advice="see relstack split --help")

    def group(self, rows: pd.DataFrame, task: Task) -> pd.Series:
        """The group of every row, ``(n_rows,)`` text named "group".

        A plan that looks at other rows than these (test-matched) may divide some of them; `Dealt` has the last word.

        Raises
        ------
        CompetitionError
            The plan groups by category and the task's target is no category.
        """
        return GROUPINGS[self.kind](self, rows, task).rename("group")

    def assign(self, rows: pd.DataFrame, task: Task) -> pd.Series:
        """The fold of every row, ``(n_rows,)`` int8 named "fold", with the index of `rows`.

        No row is left out and no group spans two folds: that is guaranteed. Even shares of every stratum
        are an effort, and depend on the size of the groups. What a plan withholds from training is not told here, see
        `competition.dealing.deal`.

        Raises
        ------
        CompetitionError
            A row without a label, fewer groups than folds, a fold without both labels, or a plan that looks at
        other rows than these.
        """
        if self.kind == TEST_MATCHED:
            raise CompetitionError(
                f"the plan {self.kind} cannot deal rows without those that it matches them to",
                advice="take another plan: --plan query-group",
            )
        require_labels(rows)
        units = UNITS[self.kind](rows) if self.kind in UNITS else self.group(rows, task)
        codes, keys = pd.factorize(units, sort=True)
        if len(keys) < self.n_splits:
            noun = NOUNS.get(self.kind, "groups")
            found = f"{len(keys):,} {noun} make at most {len(keys)} folds, {self.n_splits} were asked for"
            raise CompetitionError(f"{task.name}: {found}", advice=self._advice(task))
        strata, _ = pd.factorize(task.stratum(rows), sort=True)
        fold_of_unit = assign_groups(codes, strata, n_splits=self.n_splits, seed=self.seed)
        folds = pd.Series(fold_of_unit[codes], index=rows.index, name="fold")
        self.require_both_labels(rows, folds, task=task, n_groups=len(keys))
        return folds

    def require_both_labels(self, rows: pd.DataFrame, folds: pd.Series, *, task: Task, n_groups: int) -> None:
        """Refuse folds that do not all hold rows of both labels; every such fold is named."""
        faults = []
        for fold in range(self.n_splits):
            labels = set(rows["label"][folds == fold].unique())
            if labels != {0, 1}:
                found = f"only rows labelled {labels.pop()}" if labels else "no rows"
                faults.append(Fault(f"fold {fold}", found, "rows of both labels"))
        if faults:
            noun = NOUNS.get(self.kind, "groups")
            summary = f"{task.name}: {n_groups:,} {noun} do not fill {self.n_splits} folds with both labels"
            raise CompetitionError(summary, faults=faults, advice=self._advice(task))

    def _advice(self, task: Task) -> str:
        if self.kind in UNITS:
            return f"take fewer folds, or another plan: --plan {task.name}=query-group"
        if self.kind in CATEGORY_KINDS and task.target_is_category:
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


def _column_groups(_plan: FoldPlan, rows: pd.DataFrame, task: Task) -> pd.Series:
    if GROUP not in rows:
        advice = "name it as columns.group in competition.toml, or take the plan query-group"
        raise CompetitionError(f"{task.name} has no column that groups its rows", advice=advice)
    return rows[GROUP]


def _language_queries(_plan: FoldPlan, rows: pd.DataFrame, _task: Task) -> pd.Series:
    return queries_in_language(rows)


PURGED, TEST_MATCHED = "purged", "test-matched"
CATEGORY_KINDS = ("category-group", PURGED)
GROUPINGS: dict[str, Callable[[FoldPlan, pd.DataFrame, Task], pd.Series]] = {
    "category-group": _category_groups,
    "query-group": _query_groups,
    "column-group": _column_groups,
    PURGED: _category_groups,
    "language-holdout": _language_queries,
    "family-holdout": _language_queries,
    TEST_MATCHED: _language_queries,
}
UNITS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "language-holdout": lambda rows: rows["language"],
    "family-holdout": families,
}
"""What is dealt whole, where that is more than a group."""
NOUNS = {"language-holdout": "languages", "family-holdout": "language families"}


def require_labels(rows: pd.DataFrame) -> None:
    """Refuse rows without a label; their ids are named."""
    unlabelled = rows["id"][rows["label"].isna()]
    if len(unlabelled):
        fault = Fault("label", f"{len(unlabelled):,} rows have none: {name_ids(unlabelled)}", "0 or 1")
        raise CompetitionError(
            "folds are dealt to labelled rows",
            faults=[fault],
            advice="label them, or move rows without a label to the dev or test file",
        )


def name_ids(ids: pd.Series) -> str:
    """The first few ids, for a message.

    Examples
    --------
    >>> name_ids(pd.Series([3, 1, 4, 1, 5, 9]))
    'id 3, 1, 4, 1, 5, ...'
    """
    tail = ", ..." if len(ids) > MAX_NAMED else ""
    return "id " + ", ".join(str(found) for found in ids[:MAX_NAMED]) + tail
