"""Another share of positives in the test file: how large it is, and where the cut belongs then. No labels needed.

All of it assumes calibrated scores and that nothing but the share of positives changed (label shift). Where queries,
languages or targets change too, the estimate takes that for a change of the share: look at its size before using it.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault

Floats = npt.NDArray[np.float64]

MAX_STEPS = 1000
TOLERANCE = 1e-7
CLIP = 1e-6


@dataclass(frozen=True)
class PriorShift:
    """The share of positives of new rows, and how surely it differs from that of training.

    Attributes
    ----------
    rate, train_rate
        Shares in (0, 1).
    p_value
        Of the likelihood-ratio test that `rate` equals `train_rate`, rows taken as independent.
    """

    rate: float
    train_rate: float
    p_value: float


def estimate_prior(scores: Floats, train_rate: float) -> PriorShift:
    """The share of positives among rows with these calibrated scores, by expectation maximisation.

    Source: Saerens, Latinne, Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities".

    Raises
    ------
    CompetitionError
        No rows, scores outside [0, 1], or a training share that is not between 0 and 1.

    Examples
    --------
    >>> estimate_prior(np.array([0.9, 0.8, 0.9, 0.7]), 0.5).rate > 0.9
    True
    """
    bounded = _checked(scores, train_rate)
    rate = train_rate
    for _ in range(MAX_STEPS):
        before, rate = rate, float(np.clip(adjusted_scores(bounded, train_rate, rate).mean(), CLIP, 1 - CLIP))
        if abs(rate - before) < TOLERANCE:
            break
    odds = rate / train_rate * bounded + (1 - rate) / (1 - train_rate) * (1 - bounded)
    ratio = max(0.0, 2 * float(np.log(odds).sum()))
    return PriorShift(rate, train_rate, math.erfc(math.sqrt(ratio / 2)))


def adjusted_scores(scores: Floats, train_rate: float, rate: float) -> Floats:
    """What calibrated scores become where the share of positives is `rate` (Bayes); their order stays.

    Examples
    --------
    >>> adjusted_scores(np.array([0.5]), 0.5, 0.8).round(6).tolist()
    [0.8]
    """
    positive = scores * (rate / train_rate)
    return np.asarray(positive / (positive + (1 - scores) * ((1 - rate) / (1 - train_rate))), dtype=np.float64)


def expected_f1_threshold(scores: Floats) -> float:
    """The cut with the highest expected F1 of rows whose scores are their probabilities.

    Expected counts stand in for the expectation of the ratio, which is close for hundreds of rows and more.

    Examples
    --------
    >>> expected_f1_threshold(np.array([0.9, 0.8, 0.1, 0.05]))
    0.45
    """
    descending = np.sort(scores)[::-1]
    quality = 2 * np.cumsum(descending) / (descending.sum() + np.arange(1, len(scores) + 1))
    last_of_run = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    best = last_of_run[int(np.argmax(quality[last_of_run]))]
    below = descending[best + 1] if best + 1 < len(descending) else 0.0
    return float((descending[best] + below) / 2)


def prior_matched_threshold(scores: Floats, train_rate: float, *, level: float = 0.01) -> tuple[float, PriorShift]:
    """The cut for these calibrated scores as they are, matched to their share of positives, and that share.

    Where the share does not differ from training's at `level`, the cut is that for the scores as they are.
    """
    shift = estimate_prior(scores, train_rate)
    rate = shift.rate if shift.p_value < level else train_rate
    cut = expected_f1_threshold(adjusted_scores(scores, train_rate, rate))
    return float(adjusted_scores(np.array([cut]), rate, train_rate)[0]), shift


def _checked(scores: Floats, train_rate: float) -> Floats:
    faults = []
    if not len(scores):
        faults.append(Fault("scores", "no rows", "at least one"))
    elif not (scores.min() >= 0 and scores.max() <= 1):
        faults.append(Fault("scores", f"from {scores.min()} to {scores.max()}", "[0, 1]"))
    if not 0 < train_rate < 1:
        faults.append(Fault("train_rate", str(train_rate), "between 0 and 1"))
    if faults:
        raise CompetitionError("no share of positives can be estimated", faults=faults)
    return np.clip(scores, CLIP, 1 - CLIP)
