"""Blend weights: greedy selection for F1, and convex weights for log-loss. Arrays in, weights out."""

from typing import Any

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError
from oof.threshold import best_threshold

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]


def greedy_weights(labels: Binary, values: Floats, *, n_rounds: int) -> Floats:
    """The weights that greedy selection picks, ``(n_learners,)``, for values in [0, 1].

    The objective is the F1 at the best threshold. It starts from the best n learners, n chosen for best F1,
    adds in each round the learner (again, if need be) that helps most or hurts least, and keeps the best
    ensemble on the way. Sums run along, so that a trial costs one addition and one threshold search.

    Source: Caruana, Niculescu-Mizil, Crew, Ksikes 2004, "Ensemble selection from libraries of models".
    """
    n_learners = values.shape[1]
    columns = np.ascontiguousarray(values.T)
    singles = [best_threshold(labels, column).f1 for column in columns]
    by_quality = np.argsort(-np.array(singles), kind="stable")
    sums = np.cumsum(columns[by_quality], axis=0)
    starts = [best_threshold(labels, np.minimum(sums[n] / (n + 1), 1.0)).f1 for n in range(n_learners)]
    n_start = int(np.argmax(starts)) + 1
    picks = np.zeros(n_learners)
    picks[by_quality[:n_start]] = 1
    total, best_f1, best_picks = sums[n_start - 1], starts[n_start - 1], picks.copy()
    for _ in range(n_rounds):
        size = picks.sum() + 1
        trials = [best_threshold(labels, np.minimum((total + column) / size, 1.0)).f1 for column in columns]
        choice = int(np.argmax(trials))
        picks[choice] += 1
        total = total + columns[choice]
        if trials[choice] > best_f1:
            best_f1, best_picks = trials[choice], picks.copy()
    return np.asarray(best_picks / best_picks.sum(), dtype=np.float64)


def convex_weights(labels: Binary, values: Floats, *, loss: str) -> Floats:
    """The weights on the simplex with the lowest log-loss, ``(n_learners,)``.

    The loss is convex in the weights both for probabilities and for logits. They are written as a softmax (so
    that the constraint holds by itself) and found by L-BFGS with the analytic gradient.

    Parameters
    ----------
    values
        ``(n_rows, n_learners)``: probabilities for `loss` "probability", log-odds for "logit".
    """
    from scipy.optimize import minimize

    if loss not in LOSSES:
        raise CompetitionError(f"there is no log-loss in space {loss!r}", advice=f"take one of {', '.join(LOSSES)}")
    targets = labels.astype(np.float64)

    def objective(raw: Floats) -> tuple[float, Floats]:
        weights = _softmax(raw)
        value, gradient = LOSSES[loss](weights, values, targets)
        return value, weights * (gradient - weights @ gradient)

    options: Any = {"maxiter": 300, "ftol": 1e-13, "gtol": 1e-8}
    found = minimize(objective, np.zeros(values.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return _softmax(found.x)


def probability_loss(weights: Floats, values: Floats, labels: Floats) -> tuple[float, Floats]:
    """The mean log-loss of weighted probabilities, and its gradient in the weights."""
    p = np.clip(values @ weights, 1e-9, 1 - 1e-9)
    loss = -np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    return float(loss), ((p - labels) / (p * (1 - p))) @ values / len(labels)


def logit_loss(weights: Floats, values: Floats, labels: Floats) -> tuple[float, Floats]:
    """The mean log-loss of weighted log-odds, and its gradient in the weights."""
    logits = values @ weights
    loss = np.mean(np.logaddexp(0.0, logits) - labels * logits)
    return float(loss), (sigmoid(logits) - labels) @ values / len(labels)


LOSSES = {"probability": probability_loss, "logit": logit_loss}


def sigmoid(logits: Floats) -> Floats:
    """The probabilities of log-odds, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)


def _softmax(raw: Floats) -> Floats:
    powers = np.exp(raw - raw.max())
    return np.asarray(powers / powers.sum(), dtype=np.float64)
