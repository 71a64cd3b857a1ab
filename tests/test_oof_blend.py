"""Blends: hand-computed predictions and optimal weights."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from competition.errors import CompetitionError
from competition.metrics import f1
from oof.blend import (
    BestSingle,
    ConvexBlend,
    Greedy,
    HardVote,
    LogitMean,
    Mean,
    RankMean,
    Recalibrated,
    SingleLearner,
    WeightedMean,
)
from oof.crossfit import cross_fit
from oof.frame import PredictionFrame
from oof.simulate import simulate
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


def test_the_best_single_learner_is_the_one_with_the_highest_f1() -> None:
    assert BestSingle().fit(FRAME) == SingleLearner("a").fit(FRAME)  # both are perfect, the first is taken
    worse = _frame([[0.2, 0.4], [0.1, 0.7], [0.5, 0.1], [0.6, 0.8]], [0, 1, 0, 1])
    assert BestSingle().fit(worse) == SingleLearner("b").fit(worse)


def test_recalibration_makes_probabilities_and_keeps_the_order_of_rows() -> None:
    world = simulate(6000, 3, 6, language_quality=False, correlation=0.2, n_folds=3)
    for blend in (RankMean(), LogitMean()):
        plain, fitted = blend.fit(world.oof), Recalibrated(blend).fit(world.oof)
        assert fitted.predict(world.fresh).mean() == pytest.approx(world.fresh.labels.mean(), abs=0.02)
        assert (np.diff(fitted.predict(world.fresh)[np.argsort(plain.predict(world.fresh))]) >= 0).all()


def test_convex_blending_is_cross_fitted_like_all_else() -> None:
    oof = simulate(900, 3, 0, language_quality=True, correlation=0.3).oof
    assert cross_fit(ConvexBlend(), oof).name == "convex"
