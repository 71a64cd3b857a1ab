"""The leaderboard stage: cross-fitted F1 of every base learner and ensemble, and F1 on labelled dev rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from competition.artefacts import PROVENANCE, sealing
from competition.errors import CompetitionError
from competition.metrics import auc, f1, f1_interval, paired_difference, score_table
from competition.tasks import Task
from oof.blend import SingleLearner
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.threshold import decide
from pipelines.ensembling import (
    complete_learners,
    ensemble_decisions,
    ensembles,
    gather,
    read_ensemble,
    read_manifest,
)
from pipelines.locks import alone
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder
from pipelines.trackers import log_metrics, tracked
from submissions.leaderboard import Entry, Leaderboard


def leaderboard(run: RunFolder) -> Leaderboard:
    """One entry per base learner with all its parts, and per ensemble; written to ``leaderboard.csv`` too."""
    started = now()
    with alone(run.leaderboard_file):
        entries = [entry for task in run.tasks() for entry in _entries(run, task)]
        board = Leaderboard.from_entries(entries).with_averages()
        made = provenance(seed=run.settings().seed, started=started)
        with sealing(run.leaderboard_file, {PROVENANCE: made}) as path:
            board.write_csv(path)
    with tracked(run, "leaderboard", {"entries": len(entries)}):
        log_metrics({f"f1/{each.task}/{each.name}": each.f1 for each in entries})
        log_metrics({f"dev_f1/{each.task}/{each.name}": each.dev_f1 for each in entries})
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
        dev = fitted.decide(frames["dev"]) if "dev" in frames else None
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
                dev_decisions=dev,
            )
        )
    rows = {split: frame.rows for split, frame in frames.items()}
    for name in ensembles(run, task.name):
        manifest = read_manifest(run.ensemble(task.name, name))
        oof = read_ensemble(run, task.name, name, "oof", rows["train"]["id"])
        dev = ensemble_decisions(run, task.name, name, "dev", rows["dev"]) if "dev" in rows else None
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
                dev_decisions=dev,
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
    dev_decisions: np.ndarray | None,
) -> Entry:
    """One line of the leaderboard; `scores` and `decisions` are cross-fitted, ``(n_rows,)`` each."""
    train = frames["train"]
    interval = f1_interval(train.labels, decisions, train.group)
    by_fold = score_table(train.labels, decisions, scores, train.fold)
    dev, seen = dev_f1(frames, dev_decisions) if dev_decisions is not None else (None, None)
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


def dev_f1(frames: Mapping[str, PredictionFrame], decisions: np.ndarray) -> tuple[float | None, float | None]:
    """F1 on the labelled rows of dev: all of them, and those in languages of train; None where there are none."""
    rows = frames["dev"].rows
    labelled = rows["label"].notna().to_numpy()
    seen = labelled & rows["language"].isin(frames["train"].rows["language"].unique()).to_numpy()
    results = []
    for chosen in (labelled, seen):
        labels = rows["label"][chosen].to_numpy(dtype=np.int8)
        results.append(f1(labels, decisions[chosen]) if chosen.any() else None)
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
        decisions[name] = ensemble_decisions(run, task, name, "dev", dev.rows)
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
