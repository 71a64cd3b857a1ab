"""Calibration: known distortions are undone, judged on folds that the map has not seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from oof.calibration import (
    METHODS,
    calibration_report,
    cross_calibrated,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
    reliability_table,
)
from oof.frame import to_logits
from oof.weights import sigmoid

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(1.0, 2.0, 30_000)
LABELS = (RNG.random(30_000) < sigmoid(LOGITS)).astype(np.int8)
FOLD = np.arange(30_000) % 5


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_overconfident_scores_is_found(temperature: float) -> None:
    assert fit_temperature(LABELS, sigmoid(LOGITS * temperature)).temperature == pytest.approx(temperature, rel=0.05)


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    honest, sharpened = sigmoid(LOGITS), sigmoid(3 * LOGITS)
    assert expected_calibration_error(LABELS, honest) < 0.01
    assert expected_calibration_error(LABELS, sharpened) > 0.05
    report = calibration_report(LABELS, sharpened, FOLD).set_index("method")
    assert list(report.index) == list(METHODS)
    assert (report.loc[["temperature", "isotonic"], "calibration_error"] < 0.012).all()
    assert (report.loc[["temperature", "isotonic"], "log_loss"] < report.loc["none", "log_loss"]).all()


def test_isotonic_undoes_a_bend_that_a_temperature_cannot() -> None:
    bent = sigmoid(LOGITS) ** 3
    report = calibration_report(LABELS, bent, FOLD).set_index("method")
    assert report.loc["isotonic", "calibration_error"] < 0.012 < report.loc["temperature", "calibration_error"]


def test_a_row_has_no_part_in_its_own_map() -> None:
    flipped = LABELS.copy()
    flipped[FOLD == 2] = 1 - flipped[FOLD == 2]
    for method in METHODS:
        before, after = (cross_calibrated(method, labels, sigmoid(LOGITS), FOLD) for labels in (LABELS, flipped))
        assert (before[FOLD == 2] == after[FOLD == 2]).all()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=80))
def test_isotonic_never_turns_two_rows_around(rows: list[tuple[int, int]]) -> None:
    labels, twentieths = (np.array(column) for column in zip(*rows, strict=True))
    fitted = fit_isotonic(labels.astype(np.int8), twentieths / 20)
    assert (np.diff(fitted(np.linspace(0, 1, 50))) >= 0).all()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=80), st.integers(1, 12))
def test_the_bins_hold_every_row_once_in_order(rows: list[tuple[int, int]], n_bins: int) -> None:
    labels, twentieths = (np.array(column) for column in zip(*rows, strict=True))
    table = reliability_table(labels, twentieths / 20, n_bins=n_bins)
    assert table["rows"].sum() == len(rows)
    assert (table["high"].to_numpy()[:-1] < table["low"].to_numpy()[1:]).all()
    assert (table["rows"] * table["positive_rate"]).sum() == pytest.approx(labels.sum())


def test_scores_of_0_and_1_are_no_infinities() -> None:
    scores = np.where(LABELS == 1, 1.0, 0.0)
    scores[:50] = 1 - scores[:50]
    assert np.isfinite(calibration_report(LABELS, scores, FOLD).drop(columns="method").to_numpy()).all()
    assert np.isfinite(to_logits(scores)).all()


def test_an_unknown_method_and_a_single_fold_are_refused_together() -> None:
    with pytest.raises(CompetitionError) as caught:
        cross_calibrated("spline", LABELS, sigmoid(LOGITS), np.zeros(len(LABELS), dtype=int))
    assert "spline" in str(caught.value)
    assert "fold" in str(caught.value)
