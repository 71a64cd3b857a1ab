"""What a study is made from: what was asked for, checked, with the rows that every trial gets."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.fold_store import Folds
from competition.metrics import auc
from competition.tasks import Task
from oof.threshold import best_threshold
from pipelines.config import Recipe, learner_name, load_recipe, recipe_values
from pipelines.prepare import limit_rows
from pipelines.run_folder import RunFolder, without_labels
from pipelines.search_space import Space, overrides_of, read_space
from pipelines.study_store import StudyStore

if TYPE_CHECKING:
    import optuna

    from pipelines.backbones.protocol import Corpus

SMALLEST_SCORE = 1e-7  # of a float32; an unlucky 0 would cost infinitely much


def log_loss(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean negative log-likelihood of the labels.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
    0.6931
    """
    score = np.clip(np.asarray(scores, dtype=np.float64), SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    return float(-np.mean(np.where(np.asarray(labels) == 1, np.log(score), np.log1p(-score))))


@dataclass(frozen=True)
class Metric:
    """What a study improves, and whether more of it is better."""

    score: Callable[[npt.ArrayLike, npt.ArrayLike], float]
    sign: int

    @property
    def direction(self) -> str:
        """Optuna's word for the sign."""
        return "maximize" if self.sign > 0 else "minimize"


METRICS = {
    "f1": Metric(lambda labels, scores: best_threshold(labels, scores).f1, 1),
    "auc": Metric(auc, 1),
    "log-loss": Metric(log_loss, -1),
}


@dataclass(frozen=True)
class Tuning:
    """What is asked for: a study of one recipe.

    Attributes
    ----------
    vary
        The space, see `pipelines.search_space`.
    overrides
        Recipe keys set for all trials, after those that the run has recorded.
    folds
        The held-out folds that are scored.
    rows
        About so many rows are fitted on, and about so many scored, per fold (whole queries).
    trials
        Trials in all, those of an earlier call or of other workers included, pruned and failed ones too. A trial whose
        worker was killed does not count, nor does a draw that repeats an earlier one.
    study
        Name of the study, the base learner's if left out.
    """

    run: RunFolder
    task: str
    model: str
    vary: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    folds: tuple[int, ...] = (0,)
    rows: int = 4000
    trials: int = 20
    metric: str = "f1"
    study: str | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study or learner_name(self.model)

    @property
    def store(self) -> StudyStore:
        """The study's files."""
        return StudyStore(self.run.study(self.task, self.name))


@dataclass(frozen=True, eq=False)
class FoldRows:
    """One held-out fold of a study: the rows to fit on and the rows to score."""

    fold: int
    train: pd.DataFrame
    held_out: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Plan:
    """A study that can start: everything that was asked for is there and fits together."""

    tuning: Tuning
    task: Task
    space: Space
    recipe: Recipe
    overrides: tuple[str, ...]
    parts: tuple[FoldRows, ...]
    seed: int

    @property
    def metric(self) -> Metric:
        """What the study improves."""
        return METRICS[self.tuning.metric]

    @cached_property
    def corpus(self) -> "Corpus":
        """The texts of all splits, as fold training has them."""
        from pipelines.backbones.protocol import Corpus

        return Corpus.of(without_labels(frame) for frame in self.tuning.run.rows(self.task.name).values())

    @cached_property
    def own_values(self) -> dict[str, Any]:
        """The recipe's own values, as far as they lie in the space."""
        return self.space.own_values(self.recipe, self.tuning.model, self.overrides)

    def recipe_of(self, params: dict[str, Any]) -> Recipe:
        """The recipe with a trial's values."""
        return load_recipe(self.tuning.model, (*self.overrides, *overrides_of(params)))

    def settings(self) -> dict[str, Any]:
        """What makes trials comparable: all of one study have it in common."""
        return {
            **asdict(self.tuning.run.origin(self.task.name, recipe_values(self.recipe))),
            "learner": learner_name(self.tuning.model),
            "space": self.space.texts(),
            "held_out_folds": [part.fold for part in self.parts],
            "n_rows": self.tuning.rows,
            "metric": self.tuning.metric,
        }

    def open(self) -> "optuna.Study":
        """The study as it stands on disk."""
        with self.tuning.store.locked():
            return self.tuning.store.open(self.metric.direction)


def plan_study(tuning: Tuning) -> Plan:
    """The study's rows, recipe and space; nothing is written.

    Raises
    ------
    CompetitionError
        Something of it cannot be.
    """
    from pipelines.backbones import applies

    _refuse_bad_request(tuning)
    task, settings = tuning.run.task(tuning.task), tuning.run.settings()
    space = read_space(tuning.vary, tuning.model, given=tuning.overrides, recorded=settings.overrides)
    overrides = (*settings.overrides, *tuning.overrides)
    recipe = load_recipe(tuning.model, overrides)
    if not applies(recipe, task):
        raise CompetitionError(f"recipe {tuning.model} needs a category path as target; {task.name} has none")
    if recipe.extra is not None:
        raise CompetitionError(
            f"recipe {tuning.model} has extra rows, and a study fits on labelled ones only",
            advice="tune the recipe without its table [extra]",
        )
    rows = tuning.run.rows(task.name)["train"]
    folds = tuning.run.folds(task.name)
    parts = tuple(_fold_rows(rows, folds, k, n_rows=tuning.rows, seed=settings.seed) for k in tuning.folds)
    _refuse_one_label(parts)
    return Plan(tuning, task, space, recipe, overrides, parts, settings.seed)


def _fold_rows(rows: pd.DataFrame, folds: Folds, held_out: int, *, n_rows: int, seed: int) -> FoldRows:
    sides = (folds.training_rows(held_out, rows), (folds.align(rows) == held_out).to_numpy())
    train, scored = (limit_rows(rows[of], n_rows, seed=seed) for of in sides)
    return FoldRows(held_out, train, scored)


def _refuse_bad_request(tuning: Tuning) -> None:
    """Refuse what is wrong by itself; all faults are named."""
    n_folds = tuning.run.folds(tuning.run.task(tuning.task).name).plan.n_splits
    absent = [k for k in tuning.folds if not 0 <= k < n_folds]
    checks = {
        ("--folds", str(list(tuning.folds)), f"different folds of 0 to {n_folds - 1}"): not tuning.folds
        or bool(absent)
        or len(set(tuning.folds)) < len(tuning.folds),
        ("--rows", str(tuning.rows), "10 or more"): tuning.rows < 10,
        ("--trials", str(tuning.trials), "1 or more"): tuning.trials < 1,
        ("--metric", tuning.metric, f"one of {', '.join(METRICS)}"): tuning.metric not in METRICS,
        ("--study", tuning.name, "a folder's name"): not re.fullmatch(r"\w[\w.-]*", tuning.name),
    }
    if faults := [Fault(*words) for words, wrong in checks.items() if wrong]:
        raise CompetitionError("this study cannot be", faults=faults)


def _refuse_one_label(parts: tuple[FoldRows, ...]) -> None:
    faults = [
        Fault(f"fold {part.fold}, {words}", f"{len(rows):,} rows, {rows['label'].nunique()} different labels", "both")
        for part in parts
        for words, rows in (("rows to fit on", part.train), ("held-out rows", part.held_out))
        if rows["label"].nunique() < 2
    ]
    if faults:
        raise CompetitionError("these rows are too few for a study", faults=faults, advice="give more --rows")
