"""Positive-class F1 and friends: pooled, per segment, with intervals over groups, and paired comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

DRAW_CELLS = 4_000_000  # draws x distinct group counts held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate, the bounds around it, and its standard error over groups."""

    estimate: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class McNemar:
    """The rows that only one of two decision vectors has right, and how surprising their split is.

    Attributes
    ----------
    only_first, only_second
        Numbers of rows.
    p_value
        Two-sided: the chance of a split at least this uneven if both were right equally often.
    """

    only_first: int
    only_second: int
    p_value: float


def f1_from_counts(
    true_positive: npt.ArrayLike, false_positive: npt.ArrayLike, false_negative: npt.ArrayLike
) -> Floats:
    """F1 of the positive class, elementwise; 0 where nothing is positive and nothing was decided positive.

    Examples
    --------
    >>> f1_from_counts([3, 0], [1, 0], [2, 0]).round(4)
    array([0.6667, 0.    ])
    """
    twice = 2.0 * np.asarray(true_positive, dtype=np.float64)
    total = twice + np.asarray(false_positive) + np.asarray(false_negative)
    return np.asarray(np.divide(twice, total, out=np.zeros_like(total), where=total > 0))


def f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """F1 of the positive class, in [0, 1].

    Examples
    --------
    >>> f1([1, 1, 0, 0], [1, 0, 1, 0])
    0.5
    """
    columns = _checked(binary={"labels": labels, "decisions": decisions})
    return float(f1_from_counts(*_counts(columns["labels"], columns["decisions"])))


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, a tie counting half.

    NaN if only one class is there.

    Examples
    --------
    >>> auc([1, 1, 0, 0], [0.9, 0.4, 0.4, 0.1])
    0.875
    """
    columns = _checked(binary={"labels": labels}, numeric={"scores": scores})
    return _auc(columns["labels"], columns["scores"])


def score_table(
    labels: npt.ArrayLike, decisions: npt.ArrayLike, scores: npt.ArrayLike, by: npt.ArrayLike
) -> pd.DataFrame:
    """One line per value of `by` (folds, languages), sorted, with the metrics of its rows.

    Columns: `rows`, `positives` (labelled 1), `positive_rate` (share **decided** 1), `f1`, `precision`,
    `recall`, `auc` (NaN where only one class is there).

    Examples
    --------
    >>> score_table([1, 0, 1, 0], [1, 1, 0, 0], [.9, .6, .4, .1], ["en", "en", "fr", "fr"])[["rows", "f1"]]
        rows        f1
    en     2  0.666667
    fr     2  0.000000
    """
    columns = _checked(
        binary={"labels": labels, "decisions": decisions}, numeric={"scores": scores}, any_kind={"by": by}
    )
    codes, values = pd.factorize(columns["by"], sort=True)
    order = np.argsort(codes, kind="stable")
    segments = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    lines = [_line(*(columns[name][rows] for name in ("labels", "decisions", "scores"))) for rows in segments]
    return pd.DataFrame(lines, index=pd.Index(values))


def f1_interval(
    labels: npt.ArrayLike,
    decisions: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """F1 with its bootstrap percentile interval over groups (rows of one group are not independent).

    Groups are drawn with replacement, `n_draws` times; see `_draw_totals` for why 300,000 rows take
    a fraction of a second. The interval covers the choice of rows, not that of training data or seeds.
    """
    columns = _checked(binary={"labels": labels, "decisions": decisions}, any_kind={"groups": groups})
    counts = _group_counts(columns, names=("decisions",))
    totals = _draw_totals(counts, n_draws=n_draws, seed=seed)
    estimate = float(f1_from_counts(*counts.sum(axis=0)))
    return _interval(estimate, f1_from_counts(*totals.T), level=level)


def paired_difference(
    labels: npt.ArrayLike,
    decisions: npt.ArrayLike,
    other: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """F1 of `decisions` minus F1 of `other` on the same rows, with its bootstrap interval over groups.

    Both are scored on the same draws, so what they share cancels: this interval is far narrower than the two
    single ones. It holds 0 when the two cannot be told apart.
    """
    columns = _checked(binary={"labels": labels, "decisions": decisions, "other": other}, any_kind={"groups": groups})
    counts = _group_counts(columns, names=("decisions", "other"))
    totals = _draw_totals(counts, n_draws=n_draws, seed=seed)
    estimate, draws = (f1_from_counts(*sums[:3]) - f1_from_counts(*sums[3:]) for sums in (counts.sum(axis=0), totals.T))
    return _interval(float(estimate), draws, level=level)


def mcnemar(labels: npt.ArrayLike, decisions: npt.ArrayLike, other: npt.ArrayLike) -> McNemar:
    """The exact test of McNemar 1947: whether one of two decision vectors is right more often on the same rows.

    It is about accuracy, not F1, and takes the rows as independent: where rows of one group go wrong together the
    p-value is too small, and `paired_difference` is the one to trust.

    Examples
    --------
    >>> mcnemar([1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1])
    McNemar(only_first=4, only_second=0, p_value=0.125)
    """
    columns = _checked(binary={"labels": labels, "decisions": decisions, "other": other})
    right, other_right = (columns[name] == columns["labels"] for name in ("decisions", "other"))
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    return McNemar(only_first, only_second, _even_split(only_first, only_second))


def _even_split(first: int, second: int) -> float:
    """The two-sided p-value of a split of first + second fair coin throws, summed in logs: halves underflow."""
    n, rarer = first + second, min(first, second)
    taken = np.arange(1, rarer + 1)
    log_ways = np.concatenate([[0.0], np.cumsum(np.log((n - taken + 1) / taken))])
    return float(min(1.0, 2.0 * np.exp(log_ways - n * np.log(2.0)).sum()))


def _interval(estimate: float, draws: Floats, *, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), float(draws.std(ddof=1)))


def _counts(labels: Binary, decisions: Binary) -> tuple[int, int, int]:
    """True positives, false positives, false negatives."""
    true_positive = int(np.count_nonzero(labels & decisions))
    return (
        true_positive,
        int(np.count_nonzero(decisions)) - true_positive,
        int(np.count_nonzero(labels)) - true_positive,
    )


def _line(labels: Binary, decisions: Binary, scores: Floats) -> dict[str, float]:
    true_positive, false_positive, false_negative = _counts(labels, decisions)
    decided, positives = true_positive + false_positive, true_positive + false_negative
    return {
        "rows": len(labels),
        "positives": positives,
        "positive_rate": decided / len(labels),
        "f1": float(f1_from_counts(true_positive, false_positive, false_negative)),
        "precision": true_positive / decided if decided else 0.0,
        "recall": true_positive / positives if positives else 0.0,
        "auc": _auc(labels, scores),
    }


def _auc(labels: Binary, scores: Floats) -> float:
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = pd.Series(scores).rank().to_numpy()[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _group_counts(columns: Mapping[str, npt.NDArray[Any]], *, names: tuple[str, ...]) -> Floats:
    """``(n_groups, 3 * len(names))``: true positives, false positives, false negatives of every group."""
    codes, values = pd.factorize(columns["groups"])
    labels = columns["labels"].astype(bool)
    kinds: list[npt.NDArray[np.bool_]] = []
    for name in names:
        decided = columns[name].astype(bool)
        kinds += [labels & decided, ~labels & decided, labels & ~decided]
    return np.stack([np.bincount(codes[rows], minlength=len(values)) for rows in kinds], axis=1).astype(np.float64)


def _draw_totals(counts: Floats, *, n_draws: int, seed: int) -> Floats:
    """``(n_draws, n_counts)``: the counts summed over groups drawn with replacement.

    Groups with the same counts are interchangeable, so one multinomial draw over the distinct counts (tens to
    thousands) has exactly the distribution of one over the groups (hundreds of thousands).
    """
    distinct = pd.DataFrame(counts).groupby(list(range(counts.shape[1]))).size()
    signatures = distinct.index.to_frame().to_numpy(dtype=np.float64)
    shares = distinct.to_numpy() / len(counts)
    rng = np.random.default_rng(seed)
    step = max(1, DRAW_CELLS // len(shares))
    sizes = [min(step, n_draws - start) for start in range(0, n_draws, step)]
    return np.concatenate([rng.multinomial(len(counts), shares, size=size) @ signatures for size in sizes])


def _checked(
    *,
    binary: Mapping[str, npt.ArrayLike],
    numeric: Mapping[str, npt.ArrayLike] | None = None,
    any_kind: Mapping[str, npt.ArrayLike] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The columns as arrays of one length: `binary` int8, `numeric` float64, `any_kind` as given.

    Raises
    ------
    CompetitionError
        With every fault: other values than 0 and 1, gaps, lengths that differ, no rows at all.
    """
    faults: list[Fault] = []
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, values in {**binary, **(numeric or {})}.items():
        numbers = _numbers(values)
        allowed = (numbers == 0) | (numbers == 1) if name in binary else np.isfinite(numbers)
        if not allowed.all():
            first = int(np.argmin(allowed))
            found = f"{np.count_nonzero(~allowed):,} bad values, the first at position {first}: {numbers[first]}"
            faults.append(Fault(name, found, "0 or 1" if name in binary else "finite numbers"))
            continue
        columns[name] = numbers.astype(np.int8) if name in binary else numbers
    for name, values in (any_kind or {}).items():
        columns[name] = np.asarray(values)
        if (n_missing := int(pd.isna(columns[name]).sum())) > 0:
            faults.append(Fault(name, f"{n_missing:,} values are missing", "a value for every row"))
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        faults.append(Fault("lengths", ", ".join(f"{name} {n:,}" for name, n in lengths.items()), "one length"))
    if not faults and not any(lengths.values()):
        faults.append(Fault("rows", "none", "at least one"))
    if faults:
        raise CompetitionError("these columns cannot be scored", faults=faults)
    return columns


def _numbers(values: npt.ArrayLike) -> Floats:
    """The values as float64 ``(n_rows,)``; what is no number (text, a gap) becomes NaN."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        array = pd.to_numeric(pd.Series(array.ravel()), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return array.astype(np.float64).ravel()
