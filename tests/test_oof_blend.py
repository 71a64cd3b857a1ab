"""Blends: hand-computed predictions, optimal weights, and tuning that never loses to the plain mean by luck."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from competition.errors import CompetitionError
from competition.metrics import f1
from oof.blend import (
    CONVEX,
    PLAIN_MEAN,
    ConvexBlend,
    Greedy,
    HardVote,
    LogitMean,
    Mean,
    OptunaBlend,
    RankMean,
    SingleLearner,
    Structure,
    WeightedMean,
)
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.simulate import Simulated, simulate
from oof.weights import LOSSES, convex_weights, greedy_weights


def _frame(scores: list[list[float]], labels: list[int]) -> PredictionFrame:
    n = len(labels)
    rows = pd.DataFrame({"id": range(n), "language": "en", "label": pd.array(labels, dtype="Int8")})
    return PredictionFrame(rows, np.array(scores), tuple("abc"[: len(scores[0])]))


FRAME = _frame([[0.2, 0.4], [0.9, 0.7], [0.5, 0.1], [0.6, 0.8]], [0, 1, 0, 1])


def test_means_by_hand() -> None:
    assert Mean().fit(FRAME).predict(FRAME) == pytest.approx([0.3, 0.8, 0.3, 0.7])
    # ranks of a: 1 4 2 3, of b: 2 3 1 4; (rank - .5) / 4
    assert RankMean().fit(FRAME).predict(FRAME) == pytest.approx([0.25, 0.75, 0.25, 0.75])
    odds = np.sqrt((0.9 / 0.1) * (0.7 / 0.3))
    assert LogitMean().fit(FRAME).predict(FRAME)[1] == pytest.approx(odds / (1 + odds))


def test_a_single_learner_is_left_as_it_is() -> None:
    assert SingleLearner("b").fit(FRAME).predict(FRAME).tolist() == [0.4, 0.7, 0.1, 0.8]
    assert SingleLearner("b").name == "b"


def test_hard_votes_by_hand() -> None:
    votes = HardVote().fit(FRAME)
    assert votes.thresholds == pytest.approx((0.55, 0.55))
    assert votes.predict(FRAME).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("weights", [(0.5, 0.6), (1.5, -0.5), (1.0,)])
def test_weights_off_the_simplex_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(CompetitionError, match="no blend weights"):
        WeightedMean(("a", "b"), weights)


@pytest.mark.parametrize("loss", ["probability", "logit"])
@pytest.mark.parametrize("seed", range(4))
def test_convex_weights_are_the_optimum_that_slsqp_finds(loss: str, seed: int) -> None:
    oof = simulate(2000, 4, seed, language_quality=True, correlation=0.2, noise_learners=1).oof
    values = oof.logits() if loss == "logit" else oof.scores
    labels = oof.labels.astype(float)
    found = convex_weights(oof.labels, values, loss=loss)
    reference = minimize(
        lambda w: LOSSES[loss](w, values, labels)[0],
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.sum() == pytest.approx(1)
    assert LOSSES[loss](found, values, labels)[0] <= reference.fun + 1e-6
    assert found == pytest.approx(reference.x, abs=0.01)


@pytest.mark.parametrize("loss", ["probability", "logit"])
def test_gradients_are_those_of_finite_differences(loss: str) -> None:
    oof = simulate(500, 3, 0, language_quality=False, correlation=0.2).oof
    values, labels = (oof.logits() if loss == "logit" else oof.scores), oof.labels.astype(float)
    weights, step = np.array([0.5, 0.3, 0.2]), 1e-6
    for j in range(3):
        up, down = weights + step * np.eye(3)[j], weights - step * np.eye(3)[j]
        slope = (LOSSES[loss](up, values, labels)[0] - LOSSES[loss](down, values, labels)[0]) / (2 * step)
        assert LOSSES[loss](weights, values, labels)[1][j] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def _slow_greedy(labels: np.ndarray, values: np.ndarray, n_rounds: int) -> np.ndarray:
    """Greedy selection as the paper tells it, every cut of every trial scored from scratch."""

    def quality(picks: list[int]) -> float:
        mean = values[:, picks].mean(axis=1)
        return max(f1(labels, mean >= cut) for cut in mean)

    n_learners = values.shape[1]
    by_quality = sorted(range(n_learners), key=lambda j: -quality([j]))
    picks = max((by_quality[:n] for n in range(1, n_learners + 1)), key=quality)
    best = picks
    for _ in range(n_rounds):
        picks = [*picks, max(range(n_learners), key=lambda j: quality([*picks, j]))]
        best = picks if quality(picks) > quality(best) else best
    return np.bincount(best, minlength=n_learners) / len(best)


@pytest.mark.parametrize("seed", range(3))
def test_fast_greedy_selection_equals_the_slow_one(seed: int) -> None:
    oof = simulate(60, 4, seed, language_quality=True, correlation=0.2).oof
    fast = greedy_weights(oof.labels, oof.scores, n_rounds=4)
    assert fast == pytest.approx(_slow_greedy(oof.labels, oof.scores, 4))


def test_greedy_selection_leaves_noise_out() -> None:
    oof = simulate(6000, 2, 0, language_quality=False, correlation=0.2, noise_learners=3).oof
    weights = Greedy(n_rounds=10, n_bags=3).fit(oof).weights
    assert sum(weights[2:]) < 0.12
    assert Greedy(n_rounds=10, n_bags=3, seed=1).fit(oof) == Greedy(n_rounds=10, n_bags=3, seed=1).fit(oof)


def test_convex_weights_leave_noise_out() -> None:
    oof = simulate(6000, 2, 0, language_quality=False, correlation=0.2, noise_learners=3).oof
    for space in ("probability", "logit"):
        assert sum(ConvexBlend(space=space).fit(oof).weights[2:]) < 0.05


def test_structures_span_from_convex_and_greedy_to_equal_weights() -> None:
    oof = simulate(1500, 3, 2, language_quality=True, correlation=0.2).oof
    assert PLAIN_MEAN.fit(oof) == Mean().fit(oof)
    assert CONVEX.fit(oof) == ConvexBlend().fit(oof)
    ends = [np.array(Structure("logit", share, shrink=0.0).fit(oof).weights) for share in (0.0, 1.0)]
    between = Structure("logit", greedy_share=0.25, shrink=0.4).fit(oof).weights
    assert between == pytest.approx(0.6 * (0.75 * ends[0] + 0.25 * ends[1]) + 0.4 / 3)


def test_equal_learners_get_the_plain_mean() -> None:
    """Nothing is to be gained over it, so nothing but luck could be found."""
    rng = np.random.default_rng(0)
    rows = simulate(4000, 1, 0, language_quality=False, correlation=0.0, n_folds=4).oof.rows
    truth = rng.normal(rows["label"].astype(float).to_numpy() * 2 - 1, 1.0)
    scores = 1 / (1 + np.exp(-truth[:, None] - rng.normal(size=(4000, 4))))
    frame = PredictionFrame(rows, scores, tuple("abcd"))
    assert OptunaBlend(n_trials=25).choose(frame) == PLAIN_MEAN


def _fresh_gain(world: Simulated, *, n_trials: int) -> float:
    """F1 of the tuned blend minus that of the plain mean, on fresh rows."""
    tuned, plain = (
        f1(world.fresh.labels, fit_final(combiner, world.oof).decide(world.fresh))
        for combiner in (OptunaBlend(n_trials=n_trials), Mean())
    )
    return tuned - plain


def test_learners_of_unlike_quality_get_a_tuned_blend_that_holds_on_fresh_rows() -> None:
    world = simulate(4000, 2, 4, language_quality=False, correlation=0.1, noise_learners=3, n_folds=3, n_fresh=40_000)
    assert OptunaBlend(n_trials=8).choose(world.oof) != PLAIN_MEAN
    assert _fresh_gain(world, n_trials=8) > 0.005


def test_the_tuned_blend_is_not_worse_than_the_plain_mean() -> None:
    """On 2,000 rows, where tuning could only overfit; each fresh F1 has a standard error of .002."""
    worlds = [
        simulate(2000, 4, seed, language_quality=bool(seed % 2), correlation=0.3, n_folds=3, n_fresh=30_000)
        for seed in range(4)
    ]
    gains = [_fresh_gain(world, n_trials=8) for world in worlds]
    assert np.mean(gains) > -0.001
    assert min(gains) > -0.006


def test_the_same_seed_gives_the_same_blend() -> None:
    oof = simulate(1500, 3, 5, language_quality=True, correlation=0.2, n_folds=3).oof
    assert OptunaBlend(n_trials=12).fit(oof) == OptunaBlend(n_trials=12).fit(oof)


def test_recalibration_makes_probabilities_of_ranks() -> None:
    world = simulate(6000, 3, 6, language_quality=False, correlation=0.2, n_folds=3)
    scores = OptunaBlend(n_trials=5).fit(world.oof).predict(world.fresh)
    assert scores.mean() == pytest.approx(world.fresh.labels.mean(), abs=0.02)


def test_tuning_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    OptunaBlend(n_trials=4).fit(simulate(300, 2, 0, language_quality=False, correlation=0.2).oof)
    assert capfd.readouterr() == ("", "")


def test_60_trials_on_30_000_rows_take_a_few_seconds() -> None:
    oof = simulate(30_000, 5, 0, language_quality=True, correlation=0.3, n_fresh=10).oof
    start = time.process_time()
    OptunaBlend().fit(oof)
    assert time.process_time() - start < 10  # measured: 1.5 to 2.5


def test_convex_blending_is_cross_fitted_like_all_else() -> None:
    oof = simulate(900, 3, 0, language_quality=True, correlation=0.3).oof
    assert cross_fit(ConvexBlend(), oof).name == "convex"
