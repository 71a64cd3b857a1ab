"""Teachers: what they say of a fold's students knows nothing of the fold; and what happens if it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from competition.errors import CompetitionError
from competition.metrics import auc
from oof.blend import Greedy, SingleLearner
from oof.combiner import Combiner
from oof.frame import PredictionFrame
from oof.logistic import LogisticStacker
from oof.simulate import simulate
from oof.stack import LightGBMStacker
from oof.teacher import fold_safe_teachers, soft_labels, taught_threshold
from oof.threshold import best_threshold

WORLD = simulate(1500, 3, 5, language_quality=False, correlation=0.5, n_folds=3)
COMBINERS = [SingleLearner(WORLD.oof.learners[0]), Greedy(), LogisticStacker(), LightGBMStacker(max_rounds=20)]


def with_flipped(frame: PredictionFrame, fold: int) -> PredictionFrame:
    """The frame with every label of one fold turned round."""
    labels = np.where(frame.fold == fold, 1 - frame.labels, frame.labels)
    return PredictionFrame(frame.rows.assign(label=labels), frame.scores, frame.learners)


@pytest.mark.parametrize("combiner", COMBINERS, ids=lambda each: each.name)
def test_labels_of_a_fold_change_nothing_for_its_students_and_something_for_the_others(combiner: Combiner) -> None:
    plain, flipped = (fold_safe_teachers(combiner, frame) for frame in (WORLD.oof, with_flipped(WORLD.oof, 1)))
    same = {k: np.array_equal(plain[k].predict(WORLD.fresh), flipped[k].predict(WORLD.fresh)) for k in plain}
    assert same == {0: False, 1: True, 2: False}


def test_the_order_of_the_rows_changes_nothing() -> None:
    shuffled = WORLD.oof.take(np.random.default_rng(0).permutation(WORLD.oof.n_rows))
    one, other = (fold_safe_teachers(LogisticStacker(), frame)[0] for frame in (WORLD.oof, shuffled))
    np.testing.assert_array_equal(one.predict(WORLD.fresh), other.predict(WORLD.fresh))


def test_labels_of_the_rows_to_score_are_not_looked_at() -> None:
    teacher = fold_safe_teachers(LogisticStacker(), WORLD.oof)[0]
    bare = teacher.predict(WORLD.fresh.without_labels())
    np.testing.assert_array_equal(teacher.predict(WORLD.fresh), bare)


def test_scores_that_are_too_sure_are_brought_to_probabilities() -> None:
    sure = PredictionFrame(WORLD.oof.rows, 1 / (1 + np.exp(-4 * WORLD.oof.logits())), WORLD.oof.learners)
    fresh = PredictionFrame(WORLD.fresh.rows, 1 / (1 + np.exp(-4 * WORLD.fresh.logits())), WORLD.fresh.learners)
    scores = fold_safe_teachers(SingleLearner(sure.learners[0]), sure)[0].predict(fresh)

    def log_loss(values: np.ndarray) -> float:
        return float(-np.log(np.where(fresh.labels == 1, values, 1 - values).clip(1e-6)).mean())

    assert log_loss(scores) < log_loss(fresh.scores[:, 0]) - 0.1


def test_one_fold_is_too_few() -> None:
    with pytest.raises(CompetitionError, match="too few folds"):
        fold_safe_teachers(LogisticStacker(), WORLD.oof.take(WORLD.oof.fold < 1))


def remembered(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The label of the nearest known row: a model that remembers every row."""
    nearest = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(asked, return_distance=False)
    return labels[nearest[:, 0]]


def test_students_of_other_folds_oof_scores_would_know_the_labels_of_their_own() -> None:
    """Why soft labels of training rows go to one student alone that is never judged out of fold."""
    rng = np.random.default_rng(0)
    places, labels, fold = rng.normal(size=(2000, 2)), rng.integers(0, 2, 2000), np.arange(2000) % 4
    teacher, honest, taught = (np.empty(2000) for _ in range(3))
    for k in range(4):
        inside = fold == k
        teacher[inside] = remembered(places[~inside], labels[~inside], places[inside])
        honest[inside] = teacher[inside]
    for k in range(4):
        inside = fold == k
        taught[inside] = remembered(places[~inside], teacher[~inside], places[inside])
    assert abs(auc(labels, honest) - 0.5) < 0.04
    assert auc(labels, taught) > 0.55


def test_soft_labels_lie_between_label_and_score() -> None:
    labels, scores = np.array([0, 1, 1], dtype=np.int8), np.array([0.2, 0.9, 0.1])
    assert soft_labels(labels, scores, mix=0).tolist() == [0, 1, 1]
    assert soft_labels(labels, scores, mix=1).tolist() == scores.tolist()
    assert soft_labels(labels, scores, mix=0.5).tolist() == pytest.approx([0.1, 0.95, 0.55])
    with pytest.raises(CompetitionError, match="0 to 1"):
        soft_labels(labels, scores, mix=1.5)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 20)), min_size=1, max_size=60))
def test_a_teacher_that_is_sure_of_the_labels_gives_the_best_cut(rows: list[tuple[int, int]]) -> None:
    labels, scores = np.array([label for label, _ in rows]), np.array([score / 20 for _, score in rows])
    if labels.any():
        assert taught_threshold(scores, labels.astype(float)) == pytest.approx(best_threshold(labels, scores).threshold)


def test_the_expected_f1_of_the_cut_is_the_highest() -> None:
    rng = np.random.default_rng(3)
    scores, probabilities = rng.random(300).round(2), rng.random(300)

    def expected_f1(threshold: float) -> float:
        positive = scores >= threshold
        return float(2 * probabilities[positive].sum() / (positive.sum() + probabilities.sum()))

    found = taught_threshold(scores, probabilities)
    assert expected_f1(found) == pytest.approx(max(expected_f1(cut) for cut in np.linspace(0.005, 0.995, 100)))


def test_a_student_that_knows_less_decides_more_rows_positive() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0.5, 2, 5000)
    probabilities = 1 / (1 + np.exp(-logits))
    good, poor = (1 / (1 + np.exp(-(logits + rng.normal(0, noise, 5000)))) for noise in (0.1, 6.0))
    shares = [(scores >= taught_threshold(scores, probabilities)).mean() for scores in (good, poor)]
    assert shares[1] > shares[0] + 0.1
