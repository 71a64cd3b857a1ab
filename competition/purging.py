"""Purging: which rows give held-out rows away by their query, as written or in English."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.folds import Mask
from competition.leaks import query_texts


@dataclass(frozen=True, eq=False)
class QueryCodes:
    """The query texts of rows as numbers: what `competition.leaks.shares_query` looks at, for many questions at once.

    Attributes
    ----------
    written, english
        ``(n_rows,)`` each, one numbering for both; the last number stands for no text.
    n_texts
        How many numbers there are.
    """

    written: npt.NDArray[np.int64]
    english: npt.NDArray[np.int64]
    n_texts: int

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "QueryCodes":
        """The codes of `rows`, in their order."""
        texts = pd.concat(query_texts(rows), ignore_index=True)
        codes, distinct = pd.factorize(texts.where(texts != ""))
        codes = np.where(codes < 0, len(distinct), codes).astype(np.int64)
        return cls(codes[: len(rows)], codes[len(rows) :], len(distinct) + 1)

    def sharing(self, held_out: Mask) -> Mask:
        """Which rows have a query text that some of the `held_out` ones (a mask) have too, ``(n_rows,)``."""
        known = np.zeros(self.n_texts, dtype=bool)
        known[self.written[held_out]] = known[self.english[held_out]] = True
        known[-1] = False
        return np.asarray(known[self.written] | known[self.english])


def purged_rows(rows: pd.DataFrame, folds: pd.Series, *, n_splits: int) -> Mask:
    """Which rows each fold's training goes without, ``(n_rows, n_splits)``: they share a query with its held-out rows.

    Examples
    --------
    >>> rows = pd.DataFrame({"query": ["Shoes", "shoes", "perro"], "query_en": ["", "", "dog"]}, dtype="str")
    >>> purged_rows(rows, pd.Series([0, 1, 1]), n_splits=2).tolist()
    [[False, True], [True, False], [False, False]]
    """
    codes, fold = QueryCodes.of(rows), folds.to_numpy()
    return np.column_stack([codes.sharing(fold == k) & (fold != k) for k in range(n_splits)])
