"""How good a combiner really is, how sure that is, and how much its own rows flatter it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from competition.metrics import Interval, f1, f1_interval
from oof.combiner import Combiner
from oof.crossfit import CrossFitted, Fitted, cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.level2_folds import with_level2_folds
from oof.threshold import best_threshold


@dataclass(frozen=True, eq=False)
class NestedEstimate:
    """The nested F1 of one combiner, repeated over several ways to deal level-2 folds.

    Attributes
    ----------
    f1
        One per repetition: weights, hyperparameters, calibration and threshold never saw the rows they are scored on.
    interval
        Of the first repetition, by bootstrap over groups.
    in_sample
        What the combiner fitted on all rows reaches on those same rows at the best cut for them.
    crossed, fitted
        Of the first repetition.
    """

    f1: tuple[float, ...]
    interval: Interval
    in_sample: float
    crossed: CrossFitted
    fitted: Fitted

    @property
    def mean(self) -> float:
        """The mean F1 over repetitions."""
        return float(np.mean(self.f1))

    @property
    def spread(self) -> float:
        """The standard deviation over repetitions; NaN for one."""
        return float(np.std(self.f1, ddof=1)) if len(self.f1) > 1 else float("nan")

    @property
    def flattery(self) -> float:
        """In-sample F1 minus the nested one: how much weights and threshold fit the rows they were chosen on."""
        return self.in_sample - self.mean


def nested_estimate(combiner: Combiner, frame: PredictionFrame, *, n_repeats: int = 1) -> NestedEstimate:
    """The nested F1 of a combiner, first over the folds of the frame, then over folds dealt anew by seeds 1, 2 ..."""
    crossed = cross_fit(combiner, frame)
    fitted = fit_final(combiner, frame, cross_fitted=crossed)
    labels = frame.labels
    repeated = [cross_fit(combiner, dealt).decisions for dealt in _dealt_anew(frame, range(1, n_repeats))]
    return NestedEstimate(
        f1=tuple(f1(labels, decisions) for decisions in (crossed.decisions, *repeated)),
        interval=f1_interval(labels, crossed.decisions, frame.group),
        in_sample=best_threshold(labels, fitted.predict(frame)).f1,
        crossed=crossed,
        fitted=fitted,
    )


def _dealt_anew(frame: PredictionFrame, seeds: Sequence[int]) -> Iterator[PredictionFrame]:
    return (with_level2_folds(frame, seed=seed) for seed in seeds)
