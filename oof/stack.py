"""Stackers: a logistic regression on the base logits, and LightGBM that starts from it."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from oof.features import level2_features
from oof.frame import PredictionFrame
from oof.state import read_state, write_state
from oof.weights import sigmoid

if TYPE_CHECKING:
    import lightgbm as lgb

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

TREES_FILE = "trees.txt"
TREE_PARAMETERS = {
    "objective": "binary",
    "metric": "binary_logloss",
    "max_bin": 63,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "cat_smooth": 50.0,
    "deterministic": True,
    "force_row_wise": True,  # what `deterministic` needs to be so across numbers of threads
    "verbosity": -1,
}


def available_cpus() -> int:
    """The CPUs that this process may use, or OMP_NUM_THREADS if that is set.

    More threads than CPUs spin against each other: 4.7 CPU-seconds became 65.6 on a small machine.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class FittedLogistic:
    """A logistic regression on the base learners' logits."""

    learners: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    kind: ClassVar[str] = "logistic"

    def logit(self, frame: PredictionFrame) -> Floats:
        """The log-odds of every row, ``(n_rows,)``."""
        logits = frame.with_learners(self.learners).logits()
        return np.asarray(logits @ np.array(self.coefficients) + self.intercept, dtype=np.float64)

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        return sigmoid(self.logit(frame))

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json`."""
        write_state(folder, self.kind, asdict(self))

    @classmethod
    def from_folder(cls, folder: Path) -> "FittedLogistic":
        """What `to_folder` wrote."""
        return cls.from_state(read_state(folder))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "FittedLogistic":
        """The value whose fields are in `state`."""
        return cls(tuple(state["learners"]), tuple(state["coefficients"]), float(state["intercept"]))


@dataclass(frozen=True)
class LogisticStacker:
    """Logistic regression on standardised logits with an L2 penalty: recalibrates and weighs the learners.

    Attributes
    ----------
    l2
        The weight of half the squared norm beside the **summed** log-loss: it fades as rows grow.
    """

    l2: float = 1.0
    name: str = "logistic"
    kind: ClassVar[str] = "logistic"

    def fit(self, frame: PredictionFrame) -> FittedLogistic:
        """The coefficients, on the scale of the logits."""
        from sklearn.linear_model import LogisticRegression

        logits = frame.logits()
        centre, scale = logits.mean(axis=0), logits.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        model = LogisticRegression(C=1 / self.l2, tol=1e-6, max_iter=500).fit((logits - centre) / scale, frame.labels)
        coefficients = model.coef_[0] / scale
        intercept = float(model.intercept_[0] - coefficients @ centre)
        return FittedLogistic(frame.learners, tuple(float(c) for c in coefficients), intercept)


@dataclass(frozen=True)
class FittedLightGBM:
    """A logistic offset plus boosted trees on level-2 features.

    Attributes
    ----------
    offset
        The logistic stacker that the trees start from.
    languages
        Those of training; rows of another language have a missing language.
    features
        The feature columns in the order of the trees; a frame that lacks one is refused.
    n_rounds
        The number of trees; with 0 this is the logistic stacker.
    trees
        LightGBM's own text format.
    """

    offset: FittedLogistic
    languages: tuple[str, ...]
    features: tuple[str, ...]
    n_rounds: int
    trees: str
    kind: ClassVar[str] = "lightgbm"

    def predict(self, frame: PredictionFrame) -> Floats:
        """The combined score of every row, ``(n_rows,)`` in [0, 1]."""
        logits = self.offset.logit(frame)
        if self.n_rounds:
            logits = logits + self._tree_logits(frame.with_learners(self.offset.learners))
        return sigmoid(logits)

    def to_folder(self, folder: Path) -> None:
        """Write `combiner.json` and `trees.txt`."""
        state = asdict(self)
        (folder / TREES_FILE).write_text(str(state.pop("trees")), encoding="utf-8")
        write_state(folder, self.kind, state)

    @classmethod
    def from_folder(cls, folder: Path) -> "FittedLightGBM":
        """What `to_folder` wrote."""
        state: dict[str, Any] = read_state(folder)
        trees = (folder / TREES_FILE).read_text(encoding="utf-8")
        offset = FittedLogistic.from_state(state["offset"])
        return cls(offset, tuple(state["languages"]), tuple(state["features"]), int(state["n_rounds"]), trees)

    def _tree_logits(self, frame: PredictionFrame) -> Floats:
        import lightgbm as lgb

        features = level2_features(frame, languages=self.languages)
        if missing := [name for name in self.features if name not in features]:
            raise CompetitionError(
                "the features are not those of training",
                faults=[Fault(name, "missing") for name in missing],
                advice="give the columns query, target and query_en as in training",
            )
        booster = lgb.Booster(model_str=self.trees)
        values = features[list(self.features)].to_numpy()
        return np.asarray(booster.predict(values, raw_score=True, num_threads=available_cpus()), dtype=np.float64)


@dataclass(frozen=True)
class LightGBMStacker:
    """LightGBM on level-2 features, started from the logistic stacker and strongly regularised.

    The number of trees is that with the lowest log-loss in a cross-validation over the frame's own folds, which keep
    groups together, or over its languages; 0 trees is one of the choices, and is what a frame with a single fold or
    language gets. Rows to be scored never have a part in it.

    Attributes
    ----------
    max_rounds, patience
        The most trees tried; stop when the loss has not fallen for `patience` trees.
    num_threads
        None takes the CPUs that the process may use. The result does not depend on it.
    held_out
        What is held out when the number of trees is chosen: ``fold``, or ``language`` where the rows to be scored are
        of languages that training does not know. Measured on the `cup` data, QC: F1 on dev .9598 by folds, .9609 by
        languages, at the same cross-fitted F1.
    excluded
        Level-2 features that are left out, such as those of `oof.shift.shifted_features`.
    """

    max_rounds: int = 300
    patience: int = 12
    learning_rate: float = 0.15
    num_leaves: int = 15
    seed: int = 0
    num_threads: int | None = None
    held_out: Literal["fold", "language"] = "fold"
    excluded: tuple[str, ...] = ()
    name: str = "stack"
    kind: ClassVar[str] = "stack"

    def fit(self, frame: PredictionFrame) -> FittedLightGBM:
        """The offset and the trees, fitted on all rows of the frame."""
        languages = tuple(sorted(frame.rows["language"].unique()))
        features = level2_features(frame, languages=languages).drop(columns=list(self.excluded))
        offset = LogisticStacker().fit(frame)
        dataset = _dataset(features, frame.labels)
        n_rounds = self._best_rounds(frame, dataset)
        trees = ""
        if n_rounds:
            booster = self._booster(dataset.set_init_score(offset.logit(frame)))
            for _ in range(n_rounds):
                booster.update()
            trees = booster.model_to_string()
        return FittedLightGBM(offset, languages, tuple(features.columns.astype(str)), n_rounds, trees)

    def _best_rounds(self, frame: PredictionFrame, dataset: "lgb.Dataset") -> int:
        """The number of trees with the lowest log-loss on held-out folds or languages, boosted side by side."""
        segment = frame.fold if self.held_out == "fold" else frame.rows["language"].to_numpy()
        segments, sizes = np.unique(segment, return_counts=True)
        if len(segments) < 2:
            return 0
        boosters = [self._without(frame, dataset, segment == each) for each in segments]

        def held_out_loss() -> float:
            losses = [booster.eval_valid()[0][2] for booster in boosters]
            return float(np.average(losses, weights=sizes))

        losses = [held_out_loss()]
        while len(losses) <= self.max_rounds and len(losses) - np.argmin(losses) <= self.patience:
            for booster in boosters:
                booster.update()
            losses.append(held_out_loss())
        return int(np.argmin(losses))

    def _without(
        self, frame: PredictionFrame, dataset: "lgb.Dataset", held_out: npt.NDArray[np.bool_]
    ) -> "lgb.Booster":
        """A booster with no trees yet, set up on the other rows and evaluated on those held out.

        All share the bins of all rows (which know no labels): binning anew takes longer than boosting.
        """
        offset = LogisticStacker().fit(frame.take(~held_out)).logit(frame)
        train, valid = (dataset.subset(np.flatnonzero(rows)).construct() for rows in (~held_out, held_out))
        booster = self._booster(train.set_init_score(offset[~held_out]))
        return booster.add_valid(valid.set_init_score(offset[held_out]), "held out")

    def _booster(self, train: "lgb.Dataset") -> "lgb.Booster":
        import lightgbm as lgb

        settings = {
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "seed": self.seed,
            "num_threads": self.num_threads or available_cpus(),
        }
        return lgb.Booster({**TREE_PARAMETERS, **settings}, train)


def _dataset(features: pd.DataFrame, labels: Binary) -> "lgb.Dataset":
    """The rows for boosting; without names, as LightGBM refuses some characters in them."""
    import lightgbm as lgb

    return lgb.Dataset(
        features.to_numpy(),
        labels,
        categorical_feature=[features.columns.get_loc("language")],
        params={
            "max_bin": TREE_PARAMETERS["max_bin"],
            "min_data_in_leaf": TREE_PARAMETERS["min_data_in_leaf"],
            "verbosity": -1,
        },
    ).construct()
