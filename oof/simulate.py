"""Simulated base learners with a known truth: what a combiner scores on fresh rows is measured, not guessed.

Each row has a true log-odds of relevance. A learner sees it through three errors: one shared by all
learners (no combination can remove it), one shared by the rows of a query, one of its own. With
`language_quality` the size of its own error depends on the language, so that a combiner gains by knowing
the language.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from oof.frame import PredictionFrame

Floats = npt.NDArray[np.float64]

LANGUAGES = ("en", "es", "fr", "ja", "ko", "pt")
ROWS_PER_QUERY = 5
VOCABULARY = tuple(f"{a}{b}{c}" for a in ("re", "bo", "ti", "ka") for b in ("lan", "mis", "vor") for c in "aeiou")
PRIOR_LOGIT = 1.1  # about 65 % positive, as in the competition that we model
TRUTH_SPREAD = 3.0
QUERY_ERROR = 0.6


class Simulated(NamedTuple):
    """Out-of-fold scores to fit on, and fresh rows (no folds) from the same truth to measure on."""

    oof: PredictionFrame
    fresh: PredictionFrame


@dataclass(frozen=True)
class _World:
    """What the out-of-fold and the fresh rows have in common: the learners' qualities."""

    own_error: Floats  # (n_learners, n_languages): the spread of each learner's own error
    sharpness: Floats  # (n_learners,): over- or under-confidence
    shift: Floats  # (n_learners,)
    correlation: float
    noise_learners: int


def simulate(
    n_rows: int,
    n_learners: int,
    seed: int,
    *,
    language_quality: bool,
    correlation: float,
    n_folds: int = 5,
    noise_learners: int = 0,
    n_fresh: int | None = None,
) -> Simulated:
    """Scores of `n_learners` useful learners and `noise_learners` useless ones.

    Parameters
    ----------
    n_rows
        Of the out-of-fold frame; about `ROWS_PER_QUERY` rows share a query, which is their group.
    language_quality
        Whether a learner's quality differs by language.
    correlation
        The share of the error variance that all learners have in common, in [0, 1].
    n_fresh
        Fresh rows; as many as `n_rows` if not given.
    """
    rng = np.random.default_rng(seed)
    own_error = np.repeat(rng.uniform(1.4, 2.4, size=(n_learners, 1)), len(LANGUAGES), axis=1)
    if language_quality:
        own_error = own_error * rng.choice([0.4, 1.0, 2.5], size=own_error.shape)
    world = _World(
        own_error=own_error,
        sharpness=rng.uniform(0.5, 1.1, size=n_learners),
        shift=rng.normal(0.0, 0.3, size=n_learners),
        correlation=correlation,
        noise_learners=noise_learners,
    )
    oof = _frame(world, n_rows, rng, first_id=0, n_folds=n_folds)
    return Simulated(oof, _frame(world, n_fresh or n_rows, rng, first_id=n_rows, n_folds=None))


def _frame(
    world: _World, n_rows: int, rng: np.random.Generator, *, first_id: int, n_folds: int | None
) -> PredictionFrame:
    n_queries = max(n_folds or 1, n_rows // ROWS_PER_QUERY)
    query = np.concatenate(
        [np.arange(min(n_queries, n_rows)), rng.integers(n_queries, size=max(0, n_rows - n_queries))]
    )
    language = rng.integers(len(LANGUAGES), size=n_queries)[query]
    truth = rng.normal(PRIOR_LOGIT, TRUTH_SPREAD, size=n_rows)
    label = (rng.random(n_rows) < _sigmoid(truth)).astype(np.int8)
    rows = pd.DataFrame(
        {
            "id": np.arange(first_id, first_id + n_rows),
            "language": np.array(LANGUAGES)[language],
            **_texts(query, truth, rng),
            "label": pd.array(label, dtype="Int8"),
            "group": first_id + query,
        }
    )
    if n_folds is not None:
        rows["fold"] = (query % n_folds).astype(np.int8)
    scores = _scores(world, truth, query, language, rng)
    return PredictionFrame(rows, scores, tuple(f"learner_{j}" for j in range(scores.shape[1])))


def _scores(
    world: _World,
    truth: Floats,
    query: npt.NDArray[np.int64],
    language: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    n_learners, n_rows = len(world.own_error), len(truth)
    shared = rng.normal(size=n_rows)
    by_query = rng.normal(size=(n_learners, query.max() + 1))[:, query]
    own = rng.normal(size=(n_learners, n_rows))
    mixed = np.sqrt(world.correlation) * shared + np.sqrt(1 - world.correlation) * own
    error = world.own_error[:, language] * mixed + QUERY_ERROR * by_query
    logits = world.sharpness[:, None] * (truth + error) + world.shift[:, None]
    noise = rng.normal(0.5, 1.0, size=(world.noise_learners, n_rows))
    return _sigmoid(np.concatenate([logits, noise]).T)


def _texts(query: npt.NDArray[np.int64], truth: Floats, rng: np.random.Generator) -> dict[str, list[str]]:
    """A two-word query and a three-word target; a relevant target rather repeats a word of its query."""
    vocabulary = np.array(VOCABULARY)
    words = rng.integers(len(VOCABULARY), size=(query.max() + 1, 2))[query]
    others = rng.integers(len(VOCABULARY), size=(len(query), 3))
    repeats = rng.random(len(query)) < _sigmoid(0.5 * truth)
    others[:, 0] = np.where(repeats, words[:, 0], others[:, 0])
    return {
        "query": [" ".join(row) for row in vocabulary[words]],
        "target": [" ".join(row) for row in vocabulary[others]],
    }


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)
