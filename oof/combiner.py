"""What combiners are: recipes that, fitted on a frame of base scores, give values that predict."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from oof.frame import PredictionFrame

Floats = npt.NDArray[np.float64]
Folds = frozenset[int]

NOTHING: Folds = frozenset()


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


class Fits(Protocol):
    """One combiner over one frame: its fits without some of the frame's level-2 folds, none of them made twice.

    A combiner with a method `over(frame)` brings fits of its own, which share what they can; any other is fitted by
    `Refits`. `folds` is the set of folds left out.
    """

    def fit_without(self, folds: Folds) -> FittedCombiner:
        """The combiner fitted on the rows of all other folds."""

    def held_out(self, folds: Folds) -> Floats:
        """The scores of the rows of `folds`, in the frame's order, by `fit_without(folds)`."""

    def inner(self, folds: Folds) -> Floats:
        """The scores of all other rows, in the frame's order, each by a fit without its own fold and without `folds`.

        What a threshold or a choice is made on: the labels of `folds` have no part in it, and a combiner that memorises
        its training rows gains nothing.
        """


class Refits:
    """The fits of any combiner, made by fitting it anew on the rows that remain."""

    def __init__(self, frame: PredictionFrame, fit_without: Callable[[Folds], FittedCombiner]) -> None:
        self._frame = frame
        self.fit_without = cache(fit_without)
        self.held_out = cache(self._held_out)

    @classmethod
    def of(cls, combiner: Combiner, frame: PredictionFrame) -> "Refits":
        """Those of a combiner without fits of its own."""
        return cls(frame, lambda folds: combiner.fit(frame.take(~members(frame, folds))))

    def _held_out(self, folds: Folds) -> Floats:
        return predict(self.fit_without(folds), self._frame.take(members(self._frame, folds)))

    def inner(self, folds: Folds) -> Floats:
        """See `Fits.inner`."""
        return inner_scores(self._frame, folds, self.held_out)


def fits_over(combiner: Combiner, frame: PredictionFrame) -> Fits:
    """The fits of a combiner over a frame."""
    own: Callable[[PredictionFrame], Fits] | None = getattr(combiner, "over", None)
    return own(frame) if own else Refits.of(combiner, frame)


def predict(fitted: FittedCombiner, frame: PredictionFrame) -> Floats:
    """The scores of a frame whose labels are taken away first: what is scored cannot be peeked at."""
    scores = fitted.predict(frame.without_labels())
    assert scores.shape == (frame.n_rows,), f"{fitted.kind} gave {scores.shape} for {frame.n_rows} rows"
    assert scores.min() >= 0, f"{fitted.kind} gave scores below 0"
    assert scores.max() <= 1, f"{fitted.kind} gave scores above 1 or NaN"
    return scores


def members(frame: PredictionFrame, folds: Folds) -> npt.NDArray[np.bool_]:
    """Which rows are of these level-2 folds, ``(n_rows,)``."""
    return np.isin(frame.level2_fold, list(folds))


def inner_scores(frame: PredictionFrame, folds: Folds, held_out: Callable[[Folds], Floats]) -> Floats:
    """`Fits.inner`, put together from the scores of `held_out`."""
    fold = frame.level2_fold
    scores = np.full(frame.n_rows, np.nan)
    for k in sorted(set(np.unique(fold).tolist()) - folds):
        left_out = folds | {k}
        of_k = fold[members(frame, left_out)] == k
        scores[fold == k] = held_out(left_out)[of_k]
    return scores[~members(frame, folds)]
