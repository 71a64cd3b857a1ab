"""Cross-fitting: level-2 scores, thresholds and decisions for every row, made without that row's fold.

A combiner (a blend or a stacker) is a recipe; fitting it on a frame gives a value that predicts. Whatever
has been chosen by looking at labels (weights, hyperparameters, threshold) is scored only on folds that it
has not seen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from competition.json_files import read_json
from competition.judging import cut_metric
from oof.combiner import NOTHING, Combiner, Fits, FittedCombiner, fits_over, members, predict
from oof.frame import PredictionFrame
from oof.readers import read_combiner
from oof.state import MAKE_AGAIN
from oof.threshold import decide, steady_threshold

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]
T = TypeVar("T", bound=np.generic)

THRESHOLD_FILE = "threshold.json"
MIN_FOLDS = 3


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Scores and decisions for every row of a frame, in its order, made without the row's fold.

    Attributes
    ----------
    name
        The combiner's.
    scores
        ``(n_rows,)`` in [0, 1].
    decisions
        ``(n_rows,)`` 0 or 1: each fold's scores cut at its own threshold.
    thresholds
        By level-2 fold; each was chosen on the other folds.
    fits
        Of the combiner, over the frame in the order of its ids.
    """

    name: str
    scores: Floats
    decisions: Binary
    thresholds: dict[int, float]
    fits: Fits


@dataclass(frozen=True, eq=False)
class Fitted:
    """A combiner fitted on all rows, and the threshold that goes with it."""

    combiner: FittedCombiner
    threshold: float

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        return predict(self.combiner, frame)

    def decide(self, frame: PredictionFrame) -> Binary:
        """The 0/1 decision for every row, ``(n_rows,)``."""
        return decide(self.predict(frame), self.threshold)

    def to_folder(self, folder: Path) -> None:
        """Write the combiner's files and `threshold.json` into `folder`, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self.combiner.to_folder(folder)
        (folder / THRESHOLD_FILE).write_text(json.dumps({"threshold": self.threshold}), encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: Path) -> "Fitted":
        """What `to_folder` wrote; it predicts the same scores to the last bit."""
        what = "an ensemble's threshold"
        found = read_json(folder / THRESHOLD_FILE, {"threshold": float}, what=what, advice=MAKE_AGAIN)
        return cls(read_combiner(folder), float(found["threshold"]))


def cross_fit(combiner: Combiner, frame: PredictionFrame) -> CrossFitted:
    """Honest level-2 scores and decisions: no row had a part in the weights or the threshold used on it.

    For fold k the combiner, hyperparameters included, is fitted on the other folds. Its threshold is chosen
    on the other folds too, on scores that are themselves out of fold: those of fold j come from a fit
    without j and k. A combiner that memorises its training rows therefore gains nothing. That fit also
    serves fold k's scores when j is held out, so K folds take K + K(K-1)/2 fits, not K x K.

    Folds are `PredictionFrame.level2_fold`. Rows are fitted in the order of their ids: the file's order changes
    nothing, to the last bit.

    Limit: the base scores of the other folds come from models that saw fold k's labels in training. This mild
    optimism is that of all stacking on out-of-fold scores; only fresh rows are free of it.

    Raises
    ------
    CompetitionError
        Labels or folds are missing, or there are fewer than three folds.
    """
    order = frame.id_order()
    ordered = frame.take(order)
    folds = _folds(ordered, at_least=MIN_FOLDS)
    fits = fits_over(combiner, ordered)
    scores, thresholds = np.empty(frame.n_rows), {}
    for k in folds:
        held_out = members(ordered, frozenset({k}))
        scores[held_out] = fits.held_out(frozenset({k}))
        inner = fits.inner(frozenset({k}))
        thresholds[k] = steady_threshold(ordered.labels[~held_out], inner, metric=cut_metric(frame.metric)).threshold
    decisions = decide(scores, np.array([thresholds[k] for k in ordered.level2_fold]))
    return CrossFitted(combiner.name, _unsorted(scores, order), _unsorted(decisions, order), thresholds, fits)


def cross_fitted_scores(combiner: Combiner, frame: PredictionFrame) -> Floats:
    """The score of every row, ``(n_rows,)``, by a fit without its fold: `cross_fit` without thresholds."""
    order = frame.id_order()
    ordered = frame.take(order)
    fits, scores = fits_over(combiner, ordered), np.empty(frame.n_rows)
    for k in _folds(ordered, at_least=2):
        scores[members(ordered, frozenset({k}))] = fits.held_out(frozenset({k}))
    return _unsorted(scores, order)


def fit_final(combiner: Combiner, frame: PredictionFrame, *, cross_fitted: CrossFitted | None = None) -> Fitted:
    """The combiner fitted on all rows, with the steady threshold of the cross-fitted scores of all rows.

    Give the result of `cross_fit` for the same combiner and frame to save its fits.
    """
    if cross_fitted is not None and (cross_fitted.name, len(cross_fitted.scores)) != (
        combiner.name,
        frame.n_rows,
    ):
        raise CompetitionError(
            "these cross-fitted scores belong to something else",
            faults=[
                Fault(
                    cross_fitted.name,
                    f"{len(cross_fitted.scores):,} rows",
                    f"{combiner.name}, {frame.n_rows:,}",
                )
            ],
        )
    ordered = frame.take(frame.id_order())
    _folds(ordered, at_least=2)
    fits = cross_fitted.fits if cross_fitted else fits_over(combiner, ordered)
    cut = steady_threshold(ordered.labels, fits.inner(NOTHING), metric=cut_metric(frame.metric))
    return Fitted(fits.fit_without(NOTHING), cut.threshold)


def _folds(frame: PredictionFrame, *, at_least: int) -> list[int]:
    folds = [int(k) for k in np.unique(frame.level2_fold)]
    if len(folds) < at_least:
        raise CompetitionError(
            "too few folds to cross-fit",
            faults=[Fault("folds", f"{len(folds)}: {folds}", f"{at_least} or more")],
            advice="split with more folds; five is usual",
        )
    return folds


def _unsorted(values: npt.NDArray[T], order: npt.NDArray[np.intp]) -> npt.NDArray[T]:
    """Values of sorted rows, back in the rows' own order."""
    back = np.empty_like(values)
    back[order] = values
    return back
