"""What a host judges by: metrics of decisions and of scores, each a number of which more is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.metrics import auc, f1
from competition.tasks import MetricName

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

SURE = 1e-7
"""A score is taken for this far from 0 and 1 at least: one row that was surely wrong must not cost infinitely much."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes
    ----------
    of
        Labels, and decisions or scores, ``(n_rows,)`` each, to a number; more is better.
    of_scores
        It judges scores; otherwise decisions, and the threshold is the one that is best for it.
    """

    of: Callable[[npt.ArrayLike, npt.ArrayLike], float]
    of_scores: bool = False

    def judge(self, labels: npt.ArrayLike, *, decisions: npt.ArrayLike, scores: npt.ArrayLike) -> float:
        """The metric of whichever of the two it judges."""
        return self.of(labels, scores if self.of_scores else decisions)


def macro_f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """The mean of the F1 of label 1 and that of label 0.

    Examples
    --------
    >>> round(macro_f1([1, 1, 0, 0], [1, 0, 0, 0]), 4)  # (2/3 + 4/5) / 2
    0.7333
    """
    label, decision = np.asarray(labels), np.asarray(decisions)
    return (f1(label, decision) + f1(1 - label, 1 - decision)) / 2


def accuracy(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """The share of rows that are decided right.

    Examples
    --------
    >>> accuracy([1, 1, 0, 0], [1, 0, 0, 0])
    0.75
    """
    return float(np.mean(np.asarray(labels) == np.asarray(decisions)))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The mean precision at each positive row, from the highest score down; rows of one score count together.

    Examples
    --------
    >>> average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])  # (1 + 2/3) / 2
    0.8333333333333333
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(np.asarray(labels, dtype=np.int8), np.asarray(scores, dtype=np.float64)))


def negative_log_loss(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Minus the mean log-loss, so that more is better; scores within `SURE` of 0 and 1 count as that far from them.

    Examples
    --------
    >>> round(negative_log_loss([1, 0], [0.5, 0.5]), 4)
    -0.6931
    """
    label, score = np.asarray(labels), np.clip(np.asarray(scores, dtype=np.float64), SURE, 1 - SURE)
    return float(np.mean(np.log(np.where(label == 1, score, 1 - score))))


METRICS: Mapping[MetricName, Metric] = {
    "f1": Metric(f1),
    "macro_f1": Metric(macro_f1),
    "accuracy": Metric(accuracy),
    "auc": Metric(auc, of_scores=True),
    "average_precision": Metric(average_precision, of_scores=True),
    "log_loss": Metric(negative_log_loss, of_scores=True),
}
"""By the name that ``competition.toml`` has for it."""


def cut_metric(metric: MetricName) -> MetricName:
    """The metric that a threshold is chosen by: the host's own, or F1 where that judges scores and needs no cut."""
    return "f1" if METRICS[metric].of_scores else metric
