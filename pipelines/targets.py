"""What rows are learnt towards: labels, or soft labels and weights where there are rows besides a fold's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SOFT, WEIGHT, EXTRA = "soft_label", "weight", "extra"  # columns of training rows that a plain fold does not have


class Halves(NamedTuple):
    """Hard labels of weighted rows: which row each comes from, its label, its weight (None: all 1)."""

    places: Any
    labels: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels and weights of training rows.

    Attributes
    ----------
    labels
        ``(n_rows,)``: int8 0 or 1, or float64 in [0, 1] where any is soft.
    weights
        ``(n_rows,)`` float64, above 0; None where all are 1.
    """

    labels: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Targets":
        """Those of training rows: `label`, or `soft_label` and `weight` if the rows have these columns.

        Soft labels that are all 0 or 1 are labels, and weights that are all 1 are none: such rows train bit for bit
        as rows without the columns.
        """
        if SOFT not in rows:
            return cls(rows["label"].to_numpy(dtype=np.int8))
        soft, weights = (rows[name].to_numpy(dtype=np.float64) for name in (SOFT, WEIGHT))
        assert ((soft >= 0) & (soft <= 1)).all(), "soft labels are probabilities"
        assert (weights > 0).all(), "a row without weight is left out"
        hard = bool(np.isin(soft, (0, 1)).all())
        return cls(soft.astype(np.int8) if hard else soft, None if (weights == 1).all() else weights)

    @classmethod
    def joined(cls, parts: Sequence["Targets"]) -> "Targets":
        """Those of the first rows, then those of the next, ..."""
        labels = np.concatenate([part.labels for part in parts])
        if all(part.weights is None for part in parts):
            return cls(labels)
        ones = (np.ones(len(part.labels)) if part.weights is None else part.weights for part in parts)
        return cls(labels, np.concatenate(list(ones)))

    def halves(self) -> Halves:
        """Rows with hard labels that have the same log-loss, for heads that take no soft ones.

        A row of weight w and soft label t is a positive of weight ``w * t`` and a negative of weight ``w * (1 - t)``;
        halves without weight are left out.

        Examples
        --------
        >>> places, labels, weights = Targets(np.array([1.0, 0.25])).halves()
        >>> places.tolist(), labels.tolist(), weights.tolist()
        ([0, 1, 1], [1, 1, 0], [1.0, 0.25, 0.75])
        """
        if self.labels.dtype == np.int8 and self.weights is None:
            return Halves(slice(None), self.labels, None)
        weights = np.ones(len(self.labels)) if self.weights is None else self.weights
        places, labels = (
            np.repeat(np.arange(len(self.labels)), 2),
            np.tile(np.array([1, 0], dtype=np.int8), len(weights)),
        )
        shares = np.where(labels == 1, self.labels[places], 1 - self.labels[places]) * weights[places]
        kept = shares > 0
        return Halves(places[kept], labels[kept], shares[kept])


def with_targets(rows: pd.DataFrame, soft: Any, *, weight: float, extra: bool) -> pd.DataFrame:
    """The rows with their `soft_label`, `weight` and `extra`; those without a label get the nearer one."""
    soft = np.asarray(soft, dtype=np.float64)
    label = rows["label"] if "label" in rows else pd.Series(soft >= 0.5, index=rows.index)
    return rows.assign(label=label.astype("Int8"), **{SOFT: soft, WEIGHT: weight, EXTRA: extra})
