"""Calibration: are scores probabilities, and ways to make them so, judged on folds that they have not seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from oof.frame import to_logits
from oof.weights import sigmoid

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

N_BINS = 10
TEMPERATURES = (0.05, 20.0)
LOSS_CLIP = 1e-6  # a calibrated 0 that is wrong would cost an infinite log-loss


class Calibrated(Protocol):
    """A fitted map from scores to probabilities that keeps their order, ties aside."""

    def __call__(self, scores: Floats) -> Floats:
        """The probabilities, ``(n_rows,)`` in [0, 1]."""


@dataclass(frozen=True)
class Temperature:
    """Log-odds divided by one number: cures over- and under-confidence, moves no score across one half.

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks".

    Examples
    --------
    >>> Temperature(2.0)(np.array([0.5, 0.9])).round(3).tolist()
    [0.5, 0.75]
    """

    temperature: float

    def __call__(self, scores: Floats) -> Floats:
        """The probabilities, ``(n_rows,)``."""
        return sigmoid(to_logits(scores) / self.temperature)


@dataclass(frozen=True)
class Beta:
    """Log-odds ``a * log(s) - b * log(1 - s) + c`` with `a` and `b` not negative: bends both ends apart.

    Source: Kull, Silva Filho, Flach 2017, "Beta calibration".

    Examples
    --------
    >>> Beta(1.0, 1.0, 0.0)(np.array([0.2, 0.7])).round(6).tolist()
    [0.2, 0.7]
    """

    a: float
    b: float
    c: float

    def __call__(self, scores: Floats) -> Floats:
        """The probabilities, ``(n_rows,)``."""
        low, high = _log_ends(scores).T
        return sigmoid(self.a * low + self.b * high + self.c)


@dataclass(frozen=True)
class Isotonic:
    """A rising line through `knots`: (score, probability) pairs; flat beyond the ends."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        """The probabilities, ``(n_rows,)``."""
        return np.asarray(np.interp(scores, self.scores, self.probabilities), dtype=np.float64)


@dataclass(frozen=True)
class Unchanged:
    """Scores as they are: what the others are compared with."""

    def __call__(self, scores: Floats) -> Floats:
        """The scores."""
        return scores


def fit_temperature(labels: Binary, scores: Floats) -> Temperature:
    """The temperature with the lowest log-loss."""
    from scipy.optimize import minimize_scalar

    logits = to_logits(scores)

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - labels * scaled))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return Temperature(float(np.exp(found.x)))


def fit_beta(labels: Binary, scores: Floats) -> Beta:
    """The curve with the lowest log-loss; an end whose coefficient would be negative is left out."""
    from sklearn.linear_model import LogisticRegression

    ends = _log_ends(scores)
    used = [0, 1]
    while True:
        model = LogisticRegression(C=1e6, tol=1e-6, max_iter=500).fit(ends[:, used], labels)
        found = dict(zip(used, model.coef_[0].tolist(), strict=True))
        used = [end for end, value in found.items() if value >= 0]
        if len(used) == len(found) or not used:
            return Beta(max(found.get(0, 0.0), 0.0), max(found.get(1, 0.0), 0.0), float(model.intercept_[0]))


def _log_ends(scores: Floats) -> Floats:
    """``(n_rows, 2)``: log(s) and -log(1 - s)."""
    bounded = np.clip(scores, LOSS_CLIP, 1 - LOSS_CLIP)
    return np.column_stack([np.log(bounded), -np.log1p(-bounded)])


def fit_isotonic(labels: Binary, scores: Floats) -> Isotonic:
    """The rising step function with the lowest squared error; needs thousands of rows.

    Source: Zadrozny, Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
    """
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, labels)
    return Isotonic(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))


METHODS: dict[str, Callable[[Binary, Floats], Calibrated]] = {
    "none": lambda labels, scores: Unchanged(),
    "temperature": fit_temperature,
    "beta": fit_beta,
    "isotonic": fit_isotonic,
}


def cross_calibrated(method: str, labels: Binary, scores: Floats, fold: npt.NDArray[np.integer]) -> Floats:
    """The calibrated score of every row, ``(n_rows,)``, by a map that was fitted without the row's fold.

    Raises
    ------
    CompetitionError
        A method that is not in `METHODS`, or a single fold.
    """
    folds = np.unique(fold)
    faults = [] if method in METHODS else [Fault("method", repr(method), f"one of {', '.join(METHODS)}")]
    faults += [] if len(folds) > 1 else [Fault("fold", f"{len(folds)}", "2 or more")]
    if faults:
        raise CompetitionError("these scores cannot be calibrated", faults=faults)
    calibrated = np.empty(len(scores))
    for k in folds:
        others = fold != k
        calibrated[~others] = METHODS[method](labels[others], scores[others])(scores[~others])
    return calibrated


def reliability_table(labels: Binary, scores: Floats, *, n_bins: int = N_BINS) -> pd.DataFrame:
    """One line per bin of equally many rows, lowest scores first: what was promised beside what came.

    Columns: `low`, `high` (scores in the bin), `rows`, `mean_score`, `positive_rate`, `gap` (rate minus mean score).
    Rows of one score stay together, so there may be fewer bins.

    Examples
    --------
    >>> table = reliability_table(np.array([0, 1, 1, 1]), np.array([0.2, 0.4, 0.7, 0.9]), n_bins=2)
    >>> table[["rows", "mean_score", "positive_rate"]].round(2).values.tolist()
    [[2.0, 0.3, 0.5], [2.0, 0.8, 1.0]]
    """
    edges = np.unique(np.quantile(scores, np.arange(1, n_bins) / n_bins, method="inverted_cdf"))
    frame = pd.DataFrame({"score": scores, "label": np.asarray(labels, dtype=np.float64)})
    grouped = frame.groupby(np.searchsorted(edges, scores, side="left"))
    table = grouped.agg(
        low=("score", "min"),
        high=("score", "max"),
        rows=("label", "size"),
        mean_score=("score", "mean"),
        positive_rate=("label", "mean"),
    )
    return table.assign(gap=table["positive_rate"] - table["mean_score"]).reset_index(drop=True)


def expected_calibration_error(labels: Binary, scores: Floats, *, n_bins: int = N_BINS) -> float:
    """The mean distance of promise and outcome over the bins of `reliability_table`, in [0, 1].

    Perfectly calibrated scores have about ``sqrt(n_bins / n_rows) / 3``, not 0: bins are samples.

    Examples
    --------
    >>> round(expected_calibration_error(np.array([0, 1, 1, 1]), np.array([0.2, 0.4, 0.7, 0.9]), n_bins=2), 3)
    0.2
    """
    table = reliability_table(labels, scores, n_bins=n_bins)
    return float(np.average(table["gap"].abs(), weights=table["rows"]))


def calibration_report(labels: Binary, scores: Floats, fold: npt.NDArray[np.integer]) -> pd.DataFrame:
    """One line per method: `method`, `log_loss`, `calibration_error`, `largest_gap` of its cross-calibrated scores."""
    lines = []
    for method in METHODS:
        calibrated = cross_calibrated(method, labels, scores, fold)
        bounded = np.clip(calibrated, LOSS_CLIP, 1 - LOSS_CLIP)
        lines.append(
            {
                "method": method,
                "log_loss": float(-np.mean(np.where(labels == 1, np.log(bounded), np.log1p(-bounded)))),
                "calibration_error": expected_calibration_error(labels, calibrated),
                "largest_gap": float(reliability_table(labels, calibrated)["gap"].abs().max()),
            }
        )
    return pd.DataFrame(lines)
