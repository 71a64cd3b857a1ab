"""The splitter: groups dealt into folds so that every fold holds an even share of every stratum."""

from dataclasses import dataclass
from operator import itemgetter, mul
from typing import Any

import numpy as np
import numpy.typing as npt

# The evenness of whole rows counts as much as this share of all strata together. Beside scikit-learn, on 25
# made-up skewed sets: at 0 the rows per fold are 1.4 times as uneven as theirs, at .05 a third as uneven;
# the strata .99 as uneven either way.
ROWS_WEIGHT = 0.05
REFINE_PASSES = 8
REFINE_MOVES = 2_000  # groups tried in one pass
LEAST_GAIN = 1e-12  # below this a move only chases rounding

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


def _move(table: _GroupCounts, loads: _Floats, folds: npt.NDArray[np.int8], groups: npt.NDArray[np.int64]) -> int:
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
