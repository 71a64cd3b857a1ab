"""Stackers: the logistic offset, trees that are only kept if they help, and what they do with unseen languages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError
from competition.metrics import f1, paired_difference
from oof.blend import ConvexBlend, Mean
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.logistic import LanguageLogistic, LogisticStacker
from oof.simulate import simulate
from oof.stack import LightGBMStacker, _drawn, available_cpus

WORLD = simulate(6000, 4, 0, language_quality=True, correlation=0.3, n_folds=4, n_fresh=40_000)
STACK = LightGBMStacker().fit(WORLD.oof)


def test_where_quality_differs_by_language_the_stacker_wins_on_fresh_rows() -> None:
    stack = fit_final(LightGBMStacker(), WORLD.oof).decide(WORLD.fresh)
    for simple in (Mean(), ConvexBlend(), LogisticStacker()):
        decisions = fit_final(simple, WORLD.oof).decide(WORLD.fresh)
        gain = paired_difference(WORLD.fresh.labels, stack, decisions, WORLD.fresh.group)
        assert gain.low > 0.002


def test_the_nested_estimate_of_the_stacker_is_that_on_fresh_rows() -> None:
    """Tolerance .012: two standard errors of an F1 on 6,000 rows."""
    nested = cross_fit(LightGBMStacker(), WORLD.oof)
    fresh = fit_final(LightGBMStacker(), WORLD.oof, cross_fitted=nested).decide(WORLD.fresh)
    estimate = f1(WORLD.oof.labels, nested.decisions)
    assert estimate == pytest.approx(f1(WORLD.fresh.labels, fresh), abs=0.012)


def test_without_trees_it_is_the_logistic_stacker() -> None:
    logistic = LanguageLogistic().fit(WORLD.oof)
    no_trees = LightGBMStacker(max_rounds=0).fit(WORLD.oof)
    assert (no_trees.n_rounds, no_trees.trees) == (0, "")
    assert np.array_equal(no_trees.predict(WORLD.fresh), logistic.predict(WORLD.fresh))


def test_trees_are_not_grown_where_there_is_nothing_to_learn() -> None:
    """Labels drawn from the one learner's own probability: the offset knows all there is."""
    rng = np.random.default_rng(0)
    rows = WORLD.oof.rows.drop(columns=["query", "target"])
    scores = rng.beta(2, 1, size=(len(rows), 1))
    rows = rows.assign(label=(rng.random(len(rows)) < scores[:, 0]).astype(np.int8))
    assert LightGBMStacker().fit(PredictionFrame(rows, scores, ("only",))).n_rounds <= 3


def test_rows_of_one_fold_get_no_trees() -> None:
    assert LightGBMStacker().fit(WORLD.oof.take(WORLD.oof.fold == 1)).n_rounds == 0


def test_an_unseen_language_is_scored_as_missing() -> None:
    few = WORLD.fresh.take(np.arange(200))
    as_welsh, as_maltese = (
        STACK.predict(replace(few, rows=few.rows.assign(language=language))) for language in ("cy", "mt")
    )
    assert np.array_equal(as_welsh, as_maltese)
    assert not np.array_equal(as_welsh, STACK.predict(few))
    assert np.isfinite(as_welsh).all()


def test_features_other_than_in_training_are_refused_by_name() -> None:
    bare = replace(WORLD.fresh, rows=WORLD.fresh.rows.drop(columns="target"))
    with pytest.raises(CompetitionError, match="target_length: missing"):
        STACK.predict(bare)


def test_learner_names_may_hold_any_character() -> None:
    names = ("a:b", 'c"[d]', "{e}", "f,ü")
    renamed = replace(WORLD.oof, learners=names)
    fitted = LightGBMStacker().fit(renamed)
    assert np.array_equal(fitted.predict(replace(WORLD.fresh, learners=names)), STACK.predict(WORLD.fresh))


def test_the_same_seed_gives_the_same_trees_whatever_the_threads() -> None:
    few = WORLD.oof.take(np.arange(600))
    first, again, threaded = (LightGBMStacker(max_rounds=1, num_threads=threads).fit(few) for threads in (1, 1, 2))
    assert first == again
    assert np.array_equal(first.predict(WORLD.fresh), threaded.predict(WORLD.fresh))


def test_available_cpus_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_cpus() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_cpus() >= 1


def test_trees_that_help_in_no_other_language_are_not_grown() -> None:
    """What a tree learns of one language alone pays over folds, and is worth nothing in a language it has not seen."""
    rng = np.random.default_rng(0)
    n_rows = 3000
    language = rng.choice(["en", "es", "fr"], n_rows)
    length = rng.integers(1, 9, n_rows)
    logit = rng.normal(0, 1, n_rows)
    turn = {"en": 1.5, "es": -1.5, "fr": 0.0}
    truth = logit + np.array([turn[code] for code in language]) * np.where(length > 4, 1, -1)
    label = (rng.random(n_rows) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    rows = pd.DataFrame({"id": np.arange(n_rows), "language": language, "label": label})
    rows = rows.assign(fold=(np.arange(n_rows) % 4).astype(np.int8), query=["w" * n for n in length], target="t")
    frame = PredictionFrame(rows, (1 / (1 + np.exp(-logit)))[:, None], ("a",))
    by_fold, by_language = (LightGBMStacker(held_out=what).fit(frame).n_rounds for what in ("fold", "language"))
    assert by_fold >= 3
    assert by_language == 0


def test_of_many_rows_some_choose_the_number_of_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trees themselves, and what they start from, are fitted on all; a language that is not drawn is no fault."""
    frame, stacker = WORLD.oof, LightGBMStacker(held_out="language", max_rounds=20)
    whole = stacker.fit(frame)
    monkeypatch.setattr("oof.stack.ROWS_TO_CHOOSE_BY", frame.n_rows)
    assert stacker.fit(frame) == whole
    monkeypatch.setattr("oof.stack.ROWS_TO_CHOOSE_BY", frame.n_rows // 4)
    drawn = stacker.fit(frame)
    assert drawn.offset == whole.offset
    assert drawn.n_rounds != whole.n_rounds
    assert stacker.fit(frame) == drawn
    language = frame.rows["language"].where(np.arange(frame.n_rows) != np.flatnonzero(~_drawn(frame.n_rows, seed=0))[0])
    assert stacker.fit(replace(frame, rows=frame.rows.assign(language=language.fillna("cy")))).n_rounds > 0
