"""Level-2 folds: always five, groups whole, and the same honesty as with the folds of the base learners."""

import numpy as np
import pandas as pd

from competition.metrics import f1
from oof.crossfit import cross_fit
from oof.level2_folds import N_FOLDS, with_level2_folds
from oof.mix import TunedBlend
from oof.simulate import simulate
from oof.stack import LightGBMStacker


def test_five_folds_of_base_learners_stay_and_ten_are_taken_together() -> None:
    five = simulate(600, 2, 0, language_quality=False, correlation=0.2, n_folds=5).oof
    assert np.array_equal(with_level2_folds(five).level2_fold, five.fold)
    ten = simulate(600, 2, 0, language_quality=False, correlation=0.2, n_folds=10).oof
    assert np.array_equal(with_level2_folds(ten).level2_fold, ten.fold % N_FOLDS)


def test_three_folds_become_five_and_no_group_is_in_two_of_them() -> None:
    three = simulate(900, 2, 0, language_quality=False, correlation=0.2, n_folds=3).oof
    for seed in (None, 1):
        dealt = with_level2_folds(three, seed=seed)
        assert np.array_equal(dealt.fold, three.fold)
        sizes = pd.Series(dealt.level2_fold).value_counts()
        assert sorted(sizes.index) == list(range(N_FOLDS))
        assert sizes.max() < 1.1 * sizes.min()
        assert (pd.Series(dealt.level2_fold).groupby(dealt.group).nunique() == 1).all()


def test_another_seed_deals_other_folds() -> None:
    frame = simulate(900, 2, 0, language_quality=False, correlation=0.2).oof
    first, again, second = (with_level2_folds(frame, seed=seed).level2_fold for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_with_three_folds_of_base_learners_a_stacker_is_as_good_as_with_five() -> None:
    """It used to have too few folds to choose a number of trees or a strength with."""
    world = simulate(3000, 4, 0, language_quality=True, correlation=0.3, n_folds=3, n_fresh=10)
    blend = TunedBlend(n_trials=4, stack=LightGBMStacker(max_rounds=5))
    few, dealt = (cross_fit(blend, frame) for frame in (world.oof, with_level2_folds(world.oof)))
    assert set(dealt.thresholds) == set(range(N_FOLDS))
    assert f1(world.oof.labels, dealt.decisions) > f1(world.oof.labels, few.decisions) - 0.004
