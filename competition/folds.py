"""Folds: which rows are held out together. Assigned once, saved with a digest, read by every later stage.

A group (rows that would give each other away: the same query, the same part of the category tree) never spans
two folds, and every fold holds about the same share of every stratum (language, label, ...).
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import itemgetter, mul
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from competition.categories import prefix
from competition.cleaning import normalise_query
from competition.errors import CompetitionError, Fault, MismatchError
from competition.tasks import Task

MAX_SPLITS = 100  # folds are int8
MAX_NAMED = 5  # ids named in one fault

# The evenness of whole rows counts as much as this share of all strata together. Beside scikit-learn, on 25
# made-up skewed sets: at 0 the rows per fold are 1.4 times as uneven as theirs, at .05 a third as uneven;
# the strata .99 as uneven either way.
ROWS_WEIGHT = 0.05
REFINE_PASSES = 8
REFINE_MOVES = 2_000  # groups tried in one pass
LEAST_GAIN = 1e-12  # below this a move only chases rounding


def map_distinct(texts: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """`function` of every text, called once per distinct text; index kept, dtype str.

    Examples
    --------
    >>> map_distinct(pd.Series(["b", "a", "b"]), str.upper).tolist()
    ['B', 'A', 'B']
    """
    codes, distinct = pd.factorize(texts)
    mapped = pd.array([function(text) for text in distinct], dtype="str")
    return pd.Series(mapped.take(codes), index=texts.index)


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

    def _require_both_labels(
        self, rows: pd.DataFrame, folds: pd.Series, *, task: Task, n_groups: int
    ) -> None:
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
        fault = Fault("label", f"{len(unlabelled):,} rows have none: {_name(unlabelled)}", "0 or 1")
        raise CompetitionError("folds are dealt to labelled rows", faults=[fault])


def _name(ids: pd.Series) -> str:
    """The first few ids, for a message."""
    tail = ", ..." if len(ids) > MAX_NAMED else ""
    return "id " + ", ".join(str(found) for found in ids[:MAX_NAMED]) + tail


# The splitter


_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _GroupCounts:
    """Rows per group and stratum, sparse: group g owns the entries ``start[g]:start[g + 1]``.

    The last stratum stands for all rows, so that rows per fold are evened out like any other stratum.
    """

    start: npt.NDArray[np.int64]  # (n_groups + 1,)
    strata: npt.NDArray[np.int64]  # (n_entries,)
    counts: npt.NDArray[np.int64]  # (n_entries,)
    totals: npt.NDArray[np.int64]  # (n_strata + 1,) rows of every stratum
    weights: _Floats  # (n_strata + 1,) what the evenness of a stratum is worth

    @property
    def n_groups(self) -> int:
        return len(self.start) - 1


def assign_groups(
    group_codes: npt.NDArray[np.integer[Any]],
    stratum_codes: npt.NDArray[np.integer[Any]],
    *,
    n_splits: int,
    seed: int,
) -> npt.NDArray[np.int8]:
    """The fold of every group, ``(n_groups,)``, so that every fold holds an even share of every stratum.

    Greedy in the manner of scikit-learn's ``StratifiedGroupKFold`` (after a notebook by Jakub Wasikowski):
    groups with the widest spread of counts first, each to the fold where it adds least unevenness. Ours
    counts sparsely and updates instead of recomputing, weighs the number of rows in, and then moves single
    groups for as long as that helps. Time grows with the number of (group, stratum) pairs times `n_splits`.
    Fewer groups than folds leave folds empty.

    Parameters
    ----------
    group_codes, stratum_codes
        ``(n_rows,)``, codes 0 to n - 1 without gaps, as `pandas.factorize` gives them.

    Examples
    --------
    >>> groups, strata = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 0, 1, 1, 0, 1])
    >>> folds = assign_groups(groups, strata, n_splits=2, seed=0)
    >>> bool(folds[0] != folds[2]), bool(folds[1] != folds[3])
    (True, True)
    """
    table = _count(group_codes, stratum_codes)
    return _refine(table, _deal(table, n_splits, seed=seed), n_splits)


def _count(groups: npt.NDArray[np.integer[Any]], strata: npt.NDArray[np.integer[Any]]) -> _GroupCounts:
    sizes = np.bincount(groups)
    assert sizes.all(), "group codes have gaps"
    n_groups, width = len(sizes), int(strata.max()) + 2
    keys, counts = np.unique(groups.astype(np.int64) * width + strata, return_counts=True)
    keys = np.concatenate([keys, np.arange(n_groups) * width + width - 1])
    order = np.argsort(keys, kind="stable")
    group_of_entry, stratum_of_entry = np.divmod(keys[order], width)
    counts = np.concatenate([counts, sizes])[order]
    return _GroupCounts(
        start=np.searchsorted(group_of_entry, np.arange(n_groups + 1)),
        strata=stratum_of_entry,
        counts=counts,
        totals=np.append(np.bincount(strata), len(strata)),
        weights=np.append(np.ones(width - 1), max(1.0, ROWS_WEIGHT * (width - 1))),
    )


def _widest_first(table: _GroupCounts, *, seed: int) -> list[int]:
    """Groups by falling variance of their counts over all strata (exact integers), shuffled among equals."""
    sizes = table.counts[table.start[1:] - 1]
    squares = np.add.reduceat(table.counts**2, table.start[:-1]) - sizes**2
    variance = squares * (len(table.totals) - 1) - sizes**2
    shuffled = np.random.default_rng(seed).permutation(table.n_groups)
    order: list[int] = shuffled[np.argsort(-variance[shuffled], kind="stable")].tolist()
    return order


def _deal(table: _GroupCounts, n_splits: int, *, seed: int) -> npt.NDArray[np.int8]:
    """Each group to the fold where the sum over strata of squared shares grows least.

    Counts c added to a fold that holds n add 2nc + c^2 to a square; c^2 is the same for every fold, so the
    fold with the least sum of n * c / total^2 wins. Plain lists: the groups are far too small for arrays.
    """
    pulls = (table.counts * (table.weights / np.maximum(table.totals, 1) ** 2)[table.strata]).tolist()
    start, strata, counts = table.start.tolist(), table.strata.tolist(), table.counts.tolist()
    loads = [[0] * len(table.totals) for _ in range(n_splits)]
    folds = [0] * table.n_groups
    for group in _widest_first(table, seed=seed):
        entries = slice(start[group], start[group + 1])
        mine, pull = strata[entries], pulls[entries]
        held = itemgetter(*mine)
        costs = [sum(map(mul, pull, held(load))) for load in loads]
        folds[group] = best = costs.index(min(costs))
        for stratum, count in zip(mine, counts[entries], strict=True):
            loads[best][stratum] += count
    return np.array(folds, dtype=np.int8)


def _refine(table: _GroupCounts, folds: npt.NDArray[np.int8], n_splits: int) -> npt.NDArray[np.int8]:
    """`folds` after moving single groups while that lowers the mean over strata of the std over folds."""
    folds = folds.copy()
    group_of_entry = np.repeat(np.arange(table.n_groups), np.diff(table.start))
    cells = table.strata * n_splits + folds[group_of_entry]
    loads: _Floats = np.zeros(len(table.totals) * n_splits)
    np.add.at(loads, cells, table.counts)
    loads = loads.reshape(-1, n_splits)
    for _ in range(REFINE_PASSES):
        gains = _best_gains(table, loads, folds[group_of_entry])
        tried = np.argsort(-gains, kind="stable")[:REFINE_MOVES]
        if not _move(table, loads, folds, tried[gains[tried] > LEAST_GAIN]):
            break
    return folds


def _best_gains(table: _GroupCounts, loads: _Floats, fold_of_entry: npt.NDArray[np.int8]) -> _Floats:
    """What the best single move of every group would gain, ``(n_groups,)``, were it the only one."""
    here, spread = loads[table.strata, fold_of_entry], _spread(loads)[table.strata]
    scale = (table.weights / np.maximum(table.totals, 1))[table.strata]
    best = np.zeros(table.n_groups)
    for fold in range(loads.shape[1]):  # fold by fold, to keep the memory down
        step = loads[table.strata, fold] - here + table.counts
        losses = scale * _std_growth(spread, table.counts * step, loads.shape[1])
        losses[fold_of_entry == fold] = 0.0
        np.maximum(best, -np.add.reduceat(losses, table.start[:-1]), out=best)
    return best


def _move(
    table: _GroupCounts, loads: _Floats, folds: npt.NDArray[np.int8], groups: npt.NDArray[np.int64]
) -> int:
    """Number of `groups` moved, each to its best fold as things stand by then; writes `loads` and `folds`."""
    n_moved = 0
    for group in groups.tolist():
        entries = slice(int(table.start[group]), int(table.start[group + 1]))
        strata, counts, old = table.strata[entries], table.counts[entries, None], int(folds[group])
        near = loads[strata]
        steps = counts * (near - near[:, [old]] + counts)
        scale = table.weights[strata] / table.totals[strata]
        losses = scale @ _std_growth(_spread(near)[:, None], steps, loads.shape[1])
        losses[old] = 0.0
        new = int(losses.argmin())
        if losses[new] < -LEAST_GAIN:
            loads[strata, old] -= counts[:, 0]
            loads[strata, new] += counts[:, 0]
            folds[group] = new
            n_moved += 1
    return n_moved


def _spread(loads: _Floats) -> _Floats:
    """(n_splits * std)^2 of every row of `loads`: whole numbers, so exact."""
    spread: _Floats = loads.shape[1] * (loads**2).sum(axis=1) - loads.sum(axis=1) ** 2
    return spread


def _std_growth(spread: _Floats, steps: _Floats, n_splits: int) -> _Floats:
    """Growth of the std over folds when c rows leave a fold of a for one of b: `steps` is c * (b - a + c)."""
    growth: _Floats = (np.sqrt(spread + 2 * n_splits * steps) - np.sqrt(spread)) / n_splits
    return growth


# Folds on disk


@dataclass(frozen=True, eq=False)
class Folds:
    """Saved folds: one value, its rows in the order of the file (RangeIndex).

    Attributes
    ----------
    task
        Name of the task.
    ids, fold, group
        ``(n_rows,)`` each: row id, int8 fold, text group.
    rows_digest
        Digest of the rows that were dealt.
    digest
        Digest of plan, ids, folds and groups (`digest_folds`): what later stages record and compare.
    """

    task: str
    plan: FoldPlan
    ids: pd.Series
    fold: pd.Series
    group: pd.Series
    rows_digest: str
    digest: str

    def __post_init__(self) -> None:
        faults = []
        if not self.ids.is_unique:
            faults.append(Fault("ids", f"repeated: {_name(self.ids[self.ids.duplicated()])}", "each id once"))
        if not self.fold.between(0, self.plan.n_splits - 1).all():
            found = f"{self.fold.min()} to {self.fold.max()}"
            faults.append(Fault("fold", found, f"0 to {self.plan.n_splits - 1}"))
        pairs = pd.DataFrame({"group": self.group, "fold": self.fold}).drop_duplicates()
        spanning = pairs["group"][pairs["group"].duplicated()].unique()
        if len(spanning):
            found = f"{len(spanning):,} span several folds, first {spanning[0]!r}"
            faults.append(Fault("groups", found, "one fold per group"))
        if faults:
            raise CompetitionError(f"{self.task}: these folds cannot be", faults=faults)

    def align(self, rows: pd.DataFrame) -> pd.Series:
        """The fold of every row of `rows`, found by id: int8 named "fold", with the index of `rows`.

        Raises
        ------
        MismatchError
            A row has no fold, or a fold's row is not there.
        """
        faults = _id_faults(saved=self.ids, given=rows["id"])
        if faults:
            summary = f"{self.task}: the saved folds are of other rows"
            raise MismatchError(summary, faults=faults, advice="use the rows that the folds were dealt from")
        places = pd.Index(self.ids).get_indexer(pd.Index(rows["id"]))
        return pd.Series(self.fold.to_numpy()[places], index=rows.index, name="fold")


def digest_folds(plan: FoldPlan, *, ids: pd.Series, fold: pd.Series, group: pd.Series) -> str:
    """Digest, 16 hex digits, of the plan and of every row's id, fold and group, in this order of rows."""
    payload = orjson.dumps([asdict(plan), ids.tolist(), fold.tolist(), group.tolist()])
    return hashlib.sha256(payload).hexdigest()[:16]


def save_folds(
    folder: Path,
    name: str,
    *,
    rows: pd.DataFrame,
    folds: pd.Series,
    plan: FoldPlan,
    task: Task,
    rows_digest: str,
) -> Folds:
    """The folds now in `folder`: ``<name>.parquet`` (id, fold, group), then its manifest ``<name>.json``.

    Saving the same folds again writes nothing. A Parquet file without a manifest does not count.

    Raises
    ------
    MismatchError
        Others are saved there already; the faults say how they differ.
    """
    assert folds.index.equals(rows.index), "folds and rows are not aligned"
    columns = {"ids": rows["id"], "fold": folds.astype("int8"), "group": plan.group(rows, task)}
    columns = {key: column.reset_index(drop=True) for key, column in columns.items()}
    digest = digest_folds(plan, **columns)
    new = Folds(task=task.name, plan=plan, rows_digest=rows_digest, digest=digest, **columns)
    if (folder / f"{name}.json").exists():
        _require_same(load_folds(folder, name), new, where=folder / f"{name}.json")
        return new
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"id": new.ids, "fold": new.fold, "group": new.group})
    _write(folder / f"{name}.parquet", lambda path: table.to_parquet(path, index=False))
    manifest = json.dumps(_manifest(new, rows), indent=2) + "\n"
    _write(folder / f"{name}.json", lambda path: path.write_text(manifest, encoding="utf-8"))
    return new


def load_folds(folder: Path, name: str) -> Folds:
    """The folds saved as `name`, verified against their digest.

    Raises
    ------
    CompetitionError
        They are not there, or a file was changed since it was written.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise CompetitionError(f"no folds are saved as {path}", advice="split the rows first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        table = pd.read_parquet(path.with_suffix(".parquet"))
        found = {"ids": table["id"], "fold": table["fold"], "group": table["group"]}
        plan = FoldPlan(**manifest["plan"])
        task, rows_digest, digest = (manifest[key] for key in ("task", "rows_digest", "folds_digest"))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        CompetitionError,
    ) as error:  # ValueError: not JSON, not Parquet
        raise _damaged(path, found=f"unreadable: {error}") from error
    if digest_folds(plan, **found) != digest:
        raise _damaged(path, found="plan or rows do not have the digest in the manifest")
    return Folds(task=task, plan=plan, rows_digest=rows_digest, digest=digest, **found)


def _manifest(folds: Folds, rows: pd.DataFrame) -> dict[str, Any]:
    n_splits = folds.plan.n_splits
    positive = (rows["label"] == 1).fillna(False).to_numpy(dtype=bool)
    counts = {
        "rows": len(folds.ids),
        "groups": int(folds.group.nunique()),
        "rows_per_fold": np.bincount(folds.fold, minlength=n_splits).tolist(),
        "positives_per_fold": np.bincount(folds.fold[positive], minlength=n_splits).tolist(),
    }
    versions = {package: importlib.metadata.version(package) for package in ("numpy", "pandas", "relstack")}
    return {
        "task": folds.task,
        "plan": asdict(folds.plan),
        "rows_digest": folds.rows_digest,
        "folds_digest": folds.digest,
        "counts": counts,
        "versions": {"python": platform.python_version(), **versions},
    }


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name beside `path`, then rename: `path` is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _damaged(path: Path, *, found: str) -> CompetitionError:
    advice = "restore both files; or delete both, split again, and delete all parts made with these folds"
    return CompetitionError("saved folds are damaged", faults=[Fault(str(path), found)], advice=advice)


def _require_same(saved: Folds, new: Folds, *, where: Path) -> None:
    old_fields, new_fields = asdict(saved.plan), asdict(new.plan)
    faults = [
        Fault(f"plan.{key}", f"{new_fields[key]!r}, saved {old_fields[key]!r}")
        for key in new_fields
        if new_fields[key] != old_fields[key]
    ]
    faults += [
        Fault(key, f"{getattr(new, key)}, saved {getattr(saved, key)}")
        for key in ("task", "rows_digest")
        if getattr(new, key) != getattr(saved, key)
    ]
    faults += _id_faults(saved=saved.ids, given=new.ids) or _row_faults(saved, new)
    if faults:
        advice = "folds are dealt once: keep the saved ones, or save under another name"
        raise MismatchError(f"other folds are saved as {where}", faults=faults, advice=advice)


def _id_faults(*, saved: pd.Series, given: pd.Series) -> list[Fault]:
    """What ids are on one side only."""
    extra, missing = given[~given.isin(saved)], saved[~saved.isin(given)]
    faults = []
    if len(extra):
        faults.append(Fault("rows", f"{len(extra):,} are not in the saved folds: {_name(extra)}"))
    if len(missing):
        faults.append(Fault("rows", f"{len(missing):,} of the saved folds are missing: {_name(missing)}"))
    return faults


def _row_faults(saved: Folds, new: Folds) -> list[Fault]:
    """How folds of the same ids differ."""
    places = pd.Index(saved.ids).get_indexer(pd.Index(new.ids))
    faults = []
    if (places != np.arange(len(places))).any():
        faults.append(Fault("rows", "the same ids in another order", "the order of the saved folds"))
    for key in ("fold", "group"):
        old = getattr(saved, key).to_numpy()[places]
        differs = old != getattr(new, key).to_numpy()
        if differs.any():
            found = f"{differs.sum():,} rows have another one: {_name(new.ids[differs])}"
            faults.append(Fault(key, found))
    return faults
