"""New rows, each seen as if it alone were added to a file's rows: what is asked besides it changes nothing.

A row that stands in the file itself is seen as it stands there. So a row gets the same level-2 features alone and in
any batch, and rows of the file get those that they got with the file.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from oof.frame import PredictionFrame

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

PAIR = ("language", "query", "target", "query_en")
NOWHERE: Places = np.empty(0, dtype=np.intp)


class Context:
    """The rows of a file with their scores, among which each new row stands alone.

    Parameters
    ----------
    frame
        Without labels and without folds.
    """

    def __init__(self, frame: PredictionFrame) -> None:
        self.frame = frame
        self._tables: dict[str, pd.DataFrame] = {}
        self._narrower: dict[tuple[str, ...], Context] = {}
        self._members: dict[tuple[str, ...], dict[tuple[str, ...], Places]] = {}

    def with_learners(self, names: Sequence[str]) -> "Context":
        """The same rows with the scores of these base learners only."""
        if tuple(names) == self.frame.learners:
            return self
        return self._narrower.setdefault(tuple(names), Context(self.frame.with_learners(names)))

    def features(
        self,
        rows: PredictionFrame,
        name: str,
        *,
        of_file: Callable[[PredictionFrame], pd.DataFrame],
        of_new: Callable[[PredictionFrame, "Context"], pd.DataFrame],
    ) -> pd.DataFrame:
        """The features of `rows`: of a row of the file those that it has there, of another one `of_new`.

        `name` tells different features apart: those of the file are computed once.
        """
        if name not in self._tables:
            self._tables[name] = of_file(self.frame)
        place = self.places(rows.rows)
        known, new = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
        parts = [self._tables[name].iloc[place[known]].set_axis(rows.rows.index[known])]
        if len(new):
            parts.append(of_new(rows.take(new), self).set_axis(rows.rows.index[new]))
        return pd.concat(parts).reindex(rows.rows.index)

    def places(self, rows: pd.DataFrame) -> Places:
        """``(n_rows,)``: the place of every row's pair in the file, -1 where it is not there."""
        found = self._pairs.get_indexer(pd.MultiIndex.from_frame(rows[self._keys]))
        return np.where(found < 0, -1, self._first[found])

    @cached_property
    def _keys(self) -> list[str]:
        return [name for name in PAIR if name in self.frame.rows]

    @cached_property
    def _first(self) -> Places:
        """Where each pair stands first."""
        return np.flatnonzero(~self.frame.rows.duplicated(self._keys))

    @cached_property
    def _pairs(self) -> pd.MultiIndex:
        return pd.MultiIndex.from_frame(self.frame.rows[self._keys].iloc[self._first])

    @cached_property
    def logits(self) -> Floats:
        """Of every learner, and before them their mean, ``(n_rows, 1 + n_learners)``."""
        return with_mean(self.frame.logits())

    @cached_property
    def sorted_scores(self) -> Floats:
        """Every learner's scores in order, ``(n_rows, n_learners)``."""
        return np.sort(self.frame.scores, axis=0)

    def members(self, keys: Sequence[str]) -> dict[tuple[str, ...], Places]:
        """The places of the file's rows by their values in the columns `keys`."""
        if tuple(keys) not in self._members:
            self._members[tuple(keys)] = members_by(self.frame.rows, keys)
        return self._members[tuple(keys)]


def members_by(rows: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[str, ...], Places]:
    """The places of the rows by their values in the columns `keys`.

    Examples
    --------
    >>> members_by(pd.DataFrame({"target": ["a", "b", "a"]}), ["target"])
    {('a',): array([0, 2]), ('b',): array([1])}
    """
    codes = rows.groupby(list(keys), sort=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
    names = keys_of(rows.iloc[[group[0] for group in groups]], keys)
    return dict(zip(names, groups, strict=True))


def keys_of(rows: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The values of every row in the columns `keys`."""
    return list(zip(*(rows[name] for name in keys), strict=True))


def with_mean(logits: Floats) -> Floats:
    """The learners' mean, and then each of them."""
    return np.column_stack([logits.mean(axis=1), logits])
