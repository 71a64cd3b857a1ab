"""A finished ensemble or student in memory, which scores any pairs.

**What a score depends on.** A pair's score is that of the pair alone, added to what the run knows: base learners know
the texts of the run's files (word weights, category tree, candidates of a query), and level-2 features see the pair
among the rows of the test file (dev, if there is no test file), see `oof.context`. Nothing of the other pairs asked for
has a part in it, so a pair scores the same alone and in any batch; networks may differ in the last bits, by the order
in which a processor adds up. A pair that stands in the test file gets the score that the run gave it there.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from competition.errors import CompetitionError, Fault, MismatchError
from competition.tasks import Task
from oof.blend import SingleLearner
from oof.context import Context
from oof.crossfit import Fitted, fit_final
from oof.features import NOVELTY
from oof.frame import PredictionFrame
from oof.segments import SegmentCuts
from pipelines.distilling import new_row_threshold
from pipelines.ensembling import complete_learners, ensemble_cuts, ensembles, gather, read_manifest
from pipelines.new_pairs import Preparation, given_pairs
from pipelines.predict import Models, learner_models, serving_space, student_model, task_of
from pipelines.run_folder import RunFolder
from pipelines.submitting import choose
from submissions.leaderboard import Leaderboard

if TYPE_CHECKING:
    from pipelines.translation.work import Translating

log = logging.getLogger(__name__)

Pairs = pd.DataFrame | Iterable[Mapping[str, object]]
BEST = "best"
BATCH = 4096


class Model(Protocol):
    """What gives rows their scores, and cuts them."""

    @property
    def cuts(self) -> SegmentCuts:
        """Where it cuts."""

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Probability of label 1, ``(n_rows,)``; `rows` are as the run's, without labels."""

    def facts(self) -> dict[str, object]:
        """What notebooks show of it."""


@dataclass(frozen=True, eq=False)
class StudentModel:
    """A student alone."""

    models: Models
    cuts: SegmentCuts

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """See `Model`."""
        return self.models.score(rows)

    def facts(self) -> dict[str, object]:
        """See `Model`."""
        return {"models": 1, "threshold": self.cuts.overall}


@dataclass(frozen=True, eq=False)
class EnsembleModel:
    """All fold models of the base learners of an ensemble, and what combines them.

    Attributes
    ----------
    context
        The rows of the run among which each new one is seen.
    known
        Languages and targets that the models were trained on.
    """

    learners: tuple[Models, ...]
    fitted: Fitted
    cuts: SegmentCuts
    context: Context | None
    known: tuple[frozenset[str], frozenset[str]]

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """See `Model`."""
        scores = np.column_stack([each.score(rows) for each in self.learners])
        return self.fitted.predict(self.frame(rows, scores))

    def facts(self) -> dict[str, object]:
        """See `Model`."""
        return {
            "base learners": ", ".join(each.name for each in self.learners),
            "models": sum(len(each.models) for each in self.learners),
            "combiner": self.fitted.combiner.kind,
            "threshold": self.cuts.overall,
            "cuts of their own": ", ".join(self.cuts.by_segment),
        }

    def frame(self, rows: pd.DataFrame, scores: np.ndarray) -> PredictionFrame:
        """The rows with the base learners' scores, ``(n_rows, n_learners)``, as the combiner sees them."""
        columns = rows[["id", "language", "query", "target", "query_en"]]
        novelty = {
            name: [value not in known for value in rows[column]]
            for name, column, known in zip(NOVELTY, ("language", "target"), self.known, strict=True)
        }
        names = tuple(each.name for each in self.learners)
        return PredictionFrame(columns.assign(**novelty), scores, names, context=self.context)


@dataclass(frozen=True, eq=False)
class PairScorer:
    """Scores pairs of one task; see the module for what a score depends on.

    Attributes
    ----------
    name, kind
        Of the ensemble, base learner or student.
    """

    task: Task
    name: str
    kind: str
    model: Model
    preparation: Preparation

    def score(self, pairs: Pairs | Path | str, *, batch: int = BATCH) -> pd.DataFrame:
        """One line per pair, in their order: `id`, `score` (probability of label 1), `decision` (0 or 1).

        Parameters
        ----------
        pairs
            A frame, records, or the path of a JSON Lines, CSV, TSV or Parquet file, with `query` and `target` (or the
            names of the task's files); `language` (guessed where it is missing), `query_en` (from the run's
            translations, or made by the scorer's translation recipe, if missing) and `id` (the place, from 1) may be
            left out.

        Raises
        ------
        CompetitionError
            With every fault of the pairs.
        """
        if isinstance(pairs, str | Path):
            from pipelines.pair_files import read_pairs

            checked = read_pairs(Path(pairs), self.task)
        else:
            checked = given_pairs(pairs, self.task)
        parts = [self.score_checked(checked.iloc[start : start + batch]) for start in range(0, len(checked), batch)]
        if not parts:
            parts = [pd.DataFrame({"id": [], "score": np.empty(0), "decision": np.empty(0, dtype=np.int8)})]
        return pd.concat(parts, ignore_index=True).astype({"id": checked["id"].infer_objects().dtype})

    def decide(self, pairs: Pairs | Path | str) -> np.ndarray:
        """The 0/1 decision for every pair, ``(n_pairs,)``."""
        return self.score(pairs)["decision"].to_numpy(dtype=np.int8)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task.name}/{self.name}: {self.kind}>"

    def _repr_html_(self) -> str:
        facts = pd.DataFrame([{"task": self.task.name, "kind": self.kind, "name": self.name, **self.model.facts()}])
        return facts.to_html(index=False)

    def score_checked(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """`score` of pairs that are checked already, see `pipelines.new_pairs.checked_pairs`; all in one batch."""
        pairs = pairs.reset_index(drop=True)
        rows = self.preparation.rows(pairs)
        scores = self.model.score(rows)
        decisions = self.model.cuts.decide(scores, rows["language"].to_numpy())
        return pd.DataFrame({"id": pairs["id"], "score": scores, "decision": decisions})


def load_ensemble(
    run: RunFolder, task: str, name: str = BEST, *, translating: "Translating | None" = None
) -> PairScorer:
    """An ensemble with all fold models of its base learners; or a base learner; or the ``best`` of the leaderboard.

    Raises
    ------
    CompetitionError
        There is none of that name, weights were freed, or pretrained weights are not to be had.
    """
    definition = task_of(run, task)
    if name == BEST:
        name = choose(_board(run), task, BEST).name
    if name in ensembles(run, task):
        manifest, kind = read_manifest(run.ensemble(task, name)), "ensemble"
        gathered = gather(run, task, manifest["learners"])
        _refuse_other_parts(run, task, name, made_of=manifest["sources"], found=gathered.sources)
        fitted, cuts = Fitted.from_folder(run.ensemble(task, name)), ensemble_cuts(run, task, name)
    else:
        _refuse_unknown(run, task, name)
        kind, gathered = "base", gather(run, task, [name])
        fitted = fit_final(SingleLearner(name), gathered.frames["train"])
        cuts = SegmentCuts(fitted.threshold, {})
    names = gathered.frames["train"].learners
    space = serving_space(run, task)
    context = next((gathered.frames[split] for split in ("test", "dev") if split in gathered.frames), None)
    train = gathered.frames["train"].rows
    model = EnsembleModel(
        tuple(learner_models(run, definition, each, space) for each in names),
        fitted,
        cuts,
        None if context is None else Context(context.without_labels()),
        (frozenset(train["language"].unique()), frozenset(train["target"].unique())),
    )
    log.info("%s: %s of %s is in memory", task, name, ", ".join(names))
    return PairScorer(definition, name, kind, model, Preparation.of(run, definition, work=translating))


def load_student(run: RunFolder, task: str, name: str, *, translating: "Translating | None" = None) -> PairScorer:
    """A distilled student.

    Raises
    ------
    CompetitionError
        There is none of that name, or its weights are not to be had.
    """
    definition = task_of(run, task)
    models = student_model(run, definition, name, serving_space(run, task))
    model = StudentModel(models, SegmentCuts(new_row_threshold(run, task, name), {}))
    log.info("%s: student %s is in memory", task, name)
    return PairScorer(definition, name, "student", model, Preparation.of(run, definition, work=translating))


def _refuse_unknown(run: RunFolder, task: str, name: str) -> None:
    there = [*ensembles(run, task), *complete_learners(run, task)]
    if name not in there:
        raise CompetitionError(
            f"{task} has no base learner or ensemble called {name!r}",
            advice=f"name one of {', '.join(there) or 'those that relstack train makes'}, or {BEST}",
        )


def _refuse_other_parts(
    run: RunFolder, task: str, name: str, *, made_of: Mapping[str, str], found: Mapping[str, str]
) -> None:
    faults = [
        Fault(learner, "was trained again since the ensemble was made")
        for learner in made_of
        if made_of[learner] != found[learner]
    ]
    if faults:
        advice = f"make it again: relstack ensemble make --run {run.root} --task {task} --name {name}"
        raise MismatchError(f"{task}/{name} was made from other parts", faults=faults, advice=advice)


def _board(run: RunFolder) -> Leaderboard:
    from pipelines.scoreboard import leaderboard

    return Leaderboard.read_csv(run.leaderboard_file) if run.leaderboard_file.is_file() else leaderboard(run)
