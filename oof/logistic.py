"""Logistic stackers: one set of coefficients for all rows, or one per language, shrunken towards the common one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from competition.json_files import Shape
from oof.combiner import NOTHING, Folds, Refits
from oof.frame import PredictionFrame
from oof.state import read_state, write_state
from oof.weights import sigmoid

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

STRENGTHS = (10.0, 100.0, 1_000.0, float("inf"))  # penalties on the differences between languages
MAX_STEPS = 50
TOLERANCE = 1e-8  # of the Newton step, on standardised logits
MIN_WEIGHT = 1e-6  # of a row in a step; sure rows must not make it singular


@dataclass(frozen=True)
class FittedLogistic:
    """A logistic regression on the base learners' logits.

    Attributes
    ----------
    coefficients, intercept
        Of languages that are not in `by_language`.
    by_language
        Language -> its coefficients, followed by its intercept; none if languages are not told apart.
    """

    learners: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    by_language: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    kind: ClassVar[str] = "logistic"
    shape: ClassVar[Mapping[str, Shape]] = {
        "learners": list[str],
        "coefficients": list[float],
        "intercept": float,
        "by_language": dict[str, list[float]],
    }

    def __post_init__(self) -> None:
        n_learners = len(self.learners)
        faults = [
            Fault(name, f"{len(values)} numbers", f"{n_learners} coefficients and an intercept")
            for name, values in (("all", (*self.coefficients, self.intercept)), *self.by_language.items())
            if len(values) != n_learners + 1
        ]
        if faults or not n_learners:
            raise CompetitionError("this is no logistic regression on base learners", faults=faults)

    def logit(self, frame: PredictionFrame) -> Floats:
        """The log-odds of every row, ``(n_rows,)``."""
        return self.combine(frame.with_learners(self.learners).logits(), frame.rows["language"].to_numpy())

    def combine(self, logits: Floats, language: npt.NDArray[np.generic]) -> Floats:
        """`logit` for ``(n_rows, n_learners)`` log-odds."""
        found = np.asarray(logits @ np.array(self.coefficients) + self.intercept, dtype=np.float64)
        for name, values in self.by_language.items():
            rows = language == name
            found[rows] = logits[rows] @ np.array(values[:-1]) + values[-1]
        return found

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        return sigmoid(self.logit(frame))

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json`."""
        write_state(folder, self.kind, asdict(self))

    @classmethod
    def from_folder(cls, folder: Path) -> "FittedLogistic":
        """What `to_folder` wrote."""
        return cls.from_state(read_state(folder, cls.shape))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "FittedLogistic":
        """The value whose fields are in `state`."""
        by_language = {name: tuple(values) for name, values in state.get("by_language", {}).items()}
        return cls(tuple(state["learners"]), tuple(state["coefficients"]), float(state["intercept"]), by_language)


@dataclass(frozen=True)
class LogisticStacker:
    """Logistic regression on standardised logits with L2 penalties: recalibrates and weighs the learners.

    Attributes
    ----------
    l2
        The weight of half the squared norm of the common coefficients beside the **summed** log-loss: it fades as rows
        grow.
    language_l2
        The same for what each language's coefficients and intercept differ by from the common ones; infinite tells no
        languages apart. This is partial pooling: a language with few rows stays near the others.
    """

    l2: float = 1.0
    language_l2: float = float("inf")
    name: str = "logistic"
    kind: ClassVar[str] = "logistic"

    def fit(self, frame: PredictionFrame) -> FittedLogistic:
        """The coefficients, on the scale of the logits."""
        return self.fit_logits(frame.logits(), frame.labels, frame.rows["language"].to_numpy(), learners=frame.learners)

    def fit_logits(
        self, logits: Floats, labels: Binary, language: npt.NDArray[np.generic], *, learners: tuple[str, ...]
    ) -> FittedLogistic:
        """`fit` for ``(n_rows, n_learners)`` log-odds."""
        centre, scale = logits.mean(axis=0), logits.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        design = np.column_stack([(logits - centre) / scale, np.ones(len(logits))])
        penalty = np.append(np.full(len(learners), self.l2), 0.0)  # none on the common intercept
        names, counts = np.unique(language.astype(str), return_counts=True)
        by_language: dict[str, tuple[float, ...]] = {}
        if len(names) == 1 or not np.isfinite(self.language_l2):
            common, _ = _newton(design, labels, np.array([len(labels)]), penalty=penalty, own_l2=float("inf"))
        else:
            order = np.argsort(language.astype(str), kind="stable")
            common, own = _newton(
                design[order], labels[order], np.cumsum(counts), penalty=penalty, own_l2=self.language_l2
            )
            by_language = {
                str(name): _unstandardised(common + each, centre, scale) for name, each in zip(names, own, strict=True)
            }
        *coefficients, intercept = _unstandardised(common, centre, scale)
        return FittedLogistic(learners, tuple(coefficients), intercept, by_language)


@dataclass(frozen=True)
class LanguageLogistic:
    """A `LogisticStacker` that tells languages apart by the strength that does best on held-out folds.

    Wins where learners are good at different languages; where they are not, the strength is infinite and it is the
    plain stacker. A frame with a single fold gets that one too.
    """

    l2: float = 1.0
    name: str = "logistic-by-language"
    kind: ClassVar[str] = "logistic"

    def fit(self, frame: PredictionFrame) -> FittedLogistic:
        """The stacker at the chosen strength, fitted on all rows."""
        return LanguageFits(frame, l2=self.l2).fit_without(NOTHING)

    def over(self, frame: PredictionFrame, *, shared: "LanguageFits | None" = None) -> Refits:
        """Its fits without any folds of the frame; `shared` are those that another combiner has made of it."""
        return Refits(frame, (shared or LanguageFits(frame, l2=self.l2)).fit_without)


class LanguageFits:
    """`LanguageLogistic` over one frame, without any level-2 folds; no fit is made twice."""

    def __init__(self, frame: PredictionFrame, *, l2: float) -> None:
        self._l2, self._learners = l2, frame.learners
        self._logits, self._labels, self._fold = frame.logits(), frame.labels, frame.level2_fold
        self._language = frame.rows["language"].to_numpy().astype(str)
        self._at = cache(self._fit)
        self.strength = cache(self._strength)

    def fit_without(self, folds: Folds) -> FittedLogistic:
        """The stacker on the other folds, at the strength that was chosen on them."""
        return self._at(folds, self.strength(folds))

    def fit_rows(self, rows: npt.NDArray[np.bool_], *, strength: float) -> FittedLogistic:
        """The stacker of a strength on these rows, ``(n_rows,)``."""
        stacker = LogisticStacker(l2=self._l2, language_l2=strength)
        return stacker.fit_logits(self._logits[rows], self._labels[rows], self._language[rows], learners=self._learners)

    def logit(self, fitted: FittedLogistic) -> Floats:
        """The log-odds of every row of the frame, ``(n_rows,)``."""
        return fitted.combine(self._logits, self._language)

    def _fit(self, folds: Folds, strength: float) -> FittedLogistic:
        return self.fit_rows(~np.isin(self._fold, list(folds)), strength=strength)

    def _strength(self, folds: Folds) -> float:
        """That with the lowest log-loss of each of the other folds by a fit without it; of equals the strongest."""
        inner = sorted(set(np.unique(self._fold).tolist()) - folds)
        if len(inner) < 2 or len(np.unique(self._language)) < 2:
            return STRENGTHS[-1]
        losses = [sum(self._loss(folds, k, strength) for k in inner) for strength in STRENGTHS[::-1]]
        return STRENGTHS[::-1][int(np.argmin(losses))]

    def _loss(self, folds: Folds, held_out: int, strength: float) -> float:
        rows = self._fold == held_out
        fitted = self._at(folds | {held_out}, strength)
        return log_loss_sum(self._labels[rows], fitted.combine(self._logits[rows], self._language[rows]))


def log_loss_sum(labels: Binary, logits: Floats) -> float:
    """The summed log-loss of log-odds."""
    return float(np.sum(np.logaddexp(0.0, logits) - labels * logits))


@dataclass(frozen=True, eq=False)
class _Point:
    """Coefficients, and the penalised loss there with its derivatives per language."""

    common: Floats  # (n_coefficients,)
    own: Floats  # (n_languages, n_coefficients), what each language's differ by
    loss: float
    gradients: Floats  # (n_languages, n_coefficients) of the log-loss alone
    hessians: Floats  # (n_languages, n_coefficients, n_coefficients)


def _newton(
    design: Floats, labels: Binary, ends: npt.NDArray[np.intp], *, penalty: Floats, own_l2: float
) -> tuple[Floats, Floats]:
    """Common coefficients, and by how much each language's differ: the global optimum, by Newton's method.

    Rows are sorted by language; `ends` are the languages' ends. A language's coefficients meet only the common ones,
    so that a step takes one small system per language and one for the common ones.
    """
    blocks = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    apart = np.isfinite(own_l2)

    def at(common: Floats, own: Floats) -> _Point:
        loss = float(penalty @ common**2) / 2 + (own_l2 * float((own**2).sum()) / 2 if apart else 0.0)
        gradients, hessians = [], []
        for rows, each in zip(blocks, own, strict=True):
            logits = design[rows] @ (common + each)
            probability = sigmoid(logits)
            loss += log_loss_sum(labels[rows], logits)
            gradients.append((probability - labels[rows]) @ design[rows])
            weights = np.maximum(probability * (1 - probability), MIN_WEIGHT)
            hessians.append((design[rows] * weights[:, None]).T @ design[rows])
        return _Point(common, own, loss, np.array(gradients), np.array(hessians))

    n_coefficients = design.shape[1]
    point = at(np.zeros(n_coefficients), np.zeros((len(ends), n_coefficients)))
    for _ in range(MAX_STEPS):
        step, own_steps = _step(point, penalty=penalty, own_l2=own_l2)
        moved = at(point.common - step, point.own - own_steps)
        while moved.loss > point.loss and np.abs(step).max(initial=np.abs(own_steps).max()) > TOLERANCE:
            step, own_steps = step / 2, own_steps / 2
            moved = at(point.common - step, point.own - own_steps)
        if moved.loss > point.loss:
            break
        point = moved
        if np.abs(step).max(initial=np.abs(own_steps).max()) <= TOLERANCE:
            break
    return point.common, point.own


def _step(point: _Point, *, penalty: Floats, own_l2: float) -> tuple[Floats, Floats]:
    """Newton's step of the common coefficients, and of every language's differences from them."""
    total = point.hessians.sum(axis=0) + np.diag(penalty)
    gradient = point.gradients.sum(axis=0) + penalty * point.common
    if not np.isfinite(own_l2):
        return np.linalg.solve(total, gradient), np.zeros_like(point.own)
    own = point.hessians + own_l2 * np.eye(len(gradient))
    own_gradients = point.gradients + own_l2 * point.own
    to_own = np.linalg.solve(own, point.hessians)  # H_l is symmetric, as is the system
    reduced = total - (point.hessians @ to_own).sum(axis=0)
    solved = np.linalg.solve(own, own_gradients[..., None])[..., 0]
    step = np.linalg.solve(reduced, gradient - np.einsum("lij,lj->i", point.hessians, solved))
    return step, solved - to_own @ step


def _unstandardised(values: Floats, centre: Floats, scale: Floats) -> tuple[float, ...]:
    """Coefficients of the logits themselves, followed by the intercept."""
    coefficients = values[:-1] / scale
    return (*(float(each) for each in coefficients), float(values[-1] - coefficients @ centre))
