"""Cross-fitting: level-2 scores, thresholds and decisions for every row, made without that row's fold.

A combiner (a blend or a stacker) is a recipe; fitting it on a frame gives a value that predicts. Whatever
has been chosen by looking at labels (weights, hyperparameters, threshold) is scored only on folds that it
has not seen.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from oof.frame import PredictionFrame
from oof.state import COMBINER_FILE, read_state
from oof.threshold import decide, steady_threshold

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]
T = TypeVar("T", bound=np.generic)

THRESHOLD_FILE = "threshold.json"
MIN_FOLDS = 3


class FittedCombiner(Protocol):
    """A fitted value that gives one score per row; it is written to a folder and read back by its `kind`."""

    @property
    def kind(self) -> str:
        """The key in `readers`."""

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]; labels are not looked at."""

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json` (and model files beside it) into `folder`, which exists."""


class Combiner(Protocol):
    """A recipe for combining base learners; `fit` sees the labels of the frame it is given, and no others."""

    @property
    def name(self) -> str:
        """What tables and files call it."""

    @property
    def kind(self) -> str:
        """The family of the recipe: single, mean, greedy, convex, blend, logistic, stack ..."""

    def fit(self, frame: PredictionFrame) -> FittedCombiner:
        """A new fitted value. The same frame gives the same value; the frame has labels and folds."""


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
        By fold; each was chosen on the other folds.
    """

    name: str
    scores: Floats
    decisions: Binary
    thresholds: dict[int, float]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A combiner fitted on all rows, and the threshold that goes with it."""

    combiner: FittedCombiner
    threshold: float

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        return _predict(self.combiner, frame)

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
        threshold = json.loads((folder / THRESHOLD_FILE).read_text(encoding="utf-8"))["threshold"]
        return cls(read_combiner(folder), float(threshold))


def cross_fit(combiner: Combiner, frame: PredictionFrame) -> CrossFitted:
    """Honest level-2 scores and decisions: no row had a part in the weights or the threshold used on it.

    For fold k the combiner, hyperparameters included, is fitted on the other folds. Its threshold is chosen
    on the other folds too, on scores that are themselves out of fold: those of fold j come from a fit
    without j and k. A combiner that memorises its training rows therefore gains nothing. That fit also
    serves fold k's scores when j is held out, so K folds take K + K(K-1)/2 fits, not K x K.

    Rows are fitted in the order of their ids: the file's order changes nothing, to the last bit.

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
    scores = _without_each_fold(combiner, ordered)
    inner = _without_each_pair(combiner, ordered)
    labels, fold = ordered.labels, ordered.fold
    thresholds = {
        k: steady_threshold(labels[fold != k], inner[fold != k, position]).threshold for position, k in enumerate(folds)
    }
    decisions = decide(scores, np.array([thresholds[k] for k in fold]))
    return CrossFitted(combiner.name, _unsorted(scores, order), _unsorted(decisions, order), thresholds)


def cross_fitted_scores(combiner: Combiner, frame: PredictionFrame) -> Floats:
    """The score of every row, ``(n_rows,)``, by a fit without its fold: `cross_fit` without thresholds."""
    order = frame.id_order()
    return _unsorted(_without_each_fold(combiner, frame.take(order)), order)


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
    scores = cross_fitted_scores(combiner, frame) if cross_fitted is None else cross_fitted.scores
    cut = steady_threshold(frame.labels, scores)
    return Fitted(combiner.fit(frame.take(frame.id_order())), cut.threshold)


def readers() -> dict[str, Callable[[Path], FittedCombiner]]:
    """How to read a fitted combiner of each kind back from its folder."""
    from oof.blend import HardVotes, WeightedMean
    from oof.stack import FittedLightGBM, FittedLogistic

    return {
        "weighted": WeightedMean.from_folder,
        "votes": HardVotes.from_folder,
        "logistic": FittedLogistic.from_folder,
        "lightgbm": FittedLightGBM.from_folder,
    }


def read_combiner(folder: Path) -> FittedCombiner:
    """The fitted combiner in `folder`, by the `kind` in its `combiner.json`."""
    kind = read_state(folder).get("kind", "")
    if kind not in readers():
        fault = Fault(str(folder / COMBINER_FILE), f"kind {kind!r}", f"one of {', '.join(readers())}")
        raise CompetitionError("no combiner of this kind can be read", faults=[fault])
    return readers()[kind](folder)


def _folds(frame: PredictionFrame, *, at_least: int) -> list[int]:
    folds = [int(k) for k in np.unique(frame.fold)]
    if len(folds) < at_least:
        raise CompetitionError(
            "too few folds to cross-fit",
            faults=[Fault("fold", f"{len(folds)}: {folds}", f"{at_least} or more")],
            advice="split with more folds; five is usual",
        )
    return folds


def _without_each_fold(combiner: Combiner, frame: PredictionFrame) -> Floats:
    """``(n_rows,)``: each row's score by a fit without its fold."""
    scores = np.full(frame.n_rows, np.nan)
    for k in _folds(frame, at_least=2):
        held_out = frame.fold == k
        scores[held_out] = _predict(combiner.fit(frame.take(~held_out)), frame.take(held_out))
    return scores


def _without_each_pair(combiner: Combiner, frame: PredictionFrame) -> Floats:
    """``(n_rows, n_folds)``: column k holds scores by fits that saw neither the row's fold nor fold k.

    NaN where the row is of fold k itself.
    """
    folds = _folds(frame, at_least=MIN_FOLDS)
    scores = np.full((frame.n_rows, len(folds)), np.nan)
    for (a, fold_a), (b, fold_b) in combinations(enumerate(folds), 2):
        in_a, in_b = frame.fold == fold_a, frame.fold == fold_b
        fitted = combiner.fit(frame.take(~(in_a | in_b)))
        scores[in_a, b] = _predict(fitted, frame.take(in_a))
        scores[in_b, a] = _predict(fitted, frame.take(in_b))
    return scores


def _predict(fitted: FittedCombiner, frame: PredictionFrame) -> Floats:
    """The scores of a frame whose labels are taken away first: what is scored cannot be peeked at."""
    scores = fitted.predict(frame.without_labels())
    assert scores.shape == (frame.n_rows,), f"{fitted.kind} gave {scores.shape} for {frame.n_rows} rows"
    assert scores.min() >= 0, f"{fitted.kind} gave scores below 0"
    assert scores.max() <= 1, f"{fitted.kind} gave scores above 1 or NaN"
    return scores


def _unsorted(values: npt.NDArray[T], order: npt.NDArray[np.intp]) -> npt.NDArray[T]:
    """Values of sorted rows, back in the rows' own order."""
    back = np.empty_like(values)
    back[order] = values
    return back
