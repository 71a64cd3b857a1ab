"""Teachers of a run: an ensemble or a base learner by its name, and what it says of every row."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from competition.errors import CompetitionError, Fault
from oof.blend import SingleLearner
from oof.calibration import cross_calibrated, fit_temperature
from oof.combiner import Combiner
from oof.crossfit import cross_fit, fit_final
from oof.segments import SegmentCuts
from pipelines.ensembling import (
    COMBINERS,
    Gathered,
    complete_learners,
    ensemble_cuts,
    ensemble_scores,
    ensembles,
    gather,
    make_combiner,
    read_ensemble,
    read_manifest,
)
from pipelines.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher says.

    Attributes
    ----------
    scores
        Split -> calibrated probabilities, ``(n_rows,)``; those of train are cross-fitted.
    decisions
        Split -> 0 or 1, ``(n_rows,)``, as the teacher itself cuts its scores.
    sources
        Base learner -> digest of its parts.
    rates
        Rows scored per second by one fold's model, by base learner.
    """

    scores: Mapping[str, np.ndarray]
    decisions: Mapping[str, np.ndarray]
    sources: Mapping[str, str]
    rates: Mapping[str, float]

    @property
    def digest(self) -> str:
        """Another one for other scores."""
        scores = (self.scores[split].tobytes() for split in sorted(self.scores))
        return hashlib.sha256(b"".join(scores)).hexdigest()[:16]


def teacher_scores(run: RunFolder, task: str, name: str) -> Gathered:
    """The scores that a teacher combines: of a finished ensemble's base learners, of all of them, or of one.

    Raises
    ------
    CompetitionError
        There is no such ensemble, nor a base learner with all its parts.
    """
    if name in ensembles(run, task):
        return gather(run, task, read_manifest(run.ensemble(task, name))["learners"])
    complete = complete_learners(run, task)
    if name not in (*COMBINERS, *complete):
        raise CompetitionError(
            f"{task} has no ensemble and no base learner with all its parts called {name!r}",
            advice=f"name one of {', '.join((*COMBINERS, *complete))}",
        )
    return gather(run, task, complete if name in COMBINERS else [name])


def teacher_combiner(run: RunFolder, name: str, gathered: Gathered) -> Combiner:
    """How a teacher combines them, not yet fitted."""
    if name in gathered.sources:
        return SingleLearner(name)
    return make_combiner(name, gathered.frames, seed=run.settings().seed)


def taught_by(run: RunFolder, task: str, name: str) -> Taught:
    """What the ensemble or base learner of this name says of every row.

    Raises
    ------
    CompetitionError
        An ensemble that is not finished; the command that makes it is named.
    """
    gathered = teacher_scores(run, task, name)
    train = gathered.frames["train"]
    others = {split: frame.rows["id"] for split, frame in gathered.frames.items() if split != "train"}
    if name in ensembles(run, task):
        oof = read_ensemble(run, task, name, "oof", train.rows["id"])
        cuts = ensemble_cuts(run, task, name)
        raw, decided = oof["score"].to_numpy(dtype=np.float64), oof["decision"].to_numpy(dtype=np.int8)
        unseen = {split: ensemble_scores(run, task, name, split, ids) for split, ids in others.items()}
    elif name in gathered.sources:
        crossed = cross_fit(SingleLearner(name), train)
        cuts = SegmentCuts(fit_final(SingleLearner(name), train, cross_fitted=crossed).threshold, {})
        raw, decided = crossed.scores, crossed.decisions
        unseen = {split: gathered.frames[split].scores[:, 0] for split in others}
    else:
        raise CompetitionError(
            f"{task} has no finished ensemble {name!r}",
            faults=[Fault(str(run.ensemble(task, name)), "no finished manifest")],
            advice=f"make it: relstack ensemble make --name {name} --run {run.root} --task {task}",
        )
    calibrate = fit_temperature(train.labels, raw)
    scores = {split: calibrate(values) for split, values in unseen.items()}
    scores["train"] = cross_calibrated("temperature", train.labels, raw, train.fold)
    language = {split: frame.rows["language"].to_numpy() for split, frame in gathered.frames.items()}
    decisions = {split: cuts.decide(values, language[split]) for split, values in unseen.items()}
    return Taught(scores, {**decisions, "train": decided}, gathered.sources, gathered.rates)
