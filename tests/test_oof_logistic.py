"""Logistic stackers: the optimum that others find, and languages told apart only as far as they differ."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from competition.metrics import f1
from oof.crossfit import fit_final
from oof.frame import PredictionFrame
from oof.logistic import STRENGTHS, LanguageFits, LanguageLogistic, LogisticStacker
from oof.simulate import LANGUAGES, simulate

APART = simulate(6000, 4, 0, language_quality=True, correlation=0.3, n_fresh=40_000)
ALIKE = simulate(6000, 4, 0, language_quality=False, correlation=0.3, n_fresh=10)


def _rows_of(frame: PredictionFrame, language: str) -> PredictionFrame:
    return frame.take((frame.rows["language"] == language).to_numpy())


def test_without_penalty_it_is_a_logistic_regression_on_logits() -> None:
    fitted = LogisticStacker(l2=1e-6).fit(APART.oof)
    reference = LogisticRegression(C=1e9, tol=1e-8).fit(APART.oof.logits(), APART.oof.labels)
    expected = reference.predict_proba(APART.fresh.logits())[:, 1]
    assert fitted.predict(APART.fresh) == pytest.approx(expected, abs=1e-4)


def test_a_learner_that_never_varies_does_no_harm() -> None:
    scores = APART.oof.scores.copy()
    scores[:, 1] = 0.5
    fitted = LogisticStacker(language_l2=10.0).fit(replace(APART.oof, scores=scores))
    assert fitted.coefficients[1] == pytest.approx(0, abs=1e-6)


def test_languages_wholly_apart_are_regressions_of_their_own() -> None:
    fitted = LogisticStacker(l2=1e-6, language_l2=1e-6).fit(APART.oof)
    for language in LANGUAGES:
        oof, fresh = _rows_of(APART.oof, language), _rows_of(APART.fresh, language)
        reference = LogisticRegression(C=1e9, tol=1e-8).fit(oof.logits(), oof.labels)
        assert fitted.predict(fresh) == pytest.approx(reference.predict_proba(fresh.logits())[:, 1], abs=1e-3)


def test_languages_hardly_apart_are_the_plain_stacker() -> None:
    fitted, plain = (LogisticStacker(language_l2=each).fit(APART.oof) for each in (1e9, float("inf")))
    assert fitted.predict(APART.fresh) == pytest.approx(plain.predict(APART.fresh), abs=1e-4)
    assert plain.by_language == {}


def test_partial_pooling_is_the_optimum_that_bfgs_finds() -> None:
    """Two standardised learners, so that the objective here is the one that the stacker has."""
    oof = simulate(400, 2, 1, language_quality=True, correlation=0.2).oof
    logits = oof.logits()
    design = np.column_stack([(logits - logits.mean(axis=0)) / logits.std(axis=0), np.ones(oof.n_rows)])
    names, codes = np.unique(oof.rows["language"].to_numpy().astype(str), return_inverse=True)

    def objective(values: np.ndarray) -> float:
        common, own = values[:3], values[3:].reshape(len(names), 3)
        z = (design * (common + own[codes])).sum(axis=1)
        return float(
            np.logaddexp(0, z).sum() - oof.labels @ z + 0.5 * (common[:2] ** 2).sum() + 0.5 * 20 * (own**2).sum()
        )

    best = minimize(objective, np.zeros(3 + 3 * len(names)), method="BFGS", options={"gtol": 1e-6}).x
    common, own = best[:3], best[3:].reshape(len(names), 3)
    expected = (design * (common + own[codes])).sum(axis=1)
    assert LogisticStacker(language_l2=20.0).fit(oof).logit(oof) == pytest.approx(expected, abs=1e-3)


def test_where_learners_are_good_at_different_languages_it_wins_on_fresh_rows() -> None:
    apart, plain = (fit_final(each, APART.oof).decide(APART.fresh) for each in (LanguageLogistic(), LogisticStacker()))
    assert f1(APART.fresh.labels, apart) > f1(APART.fresh.labels, plain) + 0.005


def test_the_strength_follows_how_much_languages_differ() -> None:
    apart, alike = (LanguageFits(world.oof, l2=1.0).strength(frozenset()) for world in (APART, ALIKE))
    assert apart < STRENGTHS[-1]
    assert alike > apart


def test_a_language_that_it_does_not_know_gets_the_common_coefficients() -> None:
    fitted = LogisticStacker(language_l2=10.0).fit(APART.oof)
    welsh = replace(APART.fresh, rows=APART.fresh.rows.assign(language="cy"))
    assert fitted.logit(welsh) == pytest.approx(welsh.logits() @ np.array(fitted.coefficients) + fitted.intercept)


def test_labels_that_scores_tell_perfectly_do_not_break_it() -> None:
    oof = APART.oof
    perfect = replace(oof, scores=np.column_stack([oof.scores, np.where(oof.labels == 1, 1.0, 0.0)]),
                      learners=(*oof.learners, "oracle"))  # fmt: skip
    fitted = LanguageLogistic().fit(perfect)
    assert f1(oof.labels, fitted.predict(perfect) >= 0.5) == 1.0
