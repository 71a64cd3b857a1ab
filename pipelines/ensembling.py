"""The stage above the base learners: gather their scores and combine them."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import MANIFEST, PROVENANCE, finish, finished, heal, is_finished, partial
from competition.damage import damage, refuse_damage
from competition.errors import CompetitionError, Fault, MissingPartError
from competition.fold_store import Folds
from competition.json_files import Shape, read_json
from competition.metrics import Interval, f1
from competition.parquet_files import Kind, read_frame
from competition.progress import progress
from oof.blend import BestSingle, ConvexBlend, Greedy, HardVote, LogitMean, Mean, RankMean
from oof.combiner import Combiner
from oof.crossfit import CrossFitted, Fitted, cross_fit, fit_final
from oof.features import NOVELTY, with_novelty
from oof.frame import PredictionFrame
from oof.level2_folds import with_level2_folds
from oof.logistic import LanguageLogistic, LogisticStacker
from oof.mix import TunedBlend
from oof.paths import has_paths
from oof.segments import SegmentChoice, SegmentCuts, choose_segment_cuts
from oof.shift import shifted_features
from oof.stack import LightGBMStacker
from oof.state import MAKE_AGAIN
from oof.store import SCORES, PartKey, align, check_scores
from oof.threshold import best_threshold, calibration_alarm
from pipelines.locks import alone
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder
from pipelines.trackers import log_metrics, tracked

log = logging.getLogger(__name__)

MANIFEST_SHAPE: dict[str, Shape] = {
    "kind": str,
    "learners": list[str],
    "threshold": float,
    "sources": dict[str, str],
}
CUTS_SHAPE: dict[str, Shape] = {"cuts": dict[str, float]}
NO_GAIN = Interval(0.0, 0.0, 0.0, 0.0)
FORMAT = 2  # an ensemble of another format is made again
DEFAULTS = ("stack", "blend")
COMBINERS: dict[str, Callable[[int], Combiner]] = {
    "best-single": lambda seed: BestSingle(),
    "mean": lambda seed: Mean(),
    "rank-mean": lambda seed: RankMean(),
    "logit-mean": lambda seed: LogitMean(),
    "hard-vote": lambda seed: HardVote(),
    "greedy": lambda seed: Greedy(seed=seed),
    "convex": lambda seed: ConvexBlend(),
    "logistic": lambda seed: LogisticStacker(),
    "logistic-by-language": lambda seed: LanguageLogistic(),
    "stack": lambda seed: LightGBMStacker(seed=seed),
    "blend": lambda seed: TunedBlend(seed=seed),
}
FRAME_COLUMNS = ["id", "language", "query", "target", "query_en", "label", "fold", "group", *NOVELTY]


@dataclass(frozen=True)
class Gathered:
    """Scores of several base learners for one task, split by split, aligned by row id.

    Attributes
    ----------
    frames
        Split -> frame; ``train`` holds out-of-fold scores, folds and groups.
    rates
        Rows scored per second, by base learner.
    sources
        Base learner -> digest of the manifests of its parts: what an ensemble was made from.
    """

    frames: Mapping[str, PredictionFrame]
    rates: Mapping[str, float]
    sources: Mapping[str, str]


def make_combiner(name: str, frames: Mapping[str, PredictionFrame], *, seed: int) -> Combiner:
    """The combiner called `name`, one of `COMBINERS`.

    Trees look at what dev and test are like, without labels: they do without features that mean something else there,
    and their number is chosen by held-out languages if there are languages there that train does not know.

    Raises
    ------
    CompetitionError
        There is no such combiner.
    """
    if name not in COMBINERS:
        fault = Fault(name, "no combiner has this name", f"one of {', '.join(COMBINERS)}")
        raise CompetitionError(
            "this ensemble cannot be made",
            faults=[fault],
            advice="relstack ensemble make --run RUN --name mean makes one; relstack ensemble evaluate lists them all",
        )
    combiner = COMBINERS[name](seed)
    if isinstance(combiner, LightGBMStacker):
        return _suited(combiner, frames)
    if isinstance(combiner, TunedBlend):
        return replace(combiner, stack=_suited(combiner.stack, frames))
    return combiner


def _suited(stack: LightGBMStacker, frames: Mapping[str, PredictionFrame]) -> LightGBMStacker:
    """The stacker for what dev and test are like."""
    others = [frame for split, frame in frames.items() if split != "train"]
    stack = replace(stack, paths=has_paths(frames["train"]))
    with progress("compare features of train with those of dev and test"):
        excluded = shifted_features(frames["train"], others, paths=stack.paths)
    if excluded:
        log.info("trees do without what differs in dev or test: %s", ", ".join(excluded))
    known = frames["train"].rows["language"].unique()
    unseen = any((~frame.rows["language"].isin(known)).any() for frame in others)
    return replace(stack, excluded=excluded, held_out="language" if unseen else "fold")


def gather(run: RunFolder, task: str, learners: Iterable[str] | None = None) -> Gathered:
    """The scores of all (or the named) base learners of a task.

    Raises
    ------
    MissingPartError
        Parts are missing; the commands that make them are named.
    MismatchError
        Parts were made from other rows or folds, or are not of one recipe.
    """
    names = list(learners or run.parts.learners(task))
    if not names:
        raise MissingPartError(
            f"no base learner of {task} has a part in {run.root}",
            advice=f"train one: relstack train --run {run.root} --task {task} --model lexical --fold 0",
        )
    rows, folds = run.rows(task), run.folds(task)
    fold = folds.align(rows["train"])
    expected = run.origin(task, {})
    found = []
    with progress(f"gather {task} scores", total=len(names)) as advance:
        for name in names:
            found.append(run.parts.gather(task, name, rows=rows, fold=fold, origin=expected))
            advance(1)
    frames = {}
    for split in rows:
        frame = _train_rows(rows["train"], folds) if split == "train" else with_novelty(rows[split], rows["train"])
        columns = [name for name in FRAME_COLUMNS if name in frame]
        scores = np.column_stack([learner.scores[split] for learner in found])
        frames[split] = PredictionFrame(frame[columns], scores, tuple(names), metric=run.task(task).metric)
    frames["train"] = with_level2_folds(frames["train"])
    rates = {learner.learner: learner.rows_per_second for learner in found}
    return Gathered(frames, rates, {name: parts_digest(run, task, name) for name in names})


def _train_rows(rows: pd.DataFrame, folds: Folds) -> pd.DataFrame:
    """The rows of train with fold and group, and what was new to the models of their fold."""
    rows = folds.with_groups(rows.assign(fold=folds.align(rows)))
    parts = [
        with_novelty(rows[rows["fold"] == k], rows[folds.training_rows(k, rows)]) for k in range(folds.plan.n_splits)
    ]
    return pd.concat(parts).reindex(rows.index)


def ensemble(run: RunFolder, task: str, name: str, learners: Iterable[str] | None = None) -> Path:
    """The folder of a finished ensemble: cross-fitted OOF scores, dev and test scores, the fitted combiner.

    One that was made from the same parts by the same combiner is left as it is; any other is made again.
    """
    gathered, folder = gather(run, task, learners), run.ensemble(task, name)
    combiner = _combiner_of(run, task, name, gathered)
    with alone(folder):
        heal(folder)
        if _is_made_of(folder, combiner, gathered):
            log.info("%s: %s is there already", task, name)
        else:
            _make(run, folder, combiner, gathered)
        _journal(folder).unlink(missing_ok=True)
    return folder


def _make(run: RunFolder, folder: Path, combiner: Combiner, gathered: Gathered) -> None:
    task, learners = folder.parent.name, gathered.frames["train"].learners
    log.info("%s: %s of %s", task, combiner.name, ", ".join(learners))
    with tracked(run, f"{task}/{combiner.name}", {"learners": list(learners), "combiner": repr(combiner)}):
        _make_ensemble(run, folder, combiner, gathered)


def _make_ensemble(run: RunFolder, folder: Path, combiner: Combiner, gathered: Gathered) -> None:
    task, train, started = folder.parent.name, gathered.frames["train"], now()
    what = f"{task} {folder.name}"
    crossed = cross_fit(combiner, train)
    fitted = fit_final(combiner, train, cross_fitted=crossed)
    cuts = _cuts(train, crossed, fitted)
    if cuts.cuts.by_segment:
        log.info("%s: cuts per language gain %s", what, cuts.gain)
        crossed = replace(crossed, decisions=cuts.decisions)
    if train.metric == "f1" and (alarm := calibration_alarm(best_threshold(train.labels, crossed.scores))):
        log.warning("%s: %s", what, alarm)
    log_metrics({"nested_f1": f1(train.labels, crossed.decisions), "threshold": fitted.threshold})
    record = {
        "inputs": part_manifests(run, task, train.learners),
        PROVENANCE: provenance(seed=run.settings().seed, started=started),
    }
    _write_ensemble(folder, combiner, crossed, fitted, gathered, cuts=cuts.cuts, record=record)


def is_current(run: RunFolder, task: str, name: str, learners: Iterable[str]) -> bool:
    """Whether `ensemble` would leave the ensemble as it is; all parts of the base learners must be there.

    One beside which a kill left its journal is not: `ensemble` deletes that.
    """
    if _journal(run.ensemble(task, name)).exists():
        return False
    gathered = gather(run, task, learners)
    return _is_made_of(run.ensemble(task, name), _combiner_of(run, task, name, gathered), gathered)


def _combiner_of(run: RunFolder, task: str, name: str, gathered: Gathered) -> Combiner:
    combiner = make_combiner(name, gathered.frames, seed=run.settings().seed)
    return (
        replace(combiner, journal=_journal(run.ensemble(task, name))) if isinstance(combiner, TunedBlend) else combiner
    )


def _journal(folder: Path) -> Path:
    return folder.with_suffix(".journal.log")


def _is_made_of(folder: Path, combiner: Combiner, gathered: Gathered) -> bool:
    """Whether the ensemble is there, and whole, and of these parts: else it is made again."""
    if not is_finished(folder):
        return False
    if faults := damage(folder):
        log.warning("the ensemble %s is damaged and made again: %s", folder, faults[0])
        return False
    made_of = {"sources": dict(gathered.sources), "combiner": repr(combiner), "format": FORMAT}
    return made_of.items() <= read_manifest(folder).items()


def _cuts(train: PredictionFrame, crossed: CrossFitted, fitted: Fitted) -> SegmentChoice:
    """One cut per language if the nested estimate supports it, else the ensemble's own threshold for all.

    The estimate is of F1: contests that judge by anything else have one cut.
    """
    if train.metric != "f1":
        return SegmentChoice(SegmentCuts(fitted.threshold, {}), float("inf"), NO_GAIN, crossed.decisions)
    return choose_segment_cuts(
        train.labels,
        crossed.scores,
        train.rows["language"].to_numpy(),
        fold=train.level2_fold,
        groups=train.group,
        overall=fitted.threshold,
    )


def _write_ensemble(
    folder: Path,
    combiner: Combiner,
    crossed: CrossFitted,
    fitted: Fitted,
    gathered: Gathered,
    *,
    cuts: SegmentCuts,
    record: Mapping[str, Any],
) -> None:
    work = partial(folder)
    shutil.rmtree(work, ignore_errors=True)
    fitted.to_folder(work)
    train = gathered.frames["train"]
    oof = {"id": train.rows["id"], "fold": train.fold, "score": crossed.scores, "decision": crossed.decisions}
    pd.DataFrame(oof).to_parquet(work / "oof.parquet", index=False)
    for split, frame in gathered.frames.items():
        if split != "train":
            scored = pd.DataFrame({"id": frame.rows["id"], "score": fitted.predict(frame.without_labels())})
            scored.to_parquet(work / f"{split}.parquet", index=False)
    manifest = {
        "name": combiner.name,
        "kind": combiner.kind,
        "learners": list(train.learners),
        "threshold": fitted.threshold,
        "cuts": dict(cuts.by_segment),
        "sources": dict(gathered.sources),
        "combiner": repr(combiner),
        "format": FORMAT,
        **record,
    }
    finish(work, folder, manifest)


def ensembles(run: RunFolder, task: str) -> list[str]:
    """Names of the finished ensembles of a task."""
    return [folder.name for folder in finished(run.root / "ensembles" / task)]


def read_ensemble(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> pd.DataFrame:
    """One of an ensemble's score files, in the order of `ids`; a CompetitionError if the ensemble is damaged."""
    _refuse_damaged(run.ensemble(task, name))
    where = f"ensemble {task}/{name}/{split}"
    columns: dict[str, Kind] = {**SCORES, **({"decision": "whole number"} if split == "oof" else {})}
    frame = read_frame(
        run.ensemble(task, name) / f"{split}.parquet", columns, what=f"the scores of {where}", advice=MAKE_AGAIN
    )
    check_scores(frame, where=where)
    frame = frame.set_index("id")
    align(frame["score"], ids, where=where)
    return frame.reindex(pd.Index(ids)).reset_index()


def ensemble_scores(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> np.ndarray:
    """An ensemble's scores of dev or test, ``(n_ids,)``."""
    return read_ensemble(run, task, name, split, ids)["score"].to_numpy(dtype=np.float64)


def ensemble_cuts(run: RunFolder, task: str, name: str) -> SegmentCuts:
    """Where an ensemble cuts: its threshold, and those of languages that have earned one of their own."""
    manifest = read_manifest(run.ensemble(task, name))
    return SegmentCuts(manifest["threshold"], manifest.get("cuts", {}))


def ensemble_decisions(run: RunFolder, task: str, name: str, split: str, rows: pd.DataFrame) -> np.ndarray:
    """An ensemble's 0/1 decisions for rows of dev or test, ``(n_rows,)``."""
    scores = ensemble_scores(run, task, name, split, rows["id"])
    return ensemble_cuts(run, task, name).decide(scores, rows["language"].to_numpy())


def complete_learners(run: RunFolder, task: str) -> list[str]:
    """The base learners that have a part for every fold."""
    folds = range(run.folds(task).plan.n_splits)
    return [
        name
        for name in run.parts.learners(task)
        if all(run.parts.is_finished(PartKey(task, name, fold)) for fold in folds)
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the ensemble in `folder` was made from, and its threshold; a CompetitionError if it is damaged."""
    _refuse_damaged(folder)
    what = f"the manifest of {folder.name}"
    found = read_json(folder / MANIFEST, MANIFEST_SHAPE, optional=CUTS_SHAPE, what=what, advice=MAKE_AGAIN)
    if not found["learners"]:
        fault = Fault(str(folder / MANIFEST), "learners are none", "one or more")
        raise CompetitionError(f"the manifest of {folder.name} is damaged", faults=[fault], advice=MAKE_AGAIN)
    return found


def _refuse_damaged(folder: Path) -> None:
    if is_finished(folder):  # what is not there at all, the reader says
        refuse_damage(folder, what=f"the ensemble {folder.parent.name}/{folder.name}", advice=MAKE_AGAIN)


def part_manifests(run: RunFolder, task: str, learners: Iterable[str]) -> dict[str, str]:
    """What an ensemble is made of: SHA-256 of the manifests of all parts of base learners, by their path in the run."""
    keys = [PartKey(task, name, fold) for name in learners for fold in range(run.folds(task).plan.n_splits)]
    return run.manifests(run.parts.folder(key) for key in keys)


def parts_digest(run: RunFolder, task: str, learner: str) -> str:
    """One digest of the manifests of all parts of a base learner."""
    digests = part_manifests(run, task, [learner]).values()
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
