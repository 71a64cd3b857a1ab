"""Blends: weighted means of the base learners in one space, and the recipes that choose the weights."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from competition.json_files import Shape
from oof.features import percentile_ranks
from oof.frame import LOGIT_CLIP, PredictionFrame, to_logits
from oof.state import read_state, write_state
from oof.threshold import best_threshold
from oof.weights import convex_weights, greedy_weights, sigmoid

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

MIN_SLOPE = 1e-3  # a blend of pure noise may get a slope below 0, which would turn its order around

# The learners' weighted mean is taken in one of these. Every space has the bounds 0 and 1: logits are divided
# by their range, which a weighted mean does not mind.
SPACES: dict[str, Callable[[PredictionFrame], Floats]] = {
    "probability": lambda frame: frame.scores,
    "logit": lambda frame: frame.logits() / (2 * LOGIT_CLIP) + 0.5,
    "rank": percentile_ranks,
}


def _to_score(values: Floats, space: str) -> Floats:
    """A weighted mean taken in `space` as a score in [0, 1]; ranks stay ranks, they are no probabilities."""
    bounded = np.clip(values, 0.0, 1.0)
    return sigmoid((bounded - 0.5) * (2 * LOGIT_CLIP)) if space == "logit" else bounded


@dataclass(frozen=True)
class WeightedMean:
    """The weighted mean of the learners' scores in one space: what most blends come down to once fitted.

    `slope` and `intercept` recalibrate its log-odds; 1 and 0 leave it as it is. In rank space the score of a
    row depends on the frame that it comes in: predict whole test sets, not single rows.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"id": [1], "language": "en"})
    >>> frame = PredictionFrame(rows, np.array([[0.2, 0.6]]), ("a", "b"))
    >>> WeightedMean(learners=("b", "a"), weights=(0.75, 0.25)).predict(frame).round(6).tolist()
    [0.5]
    """

    learners: tuple[str, ...]
    weights: tuple[float, ...]
    space: str = "probability"
    slope: float = 1.0
    intercept: float = 0.0
    kind: ClassVar[str] = "weighted"
    shape: ClassVar[Mapping[str, Shape]] = {
        "learners": list[str],
        "weights": list[float],
        "space": str,
        "slope": float,
        "intercept": float,
    }

    def __post_init__(self) -> None:
        faults = []
        if self.space not in SPACES:
            faults.append(Fault("space", repr(self.space), f"one of {', '.join(SPACES)}"))
        if len(self.weights) != len(self.learners):
            faults.append(Fault("weights", str(len(self.weights)), f"{len(self.learners)}, one a learner"))
        if not (min(self.weights, default=-1.0) >= 0 and abs(sum(self.weights) - 1) < 1e-6):
            faults.append(Fault("weights", f"{self.weights}", "0 or more, summing to 1"))
        if faults:
            raise CompetitionError("these are no blend weights", faults=faults)

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        values = SPACES[self.space](frame.with_learners(self.learners))
        scores = _to_score(values @ np.array(self.weights), self.space)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return scores
        return sigmoid(self.slope * to_logits(scores) + self.intercept)

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json`."""
        write_state(folder, self.kind, asdict(self))

    @classmethod
    def from_folder(cls, folder: Path) -> "WeightedMean":
        """What `to_folder` wrote."""
        state = read_state(folder, cls.shape)
        learners, weights = tuple(state["learners"]), tuple(state["weights"])
        return cls(learners, weights, state["space"], state["slope"], state["intercept"])


@dataclass(frozen=True)
class HardVotes:
    """The share of learners whose score reaches their own threshold."""

    learners: tuple[str, ...]
    thresholds: tuple[float, ...]
    kind: ClassVar[str] = "votes"

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.learners) > 0:
            fault = Fault("thresholds", f"{len(self.thresholds)}", f"{len(self.learners)}, one a learner")
            raise CompetitionError("these are no votes", faults=[fault])

    def predict(self, frame: PredictionFrame) -> Floats:
        """The share of votes for every row, ``(n_rows,)`` in [0, 1]."""
        scores = frame.with_learners(self.learners).scores
        return np.asarray((scores >= np.array(self.thresholds)).mean(axis=1), dtype=np.float64)

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json`."""
        write_state(folder, self.kind, asdict(self))

    @classmethod
    def from_folder(cls, folder: Path) -> "HardVotes":
        """What `to_folder` wrote."""
        state = read_state(folder, {"learners": list[str], "thresholds": list[float]})
        return cls(tuple(state["learners"]), tuple(state["thresholds"]))


@dataclass(frozen=True)
class SingleLearner:
    """One base learner as it is, so that base learners are reported by the same rules as blends."""

    learner: str
    kind: ClassVar[str] = "single"

    @property
    def name(self) -> str:
        """The learner's."""
        return self.learner

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The learner's scores, unchanged."""
        return WeightedMean(frame.with_learners([self.learner]).learners, (1.0,))


@dataclass(frozen=True)
class Mean:
    """The plain mean of all learners in one space; nothing but the threshold is fitted."""

    space: str = "probability"
    name: str = "mean"
    kind: ClassVar[str] = "mean"

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """Equal weights."""
        return _weighted(frame, _uniform(frame.n_learners), self.space)


@dataclass(frozen=True)
class RankMean(Mean):
    """The mean of percentile ranks: free of calibration, but the share of positives must not shift."""

    space: str = "rank"
    name: str = "rank-mean"


@dataclass(frozen=True)
class LogitMean(Mean):
    """The mean of log-odds (the geometric mean of the odds): trusts sure learners more than `Mean`."""

    space: str = "logit"
    name: str = "logit-mean"


@dataclass(frozen=True)
class HardVote:
    """Each learner is cut at its own best threshold; the score is the share of votes."""

    name: str = "hard-vote"
    kind: ClassVar[str] = "vote"

    def fit(self, frame: PredictionFrame) -> HardVotes:
        """The best threshold of every learner."""
        thresholds = [best_threshold(frame.labels, scores).threshold for scores in frame.scores.T]
        return HardVotes(frame.learners, tuple(thresholds))


@dataclass(frozen=True)
class Greedy:
    """Greedy ensemble selection for best-threshold F1: with replacement, sorted start, bagging.

    Bags are half-samples of the rows; the paper draws half of the library, but with a handful of learners
    half a library often lacks the good ones. One bag takes all rows.

    Source: Caruana, Niculescu-Mizil, Crew, Ksikes 2004, "Ensemble selection from libraries of models".
    """

    n_rounds: int = 25
    n_bags: int = 5
    space: str = "probability"
    seed: int = 0
    name: str = "greedy"
    kind: ClassVar[str] = "greedy"

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The mean over the bags of the weights that each selected."""
        values, labels = SPACES[self.space](frame), frame.labels
        rng = np.random.default_rng(self.seed)
        weights = np.zeros(frame.n_learners)
        for _ in range(self.n_bags):
            bag = np.arange(frame.n_rows)
            if self.n_bags > 1:
                bag = np.sort(rng.permutation(frame.n_rows)[: (frame.n_rows + 1) // 2])
            weights += greedy_weights(labels[bag], values[bag], n_rounds=self.n_rounds)
        return _weighted(frame, weights / self.n_bags, self.space)


@dataclass(frozen=True)
class ConvexBlend:
    """The weights with the lowest log-loss among all that are 0 or more and sum to 1: a global optimum."""

    space: str = "logit"
    name: str = "convex"
    kind: ClassVar[str] = "convex"

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The optimal weights."""
        return _weighted(frame, _convex(frame, self.space), self.space)


@dataclass(frozen=True)
class BestSingle:
    """The base learner with the highest best-threshold F1 on the rows, its scores as they are."""

    name: str = "best-single"
    kind: ClassVar[str] = "single"

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """That learner's scores; of equals the first."""
        quality = [best_threshold(frame.labels, scores).f1 for scores in frame.scores.T]
        return SingleLearner(frame.learners[int(np.argmax(quality))]).fit(frame)


@dataclass(frozen=True)
class Recalibrated:
    """A blend whose log-odds are scaled and shifted to the labels, so that its scores can be read as probabilities.

    The order of rows stays. Source: Platt 1999.
    """

    blend: "Weighing"
    kind: ClassVar[str] = "recalibrated"

    @property
    def name(self) -> str:
        """The blend's."""
        return self.blend.name

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The fitted blend with slope and intercept."""
        from sklearn.linear_model import LogisticRegression

        fitted = self.blend.fit(frame)
        logits = to_logits(fitted.predict(frame))
        model = LogisticRegression(C=1e6, tol=1e-6).fit(logits[:, None], frame.labels)
        slope = max(float(model.coef_[0, 0]), MIN_SLOPE)
        return replace(fitted, slope=slope, intercept=float(model.intercept_[0]))


class Weighing(Protocol):
    """A blend that comes down to weights."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The weights for these rows."""


def _uniform(n: int) -> Floats:
    return np.full(n, 1.0 / n)


def _weighted(frame: PredictionFrame, weights: Floats, space: str) -> WeightedMean:
    return WeightedMean(frame.learners, tuple(float(weight) for weight in weights), space)


def _convex(frame: PredictionFrame, space: str) -> Floats:
    values = frame.logits() if space == "logit" else frame.scores
    return convex_weights(frame.labels, values, loss=space)
