"""Pseudo-labels: which unlabelled rows may stand in for labelled ones; about .2 point in contests of this kind."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from oof.priors import CLIP

Floats = npt.NDArray[np.float64]


def select_pseudo_labels(
    rows: pd.DataFrame, scores: Floats, *, confidence: float = 0.9, balance: float = 1.25
) -> pd.DataFrame:
    """The rows that are sure enough, with their labels: columns `id`, `language`, `label`, `score`, in `rows`' order.

    A row is sure if its calibrated score is at least `confidence`, or at most 1 minus that. Two rules keep the rows
    from tilting what is trained on them:

    - Within a language, positives and negatives stand in the ratio that its scores expect (their mean): sure rows
      are mostly of the easier class, and would move the share of positives.
    - No language gives more than `balance` times the share of its rows that all languages together give, so that an
      easy language does not crowd out the hard ones. The surest rows go first, of equals the lower id.

    To stay out of fold, the scores used in training fold k must come from models that did not see fold k: the dev and
    test scores of part k, not the mean over parts.

    Raises
    ------
    CompetitionError
        Lengths that differ, scores outside [0, 1], a confidence not in (.5, 1], a balance below 1.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": [1, 2, 3, 4], "language": "en"})
    >>> select_pseudo_labels(rows, np.array([0.95, 0.04, 0.6, 0.5]))[["id", "label"]].values.tolist()
    [[1, 1], [2, 0]]
    """
    _check(rows, scores, confidence, balance)
    language = rows["language"].to_numpy()
    order = np.lexsort((rows["id"].argsort().argsort(), -np.abs(scores - 0.5)))  # surest first, then by id
    members = {name: order[language[order] == name] for name in np.unique(language)}
    sure = {name: _sure(positions, scores, confidence) for name, positions in members.items()}
    possible = {name: _most(*sure[name], rate=_rate(scores[positions])) for name, positions in members.items()}
    fair_share = sum(possible.values()) / max(len(rows), 1)
    chosen = [np.empty(0, dtype=np.intp)]
    for name, positions in members.items():
        n_rows = min(possible[name], balance * fair_share * len(positions))
        rate = _rate(scores[positions])
        positives, negatives = sure[name]
        chosen += [positives[: round(n_rows * rate)], negatives[: round(n_rows * (1 - rate))]]
    kept = np.sort(np.concatenate(chosen))
    labels = (scores[kept] >= 0.5).astype(np.int8)
    return rows[["id", "language"]].iloc[kept].assign(label=labels, score=scores[kept]).reset_index(drop=True)


def _sure(
    positions: npt.NDArray[np.intp], scores: Floats, confidence: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Positions of sure positives and of sure negatives, in the order given."""
    own = scores[positions]
    return positions[own >= confidence], positions[own <= 1 - confidence]


def _rate(scores: Floats) -> float:
    """The expected share of positives."""
    return float(np.clip(scores.mean(), CLIP, 1 - CLIP))


def _most(positives: npt.NDArray[np.intp], negatives: npt.NDArray[np.intp], *, rate: float) -> float:
    """The most rows that these classes allow in the ratio `rate`."""
    return min(len(positives) / rate, len(negatives) / (1 - rate))


def _check(rows: pd.DataFrame, scores: Floats, confidence: float, balance: float) -> None:
    faults = []
    if len(rows) != len(scores):
        faults.append(Fault("scores", f"{len(scores):,}", f"{len(rows):,}, one a row"))
    if len(scores) and not (np.min(scores) >= 0 and np.max(scores) <= 1):
        faults.append(Fault("scores", f"from {np.min(scores)} to {np.max(scores)}", "[0, 1]"))
    _refuse([*faults, *_rule_faults(confidence, balance)])


def refuse_bad_rule(*, confidence: float, balance: float) -> None:
    """Check what is asked of pseudo-labels before there are scores, see `select_pseudo_labels`."""
    _refuse(_rule_faults(confidence, balance))


def _rule_faults(confidence: float, balance: float) -> list[Fault]:
    faults = []
    if not 0.5 < confidence <= 1:
        faults.append(Fault("confidence", str(confidence), "above .5, at most 1"))
    if not balance >= 1:
        faults.append(Fault("balance", str(balance), "1 or more"))
    return faults


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise CompetitionError("no pseudo-labels can be chosen", faults=faults)
