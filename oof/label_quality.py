"""Rows whose label no base learner believes, out of fold: wrong labels, or what all models get wrong alike.

Deleting such rows has failed those who tried it; looking at them has not: they show what the labellers meant, and
which language was labelled with less care.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from oof.frame import PredictionFrame

Binary = npt.NDArray[np.int8]
ALL = "all"


def doubted(labels: Binary, decisions: Binary) -> npt.NDArray[np.bool_]:
    """Whether all learners decide against the label, ``(n_rows,)``; `decisions` is ``(n_rows, n_learners)``.

    Examples
    --------
    >>> doubted(np.array([1, 0]), np.array([[0, 0], [0, 1]])).tolist()
    [True, False]
    """
    return np.asarray((decisions != labels[:, None]).all(axis=1), dtype=np.bool_)


def doubt_table(labels: Binary, decisions: Binary, language: npt.NDArray[np.generic]) -> pd.DataFrame:
    """One line for all rows, then one per language, sorted.

    Columns: `language`, `rows`, `doubted`, `share` of the rows that are doubted, `doubted_positive` and
    `doubted_negative` (by their label), `if_independent`: the share that learners with these error rates would doubt
    if they erred independently of each other. The share above that is what the learners have in common with each
    other and not with the labels.

    Examples
    --------
    >>> table = doubt_table(np.array([1, 0]), np.array([[0, 0], [0, 1]]), np.array(["en", "fr"]))
    >>> table[["language", "doubted", "share"]].values.tolist()
    [['all', 1, 0.5], ['en', 1, 1.0], ['fr', 0, 0.0]]
    """
    names = [str(name) for name in np.unique(language)]
    members = {ALL: np.ones(len(labels), dtype=bool)} | {name: language == name for name in names}
    return pd.DataFrame([_line(name, labels[rows], decisions[rows]) for name, rows in members.items()])


def doubted_rows(frame: PredictionFrame, decisions: Binary, *, top: int) -> pd.DataFrame:
    """The `top` doubted rows, the surest doubts first, of equals the lower id.

    Columns: `id`, `language`, `query`, `target` (if the frame has them), `label`, `score` (the learners' mean).
    """
    score = frame.scores.mean(axis=1)
    columns = [name for name in ("id", "language", "query", "target", "label") if name in frame.rows]
    table = frame.rows[columns].assign(score=score, doubt=np.abs(score - frame.labels))
    table = table[doubted(frame.labels, decisions)].sort_values("id", kind="stable")
    table = table.sort_values("doubt", ascending=False, kind="stable")
    return table.drop(columns="doubt").head(top).reset_index(drop=True)


def _line(name: str, labels: Binary, decisions: Binary) -> dict[str, object]:
    found = doubted(labels, decisions)
    by_label = [found[labels == label] for label in (0, 1)]
    # Within a label: learners that all lean to positives err together on negatives without having looked alike.
    errors = [
        (decisions[labels == label] != label).mean(axis=0) if len(each) else 0.0 for label, each in enumerate(by_label)
    ]
    expected = sum(len(each) * float(np.prod(error)) for each, error in zip(by_label, errors, strict=True))
    return {
        "language": name,
        "rows": len(labels),
        "doubted": int(found.sum()),
        "share": float(found.mean()),
        "doubted_positive": int(by_label[1].sum()),
        "doubted_negative": int(by_label[0].sum()),
        "if_independent": expected / len(labels),
    }
