"""Cuts per language: used where languages differ, left alone where they do not, and never for unseen ones."""

import numpy as np
import pytest

from competition.metrics import f1
from oof.frame import PredictionFrame, to_logits
from oof.segments import SegmentCuts, choose_segment_cuts, fit_segment_cuts
from oof.simulate import LANGUAGES, simulate
from oof.threshold import decide
from oof.weights import sigmoid


def biased(frame: PredictionFrame, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """One learner's scores, its log-odds shifted by language, and the languages."""
    shift = dict(zip(LANGUAGES, np.linspace(-spread, spread, len(LANGUAGES)), strict=True))
    language = frame.rows["language"].to_numpy()
    return sigmoid(to_logits(frame.scores[:, 0]) + np.array([shift[code] for code in language])), language


def test_languages_that_differ_get_their_own_cuts_and_gain_on_fresh_rows() -> None:
    world = simulate(6000, 1, 0, language_quality=False, correlation=0.3, n_fresh=40_000)
    scores, language = biased(world.oof, 2.0)
    choice = choose_segment_cuts(world.oof.labels, scores, language, fold=world.oof.fold, groups=world.oof.group)
    assert set(choice.cuts.by_segment) == set(LANGUAGES)
    assert choice.gain.low > 0
    assert choice.cuts.by_segment["en"] < choice.cuts.overall < choice.cuts.by_segment["pt"]
    fresh_scores, fresh_language = biased(world.fresh, 2.0)
    labels = world.fresh.labels
    own = f1(labels, choice.cuts.decide(fresh_scores, fresh_language))
    assert own - f1(labels, decide(fresh_scores, choice.cuts.overall)) == pytest.approx(choice.gain.estimate, abs=0.012)
    assert own > f1(labels, decide(fresh_scores, choice.cuts.overall)) + 0.01


def test_like_languages_keep_the_global_cut_nearly_always() -> None:
    kept = 0
    for seed in range(6):
        frame = simulate(3000, 1, seed, language_quality=False, correlation=0.3, n_fresh=10).oof
        scores, language = biased(frame, 0.0)
        choice = choose_segment_cuts(frame.labels, scores, language, fold=frame.fold, groups=frame.group)
        kept += not choice.cuts.by_segment
        assert (choice.strength == float("inf")) == (not choice.cuts.by_segment)
        if choice.cuts.by_segment:
            assert choice.gain.estimate > choice.gain.standard_error
    assert kept >= 4


def test_no_row_has_a_part_in_its_own_decision() -> None:
    frame = simulate(3000, 1, 1, language_quality=False, correlation=0.3, n_fresh=10).oof
    scores, language = biased(frame, 2.0)
    flipped = frame.labels.copy()
    held_out = frame.fold == 2
    flipped[np.flatnonzero(held_out)[:20]] ^= 1
    before, after = (
        choose_segment_cuts(labels, scores, language, fold=frame.fold, groups=frame.group)
        for labels in (frame.labels, flipped)
    )
    assert before.cuts.by_segment
    assert after.cuts.by_segment
    assert (before.decisions[held_out] == after.decisions[held_out]).all()


def test_an_unseen_language_has_the_global_cut_and_so_has_one_without_positives() -> None:
    cuts = fit_segment_cuts(np.array([1, 0, 1, 0]), np.array([0.9, 0.2, 0.6, 0.5]), np.array(["en", "en", "en", "th"]))
    assert set(cuts.by_segment) == {"en"}
    assert cuts.thresholds(np.array(["xx", "th"])).tolist() == [cuts.overall] * 2


def test_shrinking_draws_small_segments_further() -> None:
    cuts = SegmentCuts(0.4, {"big": 0.6, "small": 0.6}).shrunken({"big": 3000, "small": 1000}, strength=1000)
    assert cuts.by_segment == pytest.approx({"big": 0.55, "small": 0.5})
    assert cuts.shrunken({"big": 1, "small": 1}, strength=float("inf")).by_segment == {"big": 0.4, "small": 0.4}
