"""Two models on the same rows, side by side: in total and per segment, with interval and test."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.metrics import f1, mcnemar, paired_difference

ALL = "all"


def difference_table(
    labels: npt.ArrayLike, decisions: npt.ArrayLike, other: npt.ArrayLike, groups: npt.ArrayLike, by: npt.ArrayLike
) -> pd.DataFrame:
    """How much better `decisions` is than `other`: one line for all rows, then one per value of `by`, sorted.

    Columns: `segment`, `rows`, `f1`, `f1_other`, `difference` with `low` and `high` (its bootstrap interval over
    groups), `only_first` and `only_second` (rows that one alone has right) with their McNemar `p_value`.
    The intervals are those of one comparison each: of twenty segments one excludes 0 by chance.

    Raises
    ------
    CompetitionError
        Lengths that differ, or other values than 0 and 1.

    Examples
    --------
    >>> table = difference_table([1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 2, 3, 4], ["en", "en", "fr", "fr"])
    >>> table[["segment", "rows", "difference", "only_first"]].round(3).values.tolist()
    [['all', 4, 0.5, 2], ['en', 2, 0.333, 1], ['fr', 2, 1.0, 1]]
    """
    columns = tuple(np.asarray(column) for column in (labels, decisions, other, groups))
    segments = np.asarray(by)
    if len(lengths := {len(column) for column in (*columns, segments)}) > 1:
        fault = Fault("lengths", ", ".join(f"{n:,}" for n in sorted(lengths)), "one length")
        raise CompetitionError("these columns cannot be compared", faults=[fault])
    members = {ALL: np.ones(len(segments), dtype=bool)} | {str(name): segments == name for name in np.unique(segments)}
    return pd.DataFrame([_line(name, *(column[rows] for column in columns)) for name, rows in members.items()])


def _line(
    segment: str,
    labels: npt.NDArray[np.generic],
    decisions: npt.NDArray[np.generic],
    other: npt.NDArray[np.generic],
    groups: npt.NDArray[np.generic],
) -> dict[str, object]:
    gap = paired_difference(labels, decisions, other, groups)
    test = mcnemar(labels, decisions, other)
    return {
        "segment": segment,
        "rows": len(labels),
        "f1": f1(labels, decisions),
        "f1_other": f1(labels, other),
        "difference": gap.estimate,
        "low": gap.low,
        "high": gap.high,
        "only_first": test.only_first,
        "only_second": test.only_second,
        "p_value": test.p_value,
    }
