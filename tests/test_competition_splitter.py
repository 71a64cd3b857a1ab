import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.fold_report import imbalance
from competition.splitter import assign_groups


@st.composite
def groups_and_strata(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n_rows = draw(st.integers(5, 60))
    groups = draw(st.lists(st.integers(0, 20), min_size=n_rows, max_size=n_rows))
    strata = draw(st.lists(st.integers(0, 5), min_size=n_rows, max_size=n_rows))
    return pd.factorize(np.array(groups))[0], pd.factorize(np.array(strata))[0]


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.integers(2, 5), st.integers(0, 3))
def test_every_group_gets_one_fold_in_range(drawn, n_splits, seed):
    groups, strata = drawn
    folds = assign_groups(groups, strata, n_splits=n_splits, seed=seed)
    assert folds.shape == (groups.max() + 1,)
    assert folds.dtype == np.int8
    assert folds.min() >= 0
    assert folds.max() < n_splits


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.integers(2, 5))
def test_no_fold_is_empty_when_there_are_enough_groups(drawn, n_splits):
    groups, strata = drawn
    folds = assign_groups(groups, strata, n_splits=n_splits, seed=0)
    assert len(set(folds)) == min(n_splits, groups.max() + 1)


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.randoms(use_true_random=False))
def test_shuffled_rows_give_every_group_the_same_fold(drawn, random):
    groups, strata = drawn
    order = list(range(len(groups)))
    random.shuffle(order)
    folds = assign_groups(groups, strata, n_splits=3, seed=1)
    assert np.array_equal(folds, assign_groups(groups[order], strata[order], n_splits=3, seed=1))


def test_single_row_groups_are_dealt_as_evenly_as_can_be():
    strata = np.repeat([0, 1, 2], [50, 25, 7])
    folds = assign_groups(np.arange(82), strata, n_splits=5, seed=0)
    counts = np.array([np.bincount(folds[strata == stratum], minlength=5) for stratum in range(3)])
    assert counts[0].tolist() == [10] * 5
    assert counts[1].tolist() == [5] * 5
    assert sorted(counts[2]) == [1, 1, 1, 2, 2]
    assert sorted(counts.sum(axis=0)) == [16, 16, 16, 17, 17]


def theirs(groups: np.ndarray, strata: np.ndarray, *, shuffle: bool) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(5, shuffle=shuffle, random_state=0 if shuffle else None)
    folds = np.empty(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fold, (_, held_out) in enumerate(splitter.split(groups, strata, groups)):
            folds[held_out] = fold
    return folds


def skewed(seed: int, *, n_rows: int, n_groups: int, n_strata: int) -> tuple[np.ndarray, np.ndarray]:
    """Few large groups and many small ones, each mostly of a stratum of its own."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0, 1.5, n_groups)
    groups = pd.factorize(rng.choice(n_groups, n_rows, p=size / size.sum()))[0]
    share = 1 / np.arange(1, n_strata + 1)
    own = rng.choice(n_strata, n_groups, p=share / share.sum())[groups]
    strata = np.where(rng.random(n_rows) < 0.6, own, rng.choice(n_strata, n_rows, p=share / share.sum()))
    return groups, pd.factorize(strata)[0]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n_groups", "n_strata"), [(80, 12), (300, 40), (600, 80)])
def test_balance_is_no_worse_than_scikit_learn(shuffle, n_groups, n_strata):
    ours, other = [], []
    for seed in range(3):
        groups, strata = skewed(seed, n_rows=2_000, n_groups=n_groups, n_strata=n_strata)
        strata_of_row = pd.Series(strata)
        folds = assign_groups(groups, strata, n_splits=5, seed=0)[groups]
        ours.append(imbalance(strata_of_row, pd.Series(folds)))
        other.append(imbalance(strata_of_row, pd.Series(theirs(groups, strata, shuffle=shuffle))))
    assert np.mean(ours) <= np.mean(other)
    assert (np.array(ours) <= 1.02 * np.array(other)).all()
