"""A shifted share of positives: found without labels, and the cut that it asks for is the better one."""

import numpy as np
import pytest

from competition.errors import CompetitionError
from competition.metrics import f1
from oof.priors import adjusted_scores, estimate_prior, expected_f1_threshold, prior_matched_threshold
from oof.threshold import best_threshold, decide
from oof.weights import sigmoid

RNG = np.random.default_rng(0)
SCORES = sigmoid(RNG.normal(1.0, 2.0, 120_000))
LABELS = (RNG.random(120_000) < SCORES).astype(np.int8)
TRAIN_RATE = float(LABELS.mean())


def with_rate(rate: float, *, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of rows drawn so that this share is positive; the scores are those of the old world."""
    rng = np.random.default_rng(seed)
    n_positive = round(rate * n_rows)
    chosen = [
        rng.choice(np.flatnonzero(label == LABELS), n)
        for label, n in ((1, n_positive), (0, n_rows - n_positive))
    ]  # fmt: skip
    rows = np.concatenate(chosen)
    return LABELS[rows], SCORES[rows]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.85])
def test_the_share_of_a_shifted_file_is_found(rate: float) -> None:
    _, scores = with_rate(rate, n_rows=20_000, seed=1)
    shift = estimate_prior(scores, TRAIN_RATE)
    assert shift.rate == pytest.approx(rate, abs=0.015)
    assert shift.p_value < 1e-6


def test_no_shift_is_rarely_called_one() -> None:
    p_values = [
        estimate_prior(SCORES[np.random.default_rng(seed).choice(len(SCORES), 2000)], TRAIN_RATE).p_value
        for seed in range(200)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.12
    assert np.mean(np.array(p_values) < 0.5) > 0.3


def test_adjusting_there_and_back_changes_nothing_and_keeps_the_order() -> None:
    there = adjusted_scores(SCORES, TRAIN_RATE, 0.2)
    assert adjusted_scores(there, 0.2, TRAIN_RATE) == pytest.approx(SCORES)
    assert (np.argsort(there, kind="stable") == np.argsort(SCORES, kind="stable")).all()


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_the_matched_cut_beats_the_old_one_and_nears_the_best(rate: float) -> None:
    labels, scores = with_rate(rate, n_rows=40_000, seed=2)
    old = f1(labels, decide(scores, best_threshold(LABELS, SCORES).threshold))
    matched = f1(labels, decide(scores, prior_matched_threshold(scores, TRAIN_RATE)[0]))
    assert matched > old + 0.01
    assert matched > best_threshold(labels, scores).f1 - 0.003


def test_without_a_shift_the_matched_cut_is_half_the_best_f1() -> None:
    cut, shift = prior_matched_threshold(SCORES, TRAIN_RATE)
    best = best_threshold(LABELS, SCORES)
    assert shift.rate == pytest.approx(TRAIN_RATE, abs=0.005)
    assert cut == pytest.approx(best.f1 / 2, abs=0.02)
    assert f1(LABELS, decide(SCORES, cut)) > best.f1 - 0.001


def test_the_expected_best_cut_equals_every_cut_tried() -> None:
    scores = np.round(SCORES[:300], 2)
    cut = expected_f1_threshold(scores)

    def expected(threshold: float) -> float:
        decided = scores >= threshold
        return 2 * scores[decided].sum() / (scores.sum() + decided.sum())

    assert expected(cut) == pytest.approx(max(expected(score) for score in scores))


def test_bad_input_is_refused_with_every_fault() -> None:
    with pytest.raises(CompetitionError) as caught:
        estimate_prior(np.array([0.5, 1.5]), 1.0)
    assert "1.5" in str(caught.value)
    assert "train_rate" in str(caught.value)
