"""The stages above the base learners: gather, combine, cut, submit, and the leaderboard of all of it."""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import CompetitionError, MissingPartError
from competition.metrics import auc, f1, f1_interval, paired_difference, score_table
from competition.tasks import Task
from oof.blend import OptunaBlend, SingleLearner
from oof.crossfit import Combiner, CrossFitted, Fitted, cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.shift import shifted_features
from oof.stack import LightGBMStacker
from oof.store import align, sha256
from oof.threshold import best_threshold, calibration_alarm, decide
from pipelines.run_folder import RunFolder, write_text
from submissions.build import Submission, cut
from submissions.leaderboard import Entry, Leaderboard
from submissions.write import SubmissionFiles, write_submission

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
    group = pd.Series(align_groups(folds.ids, folds.group, rows["train"]["id"]))
    frames = {}
    for split, frame in rows.items():
        extra = {"fold": fold.to_numpy(), "group": group.to_numpy()} if split == "train" else {}
        scores = np.column_stack([learner.scores[split] for learner in found])
        frames[split] = PredictionFrame(frame[FRAME_COLUMNS].assign(**extra), scores, tuple(names))
    rates = {learner.learner: learner.rows_per_second for learner in found}
    return Gathered(frames, rates, {name: _parts_digest(run, task, name) for name in names})


def align_groups(ids: pd.Series, group: pd.Series, wanted: pd.Series) -> np.ndarray:
    """The group of every wanted id, ``(n_wanted,)``."""
    return group.set_axis(pd.Index(ids)).reindex(pd.Index(wanted)).to_numpy()


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


def leaderboard(run: RunFolder) -> Leaderboard:
    """One entry per base learner with all its parts, and per ensemble; written to ``leaderboard.csv`` too."""
    entries = [entry for task in run.tasks() for entry in _entries(run, task)]
    board = Leaderboard.from_entries(entries).with_averages()
    board.write_csv(run.leaderboard_file)
    return board


def _entries(run: RunFolder, task: Task) -> list[Entry]:
    complete = complete_learners(run, task.name)
    if not complete:
        return []
    gathered = gather(run, task.name, complete)
    frames = gathered.frames
    entries, decisions = [], {}
    for name in complete:
        combiner = SingleLearner(name)
        crossed = cross_fit(combiner, frames["train"])
        fitted = fit_final(combiner, frames["train"], cross_fitted=crossed)
        dev = fitted.predict(frames["dev"]) if "dev" in frames else None
        decisions[name] = crossed.decisions
        entries.append(
            entry(
                task,
                name,
                "base",
                frames,
                crossed.scores,
                crossed.decisions,
                fitted.threshold,
                rate=gathered.rates[name],
                dev_scores=dev,
            )
        )
    rows = {split: frame.rows for split, frame in frames.items()}
    for name in ensembles(run, task.name):
        manifest = read_manifest(run.ensemble(task.name, name))
        oof = read_ensemble(run, task.name, name, "oof", rows["train"]["id"])
        dev = ensemble_scores(run, task.name, name, "dev", rows["dev"]["id"]) if "dev" in rows else None
        decisions[name] = oof["decision"].to_numpy()
        slowest = 1.0 / sum(1.0 / gathered.rates[learner] for learner in manifest["learners"])
        entries.append(
            entry(
                task,
                name,
                manifest["kind"],
                frames,
                oof["score"].to_numpy(),
                decisions[name],
                manifest["threshold"],
                rate=slowest,
                dev_scores=dev,
            )
        )
    return with_differences(entries, decisions, frames["train"])


def with_differences(
    entries: Sequence[Entry], decisions: Mapping[str, np.ndarray], train: PredictionFrame
) -> list[Entry]:
    """The entries of one task, each with its difference to the best of them on the same rows.

    `decisions` are cross-fitted, ``(n_rows,)`` by name. Of equals the first by name is the best, as on the leaderboard.
    """
    best = min(entries, key=lambda each: (-(each.f1 or 0.0), each.name))
    compared = []
    for each in entries:
        gap = paired_difference(train.labels, decisions[each.name], decisions[best.name], train.group)
        compared.append(replace(each, difference=gap.estimate, difference_low=gap.low, difference_high=gap.high))
    return compared


def entry(
    task: Task,
    name: str,
    kind: str,
    frames: Mapping[str, PredictionFrame],
    scores: np.ndarray,
    decisions: np.ndarray,
    threshold: float,
    *,
    rate: float,
    dev_scores: np.ndarray | None,
) -> Entry:
    """One line of the leaderboard; `scores` and `decisions` are cross-fitted, ``(n_rows,)`` each."""
    train = frames["train"]
    interval = f1_interval(train.labels, decisions, train.group)
    by_fold = score_table(train.labels, decisions, scores, train.fold)
    dev, seen = dev_f1(frames, dev_scores, threshold) if dev_scores is not None else (None, None)
    return Entry(
        task=task.name,
        name=name,
        kind=kind,
        f1=interval.estimate,
        f1_low=interval.low,
        f1_high=interval.high,
        f1_fold_std=float(by_fold["f1"].std(ddof=0)),
        f1_at_half=f1(train.labels, decide(scores, 0.5)),
        auc=auc(train.labels, scores),
        positive_rate=float(decisions.mean()),
        threshold=threshold,
        rows_per_second=rate,
        dev_f1=dev,
        dev_f1_seen_languages=seen,
    )


def dev_f1(
    frames: Mapping[str, PredictionFrame], scores: np.ndarray, threshold: float
) -> tuple[float | None, float | None]:
    """F1 on the labelled rows of dev: all of them, and those in languages of train; None where there are none."""
    rows = frames["dev"].rows
    labelled = rows["label"].notna().to_numpy()
    seen = labelled & rows["language"].isin(frames["train"].rows["language"].unique()).to_numpy()
    results = []
    for chosen in (labelled, seen):
        labels = rows["label"][chosen].to_numpy(dtype=np.int8)
        results.append(f1(labels, decide(scores[chosen], threshold)) if chosen.any() else None)
    return results[0], results[1]


def dev_table(run: RunFolder, task: str) -> pd.DataFrame:
    """F1 on dev per language (columns) of every base learner and ensemble (rows), at its own threshold.

    The column ``all`` is the whole file, ``train languages`` and ``unseen languages`` its two parts; the first
    line predicts 1 everywhere.
    """
    gathered = gather(run, task, complete_learners(run, task))
    if "dev" not in gathered.frames or gathered.frames["dev"].rows["label"].isna().all():
        raise CompetitionError(f"{task} has no dev file with labels")
    train, dev = gathered.frames["train"], gathered.frames["dev"]
    decisions = {"everything positive": np.ones(dev.n_rows, dtype=np.int8)}
    for name in train.learners:
        decisions[name] = fit_final(SingleLearner(name), train).decide(dev.without_labels())
    for name in ensembles(run, task):
        scores = ensemble_scores(run, task, name, "dev", dev.rows["id"])
        decisions[name] = decide(scores, read_manifest(run.ensemble(task, name))["threshold"])
    labelled = dev.rows["label"].notna().to_numpy()
    language = dev.rows["language"].to_numpy()
    known = np.isin(language, train.rows["language"].unique())
    parts = {"all": labelled, "train languages": labelled & known, "unseen languages": labelled & ~known}
    parts |= {str(code): labelled & (language == code) for code in np.unique(language)}
    labels = dev.rows["label"].fillna(0).to_numpy(dtype=np.int8)
    table = {
        part: [f1(labels[rows], found[rows]) if rows.any() else np.nan for found in decisions.values()]
        for part, rows in parts.items()
    }
    return pd.DataFrame(table, index=pd.Index(decisions, name="name")).reset_index()


def submit(run: RunFolder, *, choice: str = "best", split: str | None = None, name: str = "final") -> SubmissionFiles:
    """A validated submission of all tasks for test (dev where there is no test).

    `choice` is an ensemble's or base learner's name, or ``best``: per task the ensemble with the highest
    cross-fitted F1.
    """
    board = leaderboard(run)
    submissions: list[Submission] = []
    rows: dict[str, pd.DataFrame] = {}
    chosen: dict[str, Any] = {}
    for task in run.tasks():
        there = [s for s in ((split,) if split else ("test", "dev")) if s in run.splits(task.name)]
        if not there:
            log.warning("%s has no %s rows, so it is not in the submission", task.name, split or "test or dev")
            continue
        entry_ = _choose(board, task.name, choice)
        frame = run.rows(task.name)[there[0]]
        scores = final_scores(run, entry_, there[0], frame["id"])
        assert entry_.threshold is not None, "every entry made here has its threshold"
        submissions.append(cut(task, frame["id"], scores, entry_.threshold))
        rows[task.name] = frame
        chosen[task.name] = {"ensemble": entry_.name, "kind": entry_.kind, "split": there[0], "f1": entry_.f1}
    if not submissions:
        raise CompetitionError("there is nothing to submit: no task has dev or test rows")
    rates = {task.name: float(run.rows(task.name)["train"]["label"].mean()) for task in run.tasks()}
    manifest = {"run": run.root.name, "chosen": chosen}
    return write_submission(run.submission(name), submissions, rows, manifest=manifest, replace=True, train_rates=rates)


def final_scores(run: RunFolder, chosen: Entry, split: str, ids: pd.Series) -> np.ndarray:
    """Level-2 scores of dev or test of a leaderboard entry, ``(n_ids,)``."""
    if chosen.kind != "base":
        return ensemble_scores(run, chosen.task, chosen.name, split, ids)
    return gather(run, chosen.task, [chosen.name]).frames[split].scores[:, 0]


def read_ensemble(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> pd.DataFrame:
    """One of an ensemble's score files, in the order of `ids`."""
    frame = pd.read_parquet(run.ensemble(task, name) / f"{split}.parquet").set_index("id")
    align(frame["score"], ids, where=f"ensemble {task}/{name}/{split}")
    return frame.reindex(pd.Index(ids)).reset_index()


def ensemble_scores(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> np.ndarray:
    """An ensemble's scores of dev or test, ``(n_ids,)``."""
    return read_ensemble(run, task, name, split, ids)["score"].to_numpy(dtype=np.float64)


def _choose(board: Leaderboard, task: str, choice: str) -> Entry:
    entries = [each for each in board.entries if each.task == task]
    if choice == "best":
        entries = [each for each in entries if each.kind != "base"] or entries
        return max(entries, key=lambda each: each.f1 or 0.0)
    named = [each for each in entries if each.name == choice]
    if not named:
        raise CompetitionError(
            f"{task} has no base learner or ensemble called {choice!r}",
            advice=f"name one of {', '.join(each.name for each in entries)}, or best",
        )
    return named[0]


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
