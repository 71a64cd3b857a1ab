"""The stage above the base learners: gather their scores and combine them."""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import MissingPartError
from oof.blend import OptunaBlend
from oof.crossfit import Combiner, CrossFitted, Fitted, cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.shift import shifted_features
from oof.stack import LightGBMStacker
from oof.store import align, sha256
from oof.threshold import best_threshold, calibration_alarm
from pipelines.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
COMBINERS = ("stack", "blend")
FRAME_COLUMNS = ["id", "language", "query", "target", "query_en", "label"]


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

    The stacker looks at what dev and test are like, without labels: it does without features that mean something else
    there, and chooses its trees by held-out languages if there are languages there that train does not know.
    """
    if name == "blend":
        return OptunaBlend(seed=seed)
    others = [frame for split, frame in frames.items() if split != "train"]
    excluded = shifted_features(frames["train"], others)
    if excluded:
        log.info("the stacker leaves out what differs in dev or test: %s", ", ".join(excluded))
    known = frames["train"].rows["language"].unique()
    unseen = any((~frame.rows["language"].isin(known)).any() for frame in others)
    return LightGBMStacker(seed=seed, excluded=excluded, held_out="language" if unseen else "fold")


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
    found = [run.parts.gather(task, name, rows=rows, fold=fold, origin=expected) for name in names]
    group = folds.groups_of(rows["train"])
    frames = {}
    for split, frame in rows.items():
        extra = {"fold": fold.to_numpy(), "group": group.to_numpy()} if split == "train" else {}
        scores = np.column_stack([learner.scores[split] for learner in found])
        frames[split] = PredictionFrame(frame[FRAME_COLUMNS].assign(**extra), scores, tuple(names))
    rates = {learner.learner: learner.rows_per_second for learner in found}
    return Gathered(frames, rates, {name: _parts_digest(run, task, name) for name in names})


def ensemble(run: RunFolder, task: str, name: str, learners: Iterable[str] | None = None) -> Path:
    """The folder of a finished ensemble: cross-fitted OOF scores, dev and test scores, the fitted combiner.

    One that was made from the same parts by the same combiner is left as it is; any other is made again.
    """
    gathered = gather(run, task, learners)
    folder, train = run.ensemble(task, name), gathered.frames["train"]
    combiner = make_combiner(name, gathered.frames, seed=run.settings().seed)
    made_of = {"sources": dict(gathered.sources), "combiner": repr(combiner)}
    if (folder / MANIFEST).is_file() and made_of.items() <= read_manifest(folder).items():
        log.info("%s: %s is there already", task, name)
        return folder
    log.info("%s: %s of %s", task, name, ", ".join(train.learners))
    crossed = cross_fit(combiner, train)
    fitted = fit_final(combiner, train, cross_fitted=crossed)
    alarm = calibration_alarm(best_threshold(train.labels, crossed.scores))
    if alarm:
        log.warning("%s %s: %s", task, name, alarm)
    _write_ensemble(folder, combiner, crossed, fitted, gathered)
    return folder


def _write_ensemble(folder: Path, combiner: Combiner, crossed: CrossFitted, fitted: Fitted, gathered: Gathered) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    fitted.to_folder(partial)
    train = gathered.frames["train"]
    oof = {"id": train.rows["id"], "fold": train.fold, "score": crossed.scores, "decision": crossed.decisions}
    pd.DataFrame(oof).to_parquet(partial / "oof.parquet", index=False)
    for split, frame in gathered.frames.items():
        if split != "train":
            scored = pd.DataFrame({"id": frame.rows["id"], "score": fitted.predict(frame.without_labels())})
            scored.to_parquet(partial / f"{split}.parquet", index=False)
    manifest = {
        "name": combiner.name,
        "kind": combiner.kind,
        "learners": list(train.learners),
        "threshold": fitted.threshold,
        "sources": dict(gathered.sources),
        "combiner": repr(combiner),
        "files": {path.name: sha256(path) for path in sorted(partial.iterdir())},
    }
    write_text(partial / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def ensembles(run: RunFolder, task: str) -> list[str]:
    """Names of the finished ensembles of a task."""
    return sorted(path.parent.name for path in (run.root / "ensembles" / task).glob(f"*/{MANIFEST}"))


def read_ensemble(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> pd.DataFrame:
    """One of an ensemble's score files, in the order of `ids`."""
    frame = pd.read_parquet(run.ensemble(task, name) / f"{split}.parquet").set_index("id")
    align(frame["score"], ids, where=f"ensemble {task}/{name}/{split}")
    return frame.reindex(pd.Index(ids)).reset_index()


def ensemble_scores(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> np.ndarray:
    """An ensemble's scores of dev or test, ``(n_ids,)``."""
    return read_ensemble(run, task, name, split, ids)["score"].to_numpy(dtype=np.float64)


def complete_learners(run: RunFolder, task: str) -> list[str]:
    """The base learners that have a part for every fold."""
    from oof.store import PartKey

    folds = range(run.folds(task).plan.n_splits)
    return [
        name
        for name in run.parts.learners(task)
        if all(run.parts.is_finished(PartKey(task, name, fold)) for fold in folds)
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the ensemble in `folder` was made from, and its threshold."""
    values: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return values


def _parts_digest(run: RunFolder, task: str, learner: str) -> str:
    import hashlib

    from oof.store import PartKey

    folds = range(run.folds(task).plan.n_splits)
    files = [run.parts.folder(PartKey(task, learner, fold)) / MANIFEST for fold in folds]
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()[:16]
