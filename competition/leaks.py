"""What a model has seen, held against the rows that it must not have seen: by id, and by the texts of the query."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.folds import name_ids

TRAIL = ["task", "id", "query", "query_en"]


@dataclass(frozen=True)
class Dropped:
    """How many rows were left out of a training because held-out rows would have been seen.

    Attributes
    ----------
    by_id
        They are the held-out rows themselves.
    by_query
        They are others, with a query that a held-out row has, as written or in English.
    """

    by_id: int
    by_query: int


def query_texts(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The queries as written and in English, normalised, ``(n_rows,)`` each; "" where there is none."""
    english = rows["query_en"] if "query_en" in rows else pd.Series("", index=rows.index, dtype="str")
    return map_distinct(rows["query"], normalise_query), map_distinct(english, normalise_query)


def shares_query(rows: pd.DataFrame, held_out: pd.DataFrame) -> np.ndarray:
    """Which of `rows` have a query that a held-out row has too, as written or in English, bool ``(n_rows,)``.

    Examples
    --------
    >>> rows = pd.DataFrame({"query": ["Red shoes", "perro"], "query_en": ["", "dog"]}, dtype="str")
    >>> held_out = pd.DataFrame({"query": ["zapatos rojos"], "query_en": ["red shoes"]}, dtype="str")
    >>> shares_query(rows, held_out).tolist()
    [True, False]
    """
    known = set().union(*(set(texts) for texts in query_texts(held_out))) - {""}
    written, english = query_texts(rows)
    return np.asarray(written.isin(known) | english.isin(known))


def without_held_out(rows: pd.DataFrame, held_out: pd.DataFrame, *, same_task: bool) -> tuple[pd.DataFrame, Dropped]:
    """Those of `rows` that give nothing of the held-out rows away, and how many were left out.

    Parameters
    ----------
    same_task
        Whether both are rows of one task, so that equal ids are the same row.
    """
    by_id = rows["id"].isin(held_out["id"]).to_numpy() & same_task
    by_query = shares_query(rows, held_out) & ~by_id
    return rows[~(by_id | by_query)], Dropped(int(by_id.sum()), int(by_query.sum()))


def trail_of(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """What a training on `rows` of a task has seen, columns `TRAIL`: one line per row."""
    written, english = query_texts(rows)
    return pd.DataFrame({"task": task, "id": rows["id"], "query": written, "query_en": english})[TRAIL]


def refuse_leak(trail: pd.DataFrame, held_out: pd.DataFrame, *, task: str, what: str) -> None:
    """Prove that nothing in a training's trail is among the held-out rows of `task`, or has a query of theirs.

    Raises
    ------
    CompetitionError
        Something is: how many rows, by id and by query, and which.
    """
    by_id = trail["id"].isin(held_out["id"]).to_numpy() & (trail["task"] == task).to_numpy()
    by_query = shares_query(trail, held_out) & ~by_id
    faults = [
        Fault(what, f"{found.sum():,} rows {words}: {name_ids(trail['id'][found])}", "none")
        for found, words in ((by_id, "that are held out"), (by_query, "with a query of a held-out row"))
        if found.any()
    ]
    if faults:
        raise CompetitionError(
            "held-out rows were seen before fold training begins",
            faults=faults,
            advice="pretrain for this task: `relstack pretrain` drops such rows, with --every-fold a fold's own only",
        )
