"""The pseudo-label stage: rows of dev and test labelled by an ensemble, one set per fold that never saw the fold."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import (
    MANIFEST,
    PROVENANCE,
    finish,
    hashes,
    heal,
    is_finished,
    partial,
    read_manifest,
    sha256,
)
from competition.errors import CompetitionError, Fault, MismatchError
from competition.json_files import read_json
from competition.parquet_files import Kind, read_frame
from oof.combiner import Combiner
from oof.frame import PredictionFrame
from oof.pseudo_labels import refuse_bad_rule, select_pseudo_labels
from oof.store import PartKey, align
from oof.teacher import fold_safe_teachers
from pipelines.config import digest_values
from pipelines.ensembling import Gathered, part_manifests
from pipelines.locks import alone
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder, without_labels
from pipelines.targets import SOFT
from pipelines.teachers import teacher_combiner, teacher_scores

log = logging.getLogger(__name__)

CONFIDENCE, BALANCE = 0.9, 1.25
COLUMNS = ["split", "id", "language", "label", SOFT, "score"]
KINDS: dict[str, Kind] = {
    "split": "text",
    "id": "id",
    "language": "text",
    "label": "whole number",
    SOFT: "number",
    "score": "number",
}
MAKE_AGAIN = "delete that folder and make them again"


@dataclass(frozen=True)
class PseudoLabelling:
    """What is asked for.

    Attributes
    ----------
    ensemble
        The teacher: an ensemble's name, or a base learner's.
    splits
        Whose rows; all that the task has besides train if left out.
    confidence, balance
        See `oof.pseudo_labels.select_pseudo_labels`.
    soft
        Every row with its score as soft label, instead of the sure ones with a label; nothing is selected.
    """

    task: str
    name: str
    ensemble: str = "stack"
    splits: tuple[str, ...] = ()
    confidence: float = CONFIDENCE
    balance: float = BALANCE
    soft: bool = False


@dataclass(frozen=True)
class PseudoLabels:
    """A finished set.

    Attributes
    ----------
    manifest
        What it was made from and how, the counts per fold and language, the files' digests; `digest` of all that.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Another one for another set, its files included."""
        return str(self.manifest["digest"])

    def read(self, fold: int) -> pd.DataFrame:
        """The rows for the training without this fold: `split, id, language, label, soft_label, score`.

        Raises
        ------
        CompetitionError
            There is no file for this fold, or it is not the one that the manifest names.
        """
        path = self.folder / f"fold-{fold}.parquet"
        if not path.is_file() or sha256(path) != self.manifest["files"].get(path.name):
            raise CompetitionError(
                f"pseudo-labels {self.folder} are damaged: {path.name} is not the file that their manifest names",
                advice=MAKE_AGAIN,
            )
        return read_frame(path, KINDS, what=f"pseudo-labels {self.folder.name}", advice=MAKE_AGAIN)


def pseudo_label(run: RunFolder, asked: PseudoLabelling) -> PseudoLabels:
    """The finished set: for every fold the dev and test rows that its training may take for labelled ones.

    Fold k's rows are scored by the models of part k, which never saw the fold, combined by a combiner and calibrated by
    a temperature that were fitted on the out-of-fold rows of the other folds. Labels of dev and test are not looked at.
    A set that was made from the same parts in the same way is left as it is.

    Raises
    ------
    CompetitionError
        No dev or test rows, no such ensemble or base learner, or settings out of range.
    MismatchError
        A set of that name was made from something else: parts may have been trained with it.
    """
    splits, gathered = _splits(run, asked), teacher_scores(run, asked.task, asked.ensemble)
    if not asked.soft:
        refuse_bad_rule(confidence=asked.confidence, balance=asked.balance)
    combiner = teacher_combiner(run, asked.ensemble, gathered)
    made_of = _made_of(run, asked, splits, gathered, combiner)
    folder = run.pseudo(asked.task, asked.name)
    with alone(folder):
        heal(folder)
        if is_finished(folder):
            found = find_pseudo(run, asked.task, asked.name)
            _refuse_other(found, made_of)
            log.info("%s: pseudo-labels %s are there already", asked.task, asked.name)
            return found
        return _make(run, asked, splits, gathered, combiner, folder=folder, made_of=made_of)


def _make(
    run: RunFolder,
    asked: PseudoLabelling,
    splits: tuple[str, ...],
    gathered: Gathered,
    combiner: Combiner,
    *,
    folder: Path,
    made_of: Mapping[str, Any],
) -> PseudoLabels:
    started = now()
    log.info("%s: pseudo-labels %s by %s of %s", asked.task, asked.name, combiner.name, ", ".join(gathered.sources))
    chosen = {}
    for fold, by_fold in fold_safe_teachers(combiner, gathered.frames["train"]).items():
        frames = {split: _part_frame(run, asked.task, gathered.frames[split], split, fold) for split in splits}
        chosen[fold] = pd.concat(
            [_chosen(frame.rows, by_fold.predict(frame), asked).assign(split=split) for split, frame in frames.items()],
            ignore_index=True,
        )[COLUMNS]
        if chosen[fold].empty:
            log.warning("%s: no row is sure enough for the training without fold %d", asked.task, fold)
    record = {
        "inputs": part_manifests(run, asked.task, gathered.sources),
        PROVENANCE: provenance(seed=run.settings().seed, started=started),
    }
    return _write(folder, chosen, made_of, record=record)


def find_pseudo(run: RunFolder, task: str, name: str) -> PseudoLabels:
    """The finished set of this name.

    Raises
    ------
    CompetitionError
        There is none; the command that makes it is named.
    """
    folder = run.pseudo(task, name)
    if not is_finished(folder):
        raise CompetitionError(
            f"no pseudo-labels of {task} are called {name!r}",
            faults=[Fault(str(folder), f"no finished {MANIFEST}")],
            advice=f"make them: relstack pseudo --run {run.root} --task {task} --name {name}",
        )
    shape = {"digest": str, "splits": list[str], "files": dict[str, str]}
    what = f"the manifest of pseudo-labels {name}"
    return PseudoLabels(folder, read_json(folder / MANIFEST, shape, what=what, advice=MAKE_AGAIN))


def pseudo_rows(run: RunFolder, name: str, key: PartKey) -> pd.DataFrame:
    """The rows of a set for a fold's training, as the run has them, with `soft_label` instead of a label."""
    chosen, rows = find_pseudo(run, key.task, name).read(key.fold), run.rows(key.task)
    parts = [without_labels(rows["train"]).iloc[:0].assign(**{SOFT: 0.0})]
    for split, labels in chosen.groupby("split", sort=False):
        frame = without_labels(rows[str(split)]) if split in rows else None
        places = None if frame is None else pd.Index(frame["id"]).get_indexer(pd.Index(labels["id"]))
        if frame is None or places is None or (places < 0).any():
            fault = Fault(name, f"rows of {str(split)[:40]!r} that this run does not have", "rows of its dev or test")
            raise CompetitionError("pseudo-labels are of other rows", faults=[fault], advice=MAKE_AGAIN)
        parts.append(frame.iloc[places].assign(**{SOFT: labels[SOFT].to_numpy()}))
    return (
        pd.concat(parts, ignore_index=True) if parts else without_labels(rows["train"]).iloc[:0].assign(**{SOFT: 0.0})
    )


def unseen_splits(run: RunFolder, task: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The named splits, or all that the task has besides train.

    Raises
    ------
    CompetitionError
        One that is named is not there.
    """
    there = tuple(split for split in run.splits(task) if split != "train")
    if missing := [split for split in asked if split not in there]:
        faults = [Fault("--splits", split, f"one of {', '.join(there) or 'none'}") for split in missing]
        raise CompetitionError(
            f"{task} does not have these rows besides train",
            faults=faults,
            advice="leave --splits out: all that are there are taken",
        )
    return asked or there


def counts_table(run: RunFolder, task: str, name: str) -> pd.DataFrame:
    """One line per split and language: rows there are, rows chosen and their share of positives (means over folds)."""
    found = find_pseudo(run, task, name)
    folds = range(run.folds(task).plan.n_splits)
    chosen = pd.concat([found.read(fold) for fold in folds])
    table = chosen.groupby(["split", "language"]).agg(chosen=("id", "size"), positive=(SOFT, "mean")).reset_index()
    rows = pd.concat([run.rows(task)[split].assign(split=split) for split in found.manifest["splits"]])
    sizes = rows.groupby(["split", "language"]).size().rename("rows").reset_index()
    table = sizes.merge(table.assign(chosen=table["chosen"] / len(folds)), on=["split", "language"], how="left")
    return table.fillna({"chosen": 0.0})


def _splits(run: RunFolder, asked: PseudoLabelling) -> tuple[str, ...]:
    splits = unseen_splits(run, asked.task, asked.splits)
    if not splits:
        raise CompetitionError(
            f"{asked.task} has no dev or test rows to label",
            advice="add dev or test files to the data, and make the run again in another --run folder",
        )
    return splits


def _part_frame(run: RunFolder, task: str, frame: PredictionFrame, split: str, fold: int) -> PredictionFrame:
    """Rows of dev or test with the scores of one fold's own models, not the mean over folds."""
    keys = [PartKey(task, learner, fold) for learner in frame.learners]
    columns = [align(run.parts.read(key, split), frame.rows["id"], where=f"{key}/{split}") for key in keys]
    return PredictionFrame(frame.rows, np.column_stack(columns), frame.learners).without_labels()


def _chosen(rows: pd.DataFrame, scores: np.ndarray, asked: PseudoLabelling) -> pd.DataFrame:
    if asked.soft:
        found = rows[["id", "language"]].assign(label=(scores >= 0.5).astype(np.int8), score=scores)
        return found.assign(**{SOFT: scores})
    found = select_pseudo_labels(rows, scores, confidence=asked.confidence, balance=asked.balance)
    return found.assign(**{SOFT: found["label"].astype(np.float64)})


def _made_of(
    run: RunFolder, asked: PseudoLabelling, splits: tuple[str, ...], gathered: Gathered, combiner: Combiner
) -> dict[str, Any]:
    rule = {"soft": True} if asked.soft else {"confidence": asked.confidence, "balance": asked.balance}
    return {
        "task": asked.task,
        "ensemble": asked.ensemble,
        "splits": list(splits),
        **rule,
        "combiner": repr(combiner),
        "sources": dict(gathered.sources),
        "folds": run.folds(asked.task).digest,
    }


def _write(
    folder: Path, chosen: Mapping[int, pd.DataFrame], made_of: Mapping[str, Any], *, record: Mapping[str, Any]
) -> PseudoLabels:
    work = partial(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for fold, rows in chosen.items():
        rows.to_parquet(work / f"fold-{fold}.parquet", index=False)
    counts = {
        f"fold-{fold}": {str(name): int(n) for name, n in rows["language"].value_counts(sort=False).items()}
        for fold, rows in chosen.items()
    }
    digest = digest_values({**made_of, "files": hashes(work)})
    finish(work, folder, {**made_of, "rows": counts, "digest": digest, **record})
    return PseudoLabels(folder, read_manifest(folder / MANIFEST))


def _refuse_other(found: PseudoLabels, made_of: Mapping[str, Any]) -> None:
    faults = [
        Fault(key, f"asked for {made_of.get(key)!r}", f"{found.manifest.get(key)!r}, as it was made")
        for key in dict.fromkeys((*made_of, "soft", "confidence", "balance"))
        if made_of.get(key) != found.manifest.get(key)
    ]
    if faults:
        raise MismatchError(
            f"pseudo-labels {found.folder.name} were made differently",
            faults=faults,
            advice="give these another --name, or delete that folder (parts that were trained with it count no more)",
        )
