"""Splitting made-up rows: our `assign_groups` beside scikit-learn's StratifiedGroupKFold, in one process.

    python benchmarks/split.py [--rows 1000000]

Queries as groups (sizes log-normal, 6.25 rows on average), strata of language x top category level x label,
both skewed. CPU seconds (process_time), the unevenness of strata and of rows per fold; the peak memory of
ours is traced in a second pass that is not timed.
"""

import argparse
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.fold_report import imbalance
from competition.splitter import assign_groups

N_SPLITS = 5
N_LANGUAGES, N_TOP_LEVELS = 7, 35
ROWS_PER_GROUP = 6.25
MIB = 2**20

Codes = npt.NDArray[np.int64]


def make_rows(n_rows: int, *, seed: int) -> tuple[Codes, Codes]:
    """Group and stratum codes, ``(n_rows,)`` each, without gaps."""
    rng = np.random.default_rng(seed)
    n_groups = int(n_rows / ROWS_PER_GROUP)
    size = rng.lognormal(0, 1.2, n_groups)
    extra = rng.choice(n_groups, n_rows - n_groups, p=size / size.sum())
    groups = np.concatenate([np.arange(n_groups), extra])
    level_share = 1 / np.arange(1, N_TOP_LEVELS + 1)
    level_share /= level_share.sum()
    language = rng.choice(N_LANGUAGES, n_groups, p=[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05])
    own_level = rng.choice(N_TOP_LEVELS, n_groups, p=level_share)
    other_level = rng.choice(N_TOP_LEVELS, n_rows, p=level_share)
    level = np.where(rng.random(n_rows) < 0.7, own_level[groups], other_level)
    label = rng.random(n_rows) < rng.beta(3, 2, n_groups)[groups]
    strata = (language[groups] * N_TOP_LEVELS + level) * 2 + label
    return groups, np.unique(strata, return_inverse=True)[1].astype(np.int64)


def split_ours(groups: Codes, strata: Codes) -> Codes:
    return assign_groups(groups, strata, n_splits=N_SPLITS, seed=0)[groups].astype(np.int64)


def split_theirs(groups: Codes, strata: Codes) -> Codes:
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.empty(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strata smaller than the number of folds
        for fold, (_, held_out) in enumerate(StratifiedGroupKFold(N_SPLITS).split(groups, strata, groups)):
            folds[held_out] = fold
    return folds


def measure(name: str, split: Callable[[Codes, Codes], Codes], groups: Codes, strata: Codes) -> tuple[float, float]:
    """CPU seconds and imbalance of `split`; prints a line."""
    began = time.process_time()
    folds = split(groups, strata)
    seconds = time.process_time() - began
    uneven = imbalance(pd.Series(strata), pd.Series(folds))
    rows_std = np.bincount(folds, minlength=N_SPLITS).std()
    print(
        f"{name:<12} {seconds:7.2f} CPU-s  imbalance {uneven:.3e}  std of rows per fold {rows_std:.2f}",
        flush=True,
    )
    return seconds, uneven


def peak_memory(split: Callable[[Codes, Codes], Codes], groups: Codes, strata: Codes) -> int:
    """The most memory that `split` holds beyond its input, in bytes."""
    tracemalloc.start()
    split(groups, strata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    groups, strata = make_rows(args.rows, seed=args.seed)
    print(f"{len(groups):,} rows, {groups.max() + 1:,} groups, {strata.max() + 1} strata, {N_SPLITS} folds")
    our_seconds, our_imbalance = measure("ours", split_ours, groups, strata)
    print(f"ours: peak memory {peak_memory(split_ours, groups, strata) / MIB:.0f} MiB", flush=True)
    their_seconds, their_imbalance = measure("scikit-learn", split_theirs, groups, strata)
    print(f"RESULT split_speedup {their_seconds / our_seconds:.1f}")
    print(f"RESULT split_imbalance_ratio {our_imbalance / their_imbalance:.3f}")


if __name__ == "__main__":
    main()
