"""The LightGBM stacker: boosted trees on level-2 features that start from a logistic stacker."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from competition.json_files import Shape
from oof.combiner import NOTHING, Folds, inner_scores, members
from oof.features import CATEGORICAL, level2_features
from oof.frame import PredictionFrame
from oof.logistic import FittedLogistic, LanguageFits
from oof.paths import PREFIX as PATH
from oof.state import read_state, write_state
from oof.trees import checked_trees, load_trees
from oof.weights import sigmoid

if TYPE_CHECKING:
    import lightgbm as lgb

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]
Segment = int | str  # a fold, or a language

TREES_FILE = "trees.txt"
ROWS_TO_CHOOSE_BY = 400_000
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
class FittedLightGBM:
    """A logistic offset plus boosted trees on level-2 features.

    Attributes
    ----------
    offset
        The logistic stacker that the trees start from; it may tell languages apart.
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
    shape: ClassVar[Mapping[str, Shape]] = {
        "offset": FittedLogistic.shape,
        "languages": list[str],
        "features": list[str],
        "n_rounds": int,
    }

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
        state = read_state(folder, cls.shape)
        trees = load_trees(folder / TREES_FILE, n_features=len(state["features"])) if state["n_rounds"] else ""
        offset = FittedLogistic.from_state(state["offset"])
        return cls(offset, tuple(state["languages"]), tuple(state["features"]), state["n_rounds"], trees)

    def _tree_logits(self, frame: PredictionFrame) -> Floats:
        paths = any(name.startswith(PATH) for name in self.features)
        features = level2_features(frame, languages=self.languages, paths=paths)
        if missing := [name for name in self.features if name not in features]:
            raise CompetitionError(
                "the features are not those of training",
                faults=[Fault(name, "missing") for name in missing],
                advice="give the columns query, target and query_en as in training",
            )
        return self.boosted(features[list(self.features)].to_numpy(dtype=np.float32))

    def boosted(self, values: npt.NDArray[np.float32]) -> Floats:
        """What the trees add to the log-odds of rows with these features, ``(n_rows,)``."""
        import lightgbm as lgb

        booster = lgb.Booster(model_str=self.trees)
        return np.asarray(booster.predict(values, raw_score=True, num_threads=available_cpus()), dtype=np.float64)


@dataclass(frozen=True)
class LightGBMStacker:
    """LightGBM on level-2 features, started from the logistic stacker and strongly regularised.

    The number of trees is that with the lowest log-loss in a cross-validation over the frame's own folds, which keep
    groups together, or over its languages; 0 trees is one of the choices, and is what a frame with a single fold or
    language gets. Rows to be scored never have a part in it. Of a frame of more than `ROWS_TO_CHOOSE_BY` rows that
    many are drawn for the choice by languages: it takes seven of eight fits, and more rows grow more trees too.

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
    paths
        With the features of `oof.paths`, for targets that are category paths. Measured on the `cup` data, QC: nested F1
        .9586 without, .9596 with them (difference .0001 to .0018), F1 on dev .9605 and .9614 (-.0007 to .0027).
    """

    max_rounds: int = 300
    patience: int = 12
    learning_rate: float = 0.15
    num_leaves: int = 15
    seed: int = 0
    num_threads: int | None = None
    held_out: Literal["fold", "language"] = "fold"
    excluded: tuple[str, ...] = ()
    paths: bool = False
    name: str = "stack"
    kind: ClassVar[str] = "stack"

    def fit(self, frame: PredictionFrame) -> FittedLightGBM:
        """The offset and the trees, fitted on all rows of the frame."""
        return self.over(frame).fit_without(NOTHING)

    def over(self, frame: PredictionFrame, *, shared: "Level2 | None" = None) -> "BoostedFits":
        """Its fits without any folds of the frame; `shared` is what another stacker has made of the same frame."""
        return BoostedFits(self, frame, shared or Level2.of(frame, excluded=self.excluded, paths=self.paths))


@dataclass(frozen=True, eq=False)
class Level2:
    """What stackers of one frame have in common: features and their bins know no labels, offsets know no trees.

    Attributes
    ----------
    languages
        Those of the frame.
    names, values
        Of the features, ``(n_rows, n_features)`` float32.
    dataset
        The same, binned.
    offsets
        The fits of the logistic stacker that trees start from.
    """

    languages: tuple[str, ...]
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    dataset: "lgb.Dataset"
    offsets: LanguageFits

    @classmethod
    def of(cls, frame: PredictionFrame, *, excluded: tuple[str, ...] = (), paths: bool = False) -> "Level2":
        """That of a frame, without the excluded features."""
        languages = tuple(sorted(frame.rows["language"].unique()))
        features = level2_features(frame, languages=languages, paths=paths).drop(columns=list(excluded))
        names, values = tuple(features.columns.astype(str)), features.to_numpy(dtype=np.float32)
        codes = [names.index(name) for name in CATEGORICAL if name in names]
        dataset = _dataset(values, frame.labels, codes=codes)
        return cls(languages, names, values, dataset, LanguageFits(frame, l2=1.0))


@dataclass(frozen=True, eq=False)
class _Grown:
    """Trees, and the log-loss of rows that they have not seen after every number of them.

    Attributes
    ----------
    text
        The trees in LightGBM's format: a booster would hold on to scores and gradients of all of its rows.
    n_trees
        How many.
    losses
        Held-out fold or language -> ``(n + 1,)``, the first without trees; `n` may be less than `n_trees`.
    """

    text: str
    n_trees: int
    losses: dict[Segment, Floats]

    def first(self, n_rounds: int) -> str:
        """The first trees only, in the same format."""
        import lightgbm as lgb

        return checked_trees(lgb.Booster(model_str=self.text).model_to_string(num_iteration=n_rounds))[1]


class BoostedFits:
    """`LightGBMStacker` over one frame, without any level-2 folds.

    Trees that were grown without folds j and k serve twice: as the fit without both, and, by their loss on k, in
    choosing the number of trees without j.
    """

    def __init__(self, stacker: LightGBMStacker, frame: PredictionFrame, level2: Level2) -> None:
        self._stacker, self._frame, self._level2 = stacker, frame, level2
        self._trees: dict[tuple[Folds, str | None], _Grown] = {}
        self._drawn = _drawn(frame.n_rows, seed=stacker.seed)
        self.fit_without = cache(self._fit_without)
        self.held_out = cache(self._held_out)

    def inner(self, folds: Folds) -> Floats:
        """See `Fits.inner`."""
        return inner_scores(self._frame, folds, self.held_out)

    def _fit_without(self, folds: Folds) -> FittedLightGBM:
        n_rounds = self._n_rounds(folds)
        trees = ""
        if n_rounds:
            trees = self._grown(folds, at_least=n_rounds).first(n_rounds)
        offset = self._level2.offsets.fit_without(folds)
        return FittedLightGBM(offset, self._level2.languages, self._level2.names, n_rounds, trees)

    def _held_out(self, folds: Folds) -> Floats:
        fitted, rows = self.fit_without(folds), members(self._frame, folds)
        logits = self._level2.offsets.logit(fitted.offset)[rows]
        if fitted.n_rounds:
            logits = logits + fitted.boosted(self._level2.values[rows])
        return sigmoid(logits)

    def _n_rounds(self, folds: Folds) -> int:
        """The number of trees with the lowest log-loss on the other folds, or languages, each held out in turn."""
        by_fold = self._stacker.held_out == "fold"
        rows = ~members(self._frame, folds) & (by_fold | self._drawn)
        segment = self._frame.level2_fold if by_fold else self._frame.rows["language"].to_numpy()
        names, sizes = np.unique(segment[rows], return_counts=True)
        if len(names) < 2:
            return 0
        grown = {
            name: self._grown(folds | {int(name)}) if by_fold else self._grown(folds, language=str(name))
            for name in names
        }
        losses = [each.losses[int(name) if by_fold else str(name)] for name, each in grown.items()]
        shortest = min(map(len, losses))
        losses = [each[:shortest] for each in losses]
        return int(np.argmin(np.average(losses, axis=0, weights=sizes)))

    def _grown(self, folds: Folds, *, language: str | None = None, at_least: int = 0) -> _Grown:
        """Trees on the rows of the other folds and languages, until those left out have long not gained."""
        found = self._trees.get((folds, language))
        if found is None or found.n_trees < at_least:
            found = self._trees[folds, language] = self._grow(folds, language=language, at_least=at_least)
        return found

    def _grow(self, folds: Folds, *, language: str | None, at_least: int) -> _Grown:
        of_folds = members(self._frame, folds)
        of_language = self._frame.rows["language"].to_numpy() == language
        left_out = of_folds | of_language
        if language is not None:
            left_out |= ~self._drawn
        segments: dict[Segment, npt.NDArray[np.bool_]] = {
            k: members(self._frame, frozenset({k})) for k in sorted(folds)
        }
        if language is not None:
            segments = {language: of_language & ~of_folds & self._drawn}
        offsets = self._level2.offsets
        fitted = (
            offsets.fit_rows(~left_out, strength=offsets.strength(folds)) if language else offsets.fit_without(folds)
        )
        offset = offsets.logit(fitted)
        train = self._level2.dataset.subset(np.flatnonzero(~left_out)).construct().set_init_score(offset[~left_out])
        booster = self._booster(train)
        for name, rows in segments.items():
            valid = self._level2.dataset.subset(np.flatnonzero(rows)).construct().set_init_score(offset[rows])
            booster.add_valid(valid, str(name))
        sizes = [int(rows.sum()) for rows in segments.values()]
        losses = [[value for _, _, value, _ in booster.eval_valid()]]
        best, longest = 0, self._stacker.max_rounds
        while segments and len(losses) <= longest and len(losses) - 1 - best < self._stacker.patience:
            booster.update()
            losses.append([value for _, _, value, _ in booster.eval_valid()])
            best = len(losses) - 1 if np.dot(losses[-1], sizes) < np.dot(losses[best], sizes) else best
        for _ in range(len(losses) - 1, at_least):
            booster.update()
        losses_of = dict(zip(segments, np.array(losses).T, strict=True))
        return _Grown(booster.model_to_string(), booster.num_trees(), losses_of)

    def _booster(self, train: "lgb.Dataset") -> "lgb.Booster":
        import lightgbm as lgb

        settings = {
            "learning_rate": self._stacker.learning_rate,
            "num_leaves": self._stacker.num_leaves,
            "seed": self._stacker.seed,
            "num_threads": self._stacker.num_threads or available_cpus(),
        }
        return lgb.Booster({**TREE_PARAMETERS, **settings}, train)


def _drawn(n_rows: int, *, seed: int) -> npt.NDArray[np.bool_]:
    """The rows that the number of trees is chosen by, ``(n_rows,)``: all, or about `ROWS_TO_CHOOSE_BY` at random."""
    if n_rows <= ROWS_TO_CHOOSE_BY:
        return np.ones(n_rows, dtype=np.bool_)
    return np.asarray(np.random.default_rng(seed).random(n_rows) < ROWS_TO_CHOOSE_BY / n_rows)


def _dataset(values: npt.NDArray[np.float32], labels: Binary, *, codes: list[int]) -> "lgb.Dataset":
    """The rows for boosting, `codes` being columns of codes. Without names: LightGBM refuses some characters."""
    import lightgbm as lgb

    parameters = {name: TREE_PARAMETERS[name] for name in ("max_bin", "min_data_in_leaf", "verbosity")}
    return lgb.Dataset(values, labels, categorical_feature=codes, params=parameters).construct()
