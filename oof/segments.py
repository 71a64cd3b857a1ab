"""Cuts per segment (language), shrunken towards the global cut, and used only where a nested estimate supports them.

Cuts per language with no real difference between languages lose .25 point at 2,000 rows; with real differences they
win more than one. So the strength of the shrinkage is chosen on folds, and the whole thing, that choice included, is
judged on folds that had no part in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from competition.metrics import Interval, f1, paired_difference
from oof.threshold import decide, steady_threshold

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]
Folds = npt.NDArray[np.integer]
Segments = npt.NDArray[np.generic]

STRENGTHS = (0.0, 1_000.0, 4_000.0, 16_000.0, float("inf"))


@dataclass(frozen=True)
class SegmentCuts:
    """One cut per segment; `overall` for segments that are not among them.

    Examples
    --------
    >>> cuts = SegmentCuts(0.4, {"en": 0.5})
    >>> cuts.decide(np.array([0.45, 0.45]), np.array(["en", "th"])).tolist()
    [0, 1]
    """

    overall: float
    by_segment: Mapping[str, float]

    def thresholds(self, segments: Segments) -> Floats:
        """The cut of every row, ``(n_rows,)``."""
        names, codes = np.unique(segments, return_inverse=True)
        return np.array([self.by_segment.get(str(name), self.overall) for name in names])[codes]

    def decide(self, scores: Floats, segments: Segments) -> Binary:
        """The 0/1 decision for every row, ``(n_rows,)``."""
        return decide(scores, self.thresholds(segments))

    def shrunken(self, n_rows: Mapping[str, int], *, strength: float) -> "SegmentCuts":
        """Each cut drawn towards `overall`, to the middle where the segment has `strength` rows."""
        shares = {name: n_rows[name] / (n_rows[name] + strength) for name in self.by_segment}
        moved = {name: self.overall + shares[name] * (cut - self.overall) for name, cut in self.by_segment.items()}
        return SegmentCuts(self.overall, moved)


@dataclass(frozen=True, eq=False)
class SegmentChoice:
    """The cuts to use, and the evidence for them.

    Attributes
    ----------
    cuts
        Without a segment's own cut unless the evidence supports it.
    strength
        Of the shrinkage, in rows; infinite where the global cut is kept.
    gain
        Nested F1 of cuts per segment minus that of the global cut.
    decisions
        ``(n_rows,)`` the nested decisions that go with `cuts`: no row had a part in its own cut.
    """

    cuts: SegmentCuts
    strength: float
    gain: Interval
    decisions: Binary


def fit_segment_cuts(labels: Binary, scores: Floats, segments: Segments) -> SegmentCuts:
    """The steady cut of all rows and, not shrunken, that of every segment that has a positive."""
    names = [name for name in np.unique(segments) if labels[segments == name].any()]
    own = {str(name): steady_threshold(labels[segments == name], scores[segments == name]).threshold for name in names}
    return SegmentCuts(steady_threshold(labels, scores).threshold, own)


def choose_segment_cuts(
    labels: Binary,
    scores: Floats,
    segments: Segments,
    *,
    fold: Folds,
    groups: npt.NDArray[np.generic],
    overall: float | None = None,
) -> SegmentChoice:
    """Cuts per segment if their nested F1 beats that of the global cut by more than one standard error, else that cut.

    For fold k, the strength with the highest cross-fitted F1 on the other folds is taken, and cuts of that strength
    from those folds decide k. `scores` are cross-fitted; that their fits may have seen fold k is the mild optimism of
    all stacking, and the same on both sides of the comparison. Give `overall` where the cut of all rows is known.
    """

    @cache
    def cuts_without(held_out: frozenset[int]) -> tuple[SegmentCuts, dict[str, int]]:
        rows = ~np.isin(fold, list(held_out))
        names, counts = np.unique(segments[rows], return_counts=True)
        n_rows = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
        return fit_segment_cuts(labels[rows], scores[rows], segments[rows]), n_rows

    def decisions(strength: float, *, without: frozenset[int]) -> Binary:
        """Cross-fitted over the folds that are not left out; 0 in those that are."""
        found = np.zeros(len(labels), dtype=np.int8)
        for k in set(folds) - without:
            cuts, n_rows = cuts_without(without | {k})
            rows = fold == k
            found[rows] = cuts.shrunken(n_rows, strength=strength).decide(scores[rows], segments[rows])
        return found

    def best_strength(without: frozenset[int]) -> float:
        rows = ~np.isin(fold, list(without))
        quality = [f1(labels[rows], decisions(strength, without=without)[rows]) for strength in reversed(STRENGTHS)]
        return STRENGTHS[::-1][int(np.argmax(quality))]  # of equals the strongest shrinkage

    folds = [int(k) for k in np.unique(fold)]
    nested = np.empty(len(labels), dtype=np.int8)
    for k in folds:
        cuts, n_rows = cuts_without(frozenset({k}))
        rows = fold == k
        strength = best_strength(frozenset({k}))
        nested[rows] = cuts.shrunken(n_rows, strength=strength).decide(scores[rows], segments[rows])
    plain = decisions(float("inf"), without=frozenset())
    gain = paired_difference(labels, nested, plain, groups)
    strength = best_strength(frozenset()) if gain.estimate > gain.standard_error else float("inf")
    if strength == float("inf"):
        cut = steady_threshold(labels, scores).threshold if overall is None else overall
        return SegmentChoice(SegmentCuts(cut, {}), strength, gain, plain)
    cuts, n_rows = cuts_without(frozenset())
    return SegmentChoice(cuts.shrunken(n_rows, strength=strength), strength, gain, nested)
