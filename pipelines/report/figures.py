"""Figures of a task as frames: pure functions of scores, decisions and labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.metrics import f1, f1_from_counts

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

N_CUTS = 100


def f1_by(
    labels: Binary, decisions: Mapping[str, Binary], by: npt.NDArray[np.generic], *, overall: str = "all"
) -> pd.DataFrame:
    """F1 of every model (rows) in all and per value of `by` (columns), and a last line `rows`: how many there are.

    Examples
    --------
    >>> table = f1_by(np.array([1, 1]), {"a": np.array([1, 0])}, np.array(["en", "fr"]))
    >>> table.to_dict("list")
    {'model': ['a', 'rows'], 'all': [0.6666666666666666, 2.0], 'en': [1.0, 1.0], 'fr': [0.0, 1.0]}
    """
    members = {overall: np.ones(len(labels), dtype=bool)} | {str(name): by == name for name in np.unique(by)}
    table = {
        part: [*(f1(labels[rows], found[rows]) for found in decisions.values()), float(rows.sum())]
        for part, rows in members.items()
    }
    return pd.DataFrame({"model": [*decisions, "rows"], **table})


def confusion_by(labels: Binary, decisions: Binary, by: npt.NDArray[np.generic]) -> pd.DataFrame:
    """One line for all rows and per value of `by`: how many are decided how, with precision, recall and F1.

    Columns: `language`, `rows`, `true_positives`, `false_positives`, `false_negatives`, `true_negatives`, `precision`,
    `recall`, `f1`.

    Examples
    --------
    >>> table = confusion_by(np.array([1, 0, 1]), np.array([1, 1, 0]), np.array(["en", "en", "fr"]))
    >>> table[["language", "rows", "true_positives", "false_positives", "false_negatives", "f1"]].values.tolist()
    [['all', 3, 1, 1, 1, 0.5], ['en', 2, 1, 1, 0, 0.6666666666666666], ['fr', 1, 0, 0, 1, 0.0]]
    """
    members = {"all": np.ones(len(labels), dtype=bool)} | {str(name): by == name for name in np.unique(by)}
    return pd.DataFrame(
        [{"language": name, **_confusion(labels[rows], decisions[rows])} for name, rows in members.items()]
    )


def _confusion(labels: Binary, decisions: Binary) -> dict[str, float]:
    truth, decided = labels == 1, decisions == 1
    found, alarms, missed = (int(rows.sum()) for rows in (truth & decided, ~truth & decided, truth & ~decided))
    return {
        "rows": len(labels),
        "true_positives": found,
        "false_positives": alarms,
        "false_negatives": missed,
        "true_negatives": len(labels) - found - alarms - missed,
        "precision": found / (found + alarms) if found + alarms else np.nan,
        "recall": found / (found + missed) if found + missed else np.nan,
        "f1": float(f1_from_counts(found, alarms, missed)),
    }


def correlations(scores: Floats, names: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlation of each two columns of `scores`: `model`, then a column per name.

    Ranks, because learners differ in their calibration; NaN for a learner that gives every row the same score.

    Examples
    --------
    >>> correlations(np.array([[0.1, 0.9], [0.2, 0.3]]), ["a", "b"]).round(2).values.tolist()
    [['a', 1.0, -1.0], ['b', -1.0, 1.0]]
    """
    table = pd.DataFrame(scores, columns=list(names)).rank().corr()
    return table.rename_axis("model").reset_index()


def disagreements(decisions: Mapping[str, Binary]) -> pd.DataFrame:
    """The share of rows that each two models decide differently: `model`, then a column per name.

    Examples
    --------
    >>> disagreements({"a": np.array([1, 0]), "b": np.array([1, 1])}).values.tolist()
    [['a', 0.0, 0.5], ['b', 0.5, 0.0]]
    """
    table = {name: [float((one != other).mean()) for other in decisions.values()] for name, one in decisions.items()}
    return pd.DataFrame({"model": list(decisions), **table})


def cut_curve(labels: Binary, scores: Floats) -> pd.DataFrame:
    """F1, precision and recall at `N_CUTS` + 1 even thresholds: `threshold`, `f1`, `precision`, `recall`.

    A row is decided positive if its score is at least the threshold. Precision is NaN where no row is.

    Examples
    --------
    >>> cut_curve(np.array([0, 1]), np.array([0.2, 0.6])).iloc[[0, 50, 100]].round(2).values.tolist()
    [[0.0, 0.67, 0.5, 1.0], [0.5, 1.0, 1.0, 1.0], [1.0, 0.0, nan, 0.0]]
    """
    cuts = np.arange(N_CUTS + 1) / N_CUTS
    negative, positive = (np.sort(scores[labels == value]) for value in (0, 1))
    found = len(positive) - np.searchsorted(positive, cuts)
    alarms = len(negative) - np.searchsorted(negative, cuts)
    with np.errstate(invalid="ignore"):
        precision = found / np.where(found + alarms, found + alarms, np.nan)
    recall = found / max(len(positive), 1)
    quality = f1_from_counts(found, alarms, len(positive) - found)
    return pd.DataFrame({"threshold": cuts, "f1": quality, "precision": precision, "recall": recall})


def learning_table(evaluations: Iterable[tuple[str, int, Sequence[Mapping[str, Any]]]]) -> pd.DataFrame:
    """The evaluations of (learner, fold, evaluations): `learner`, `fold`, `step`, `f1`, `auc`, `log_loss`."""
    lines = [
        {"learner": learner, "fold": fold, **{key: one.get(key, np.nan) for key in ("step", "f1", "auc", "log_loss")}}
        for learner, fold, found in evaluations
        for one in found
    ]
    return pd.DataFrame(lines, columns=["learner", "fold", "step", "f1", "auc", "log_loss"])
