"""The nested estimate: repeats that differ only by how folds are dealt, and a gauge that shows overfitting."""

import numpy as np
import pytest

from competition.metrics import f1
from oof.blend import Greedy, Mean
from oof.crossfit import cross_fit
from oof.nested import nested_estimate
from oof.simulate import simulate


def test_the_first_repeat_is_the_cross_fit_over_the_frame_s_own_folds() -> None:
    oof = simulate(1500, 3, 0, language_quality=True, correlation=0.3).oof
    once, thrice = nested_estimate(Mean(), oof), nested_estimate(Mean(), oof, n_repeats=3)
    assert once.f1 == thrice.f1[:1] == (f1(oof.labels, cross_fit(Mean(), oof).decisions),)
    assert len(set(thrice.f1)) == 3
    assert thrice.mean == pytest.approx(np.mean(thrice.f1))
    assert thrice.interval.low < thrice.f1[0] < thrice.interval.high
    assert np.isnan(once.spread)
    assert thrice.spread > 0


def test_what_fits_its_own_rows_flatters_itself_more() -> None:
    """Greedy selection among forty learners of noise on few rows, against a mean that fits nothing but its cut."""
    noise = simulate(400, 1, 1, language_quality=False, correlation=0.0, noise_learners=40).oof
    mean, greedy = (nested_estimate(each, noise).flattery for each in (Mean(), Greedy(n_bags=1)))
    assert greedy > mean > 0
