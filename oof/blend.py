"""Blends: weighted means of the base learners in one space, and the recipes that choose the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from competition.metrics import f1, paired_difference
from oof.features import percentile_ranks
from oof.frame import LOGIT_CLIP, PredictionFrame, to_logits
from oof.state import read_state, write_state
from oof.threshold import best_threshold, decide
from oof.weights import convex_weights, greedy_weights, sigmoid

if TYPE_CHECKING:
    import optuna

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
        state = read_state(folder)
        learners, weights = tuple(state["learners"]), tuple(state["weights"])
        return cls(learners, weights, state["space"], state["slope"], state["intercept"])


@dataclass(frozen=True)
class HardVotes:
    """The share of learners whose score reaches their own threshold."""

    learners: tuple[str, ...]
    thresholds: tuple[float, ...]
    kind: ClassVar[str] = "votes"

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
        state = read_state(folder)
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
class OptunaBlend:
    """A blend whose structure Optuna tunes, and which falls back to a simpler one unless the gain is real.

    Tuned: the space; the share of greedy against convex weights; how far the weights shrink towards equal
    ones. The search starts from the convex, the greedy and the plain mean solution. Its objective is the F1
    cross-fitted over the folds of the frame it is given: those of a fold (weights, threshold) use the others.

    Of (plain mean, convex blend, best structure) the first is taken that lies within one standard error
    (paired, over groups) of the best: a search of many trials always finds something, mostly luck.
    Source of the rule: Breiman et al. 1984, "Classification and regression trees".

    The result is recalibrated, so that fits that chose different spaces share one scale and one threshold.
    """

    n_trials: int = 60
    seed: int = 0
    name: str = "blend"
    kind: ClassVar[str] = "blend"

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The weights of the chosen structure, fitted on all rows of the frame."""
        structure = self.choose(frame) if frame.n_learners > 1 else PLAIN_MEAN
        return _recalibrated(structure.fit(frame), frame)

    def choose(self, frame: PredictionFrame) -> "Structure":
        """The structure for this frame; the plain mean if its rows are all of one fold."""
        if len(np.unique(frame.fold)) < 2:
            return PLAIN_MEAN
        trials = _Trials(frame)
        best = trials.search(start=[CONVEX, PLAIN_MEAN, GREEDY], n_trials=self.n_trials, seed=self.seed)
        return trials.simplest_as_good_as(best, simpler=[PLAIN_MEAN, CONVEX])


@dataclass(frozen=True)
class Structure:
    """What `OptunaBlend` tunes; the weights follow from it and the rows.

    Attributes
    ----------
    space
        Where the mean is taken; ranks borrow the convex weights of logits, as ranks have no log-loss.
    greedy_share
        0 takes the convex weights, 1 the greedy ones, between them a mixture.
    shrink
        0 takes those weights as they are, 1 equal weights.
    """

    space: str
    greedy_share: float
    shrink: float

    def fit(self, frame: PredictionFrame) -> WeightedMean:
        """The weights of this structure for these rows."""
        weights = self.weights(partial(_raw_weights, frame, self.space), frame.n_learners)
        return _weighted(frame, weights, self.space)

    def weights(self, raw: Callable[[str], Floats], n_learners: int) -> Floats:
        """The weights, ``(n_learners,)``; `raw` gives those of a kind (convex, greedy) if they are needed."""
        weights = self.shrink * _uniform(n_learners)
        if self.shrink < 1 and self.greedy_share < 1:
            weights = weights + (1 - self.shrink) * (1 - self.greedy_share) * raw("convex")
        if self.shrink < 1 and self.greedy_share > 0:
            weights = weights + (1 - self.shrink) * self.greedy_share * raw("greedy")
        return weights


PLAIN_MEAN = Structure("probability", greedy_share=0.0, shrink=1.0)
CONVEX = Structure("logit", greedy_share=0.0, shrink=0.0)
GREEDY = Structure("probability", greedy_share=1.0, shrink=0.0)


@dataclass(frozen=True)
class _Trials:
    """The cross-fitted decisions of structures on one frame; what structures share is computed once.

    A trial touches every row several times, so rows lie fold by fold: a fold is then a block, not a mask.
    """

    frame: PredictionFrame
    members: list[npt.NDArray[np.intp]] = field(init=False)  # the rows of each fold
    labels: list[Binary] = field(init=False)
    raw: Callable[[str, int, str], Floats] = field(init=False)
    values: Callable[[str], list[Floats]] = field(init=False)

    def __post_init__(self) -> None:
        fold, labels = self.frame.fold, self.frame.labels
        members = [np.flatnonzero(fold == k) for k in np.unique(fold)]

        @cache
        def raw(space: str, held_out: int, kind: str) -> Floats:
            others = np.ones(self.frame.n_rows, dtype=bool)
            others[members[held_out]] = False
            return _raw_weights(self.frame.take(others), space, kind)

        @cache
        def values(space: str) -> list[Floats]:
            of_all = SPACES[space](self.frame)
            return [of_all[rows] for rows in members]

        object.__setattr__(self, "members", members)
        object.__setattr__(self, "labels", [labels[rows] for rows in members])
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "values", values)

    def decisions(self, structure: Structure) -> Binary:
        """``(n_rows,)``: weights and threshold of each fold come from the other folds."""
        scores = []
        for k, values in enumerate(self.values(structure.space)):
            weights = structure.weights(partial(self.raw, structure.space, k), self.frame.n_learners)
            scores.append(np.clip(values @ weights, 0.0, 1.0))
        decisions = np.empty(self.frame.n_rows, dtype=np.int8)
        for k, rows in enumerate(self.members):
            others = (np.concatenate([*parts[:k], *parts[k + 1 :]]) for parts in (self.labels, scores))
            decisions[rows] = decide(scores[k], best_threshold(*others).threshold)
        return decisions

    def search(self, *, start: list[Structure], n_trials: int, seed: int) -> Structure:
        """The structure with the highest cross-fitted F1 that Optuna finds, `start` being tried first."""
        import optuna

        def objective(trial: optuna.Trial) -> float:
            return f1(self.frame.labels, self.decisions(_suggest(trial)))

        with _quiet_optuna():
            sampler = optuna.samplers.TPESampler(seed=seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for structure in start:
                study.enqueue_trial(asdict(structure))
            study.optimize(objective, n_trials=max(n_trials, len(start)))
        return Structure(**study.best_params)

    def simplest_as_good_as(self, best: Structure, *, simpler: list[Structure]) -> Structure:
        """The first of `simpler` within one standard error of `best`, else `best`."""
        decisions = self.decisions(best)
        for structure in simpler:
            gain = paired_difference(self.frame.labels, decisions, self.decisions(structure), self.frame.group)
            if gain.estimate <= gain.standard_error:
                return structure
        return best


def _uniform(n: int) -> Floats:
    return np.full(n, 1.0 / n)


def _weighted(frame: PredictionFrame, weights: Floats, space: str) -> WeightedMean:
    return WeightedMean(frame.learners, tuple(float(weight) for weight in weights), space)


def _raw_weights(frame: PredictionFrame, space: str, kind: str) -> Floats:
    """The convex or greedy weights; one bag of greedy selection, as `Structure` shrinks them anyway."""
    if kind == "convex":
        return _convex(frame, "probability" if space == "probability" else "logit")
    return greedy_weights(frame.labels, SPACES[space](frame), n_rounds=15)


def _convex(frame: PredictionFrame, space: str) -> Floats:
    values = frame.logits() if space == "logit" else frame.scores
    return convex_weights(frame.labels, values, loss=space)


def _recalibrated(fitted: WeightedMean, frame: PredictionFrame) -> WeightedMean:
    """The same mean, its log-odds scaled and shifted to the labels (Platt 1999); the order of rows stays."""
    from sklearn.linear_model import LogisticRegression

    logits = to_logits(fitted.predict(frame))
    model = LogisticRegression(C=1e6, tol=1e-6).fit(logits[:, None], frame.labels)
    slope = max(float(model.coef_[0, 0]), MIN_SLOPE)
    return replace(fitted, slope=slope, intercept=float(model.intercept_[0]))


def _suggest(trial: "optuna.Trial") -> Structure:
    return Structure(
        space=trial.suggest_categorical("space", list(SPACES)),
        greedy_share=trial.suggest_float("greedy_share", 0.0, 1.0),
        shrink=trial.suggest_float("shrink", 0.0, 1.0),
    )


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna logs every trial to stderr by itself; put its verbosity back afterwards."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
