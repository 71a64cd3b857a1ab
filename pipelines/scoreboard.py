"""The leaderboard stage: cross-fitted F1 of every base learner and ensemble, and F1 on labelled dev rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from competition.artefacts import PROVENANCE, sealing
from competition.errors import CompetitionError, Fault
from competition.judging import METRICS
from competition.metrics import auc, f1, f1_interval, paired_difference, score_table
from competition.progress import progress
from competition.tasks import Task
from oof.blend import SingleLearner
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.segments import SegmentCuts
from oof.threshold import decide
from pipelines.distilling import new_row_threshold, student_decisions, students
from pipelines.distilling import read_manifest as read_student
from pipelines.ensembling import (
    Gathered,
    complete_learners,
    ensemble_cuts,
    ensemble_decisions,
    ensemble_scores,
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

STUDENT = "student"


@dataclass(frozen=True, eq=False)
class Judged:
    """A base learner or ensemble of one task, and what it says of the rows of train and dev.

    Attributes
    ----------
    kind
        "base", or the kind of the ensemble.
    learners
        The base learners that it is made of.
    scores, decisions
        Cross-fitted, ``(n_rows,)`` of train.
    cuts
        Where the final one cuts.
    rate
        Rows scored per second.
    dev_scores, dev_decisions
        Of the final one, ``(n_rows,)`` of dev; None without a dev file.
    """

    name: str
    kind: str
    learners: tuple[str, ...]
    scores: np.ndarray
    decisions: np.ndarray
    cuts: SegmentCuts
    rate: float
    dev_scores: np.ndarray | None
    dev_decisions: np.ndarray | None


def leaderboard(run: RunFolder) -> Leaderboard:
    """One entry per base learner with all its parts, ensemble and student; written to ``leaderboard.csv`` too."""
    started, seed = now(), run.settings().seed  # no lock is made in a folder that is no run
    with alone(run.leaderboard_file):
        entries: list[Entry] = []
        for task in run.tasks():
            if complete := complete_learners(run, task.name):
                gathered = gather(run, task.name, complete)
                entries += entries_of(task, judge(run, task.name, gathered), gathered.frames)
                entries += [student_entry(run, task, name, gathered.frames) for name in students(run, task.name)]
        board = Leaderboard.from_entries(entries).with_averages()
        made = provenance(seed=seed, started=started)
        with sealing(run.leaderboard_file, {PROVENANCE: made}) as path:
            board.write_csv(path)
    with tracked(run, "leaderboard", {"entries": len(entries)}):
        log_metrics({f"f1/{each.task}/{each.name}": each.f1 for each in entries})
        log_metrics({f"dev_f1/{each.task}/{each.name}": each.dev_f1 for each in entries})
    return board


def judge(run: RunFolder, task: str, gathered: Gathered) -> list[Judged]:
    """Every gathered base learner and then every ensemble of a task, judged on its rows."""
    frames = gathered.frames
    rows = {split: frame.rows for split, frame in frames.items()}
    learners, combined = frames["train"].learners, ensembles(run, task)
    judged: list[Judged] = []
    with progress(f"judge {task}", total=len(learners) + len(combined)) as advance:
        for name in learners:
            judged.append(_judged_learner(gathered, name))
            advance(1)
        for name in combined:
            judged.append(_judged_ensemble(run, task, name, gathered, rows))
            advance(1)
    return judged


def _judged_learner(gathered: Gathered, name: str) -> Judged:
    frames, combiner = gathered.frames, SingleLearner(name)
    crossed = cross_fit(combiner, frames["train"])
    fitted = fit_final(combiner, frames["train"], cross_fitted=crossed)
    dev = fitted.predict(frames["dev"].without_labels()) if "dev" in frames else None
    return Judged(
        name,
        "base",
        (name,),
        crossed.scores,
        crossed.decisions,
        SegmentCuts(fitted.threshold, {}),
        gathered.rates[name],
        dev_scores=dev,
        dev_decisions=None if dev is None else decide(dev, fitted.threshold),
    )


def _judged_ensemble(
    run: RunFolder, task: str, name: str, gathered: Gathered, rows: Mapping[str, pd.DataFrame]
) -> Judged:
    manifest = read_manifest(run.ensemble(task, name))
    if absent := [learner for learner in manifest["learners"] if learner not in gathered.rates]:
        raise CompetitionError(
            f"{task}: {name} was made of base learners that have not all their parts any more",
            faults=[Fault(learner, "a part is missing") for learner in absent],
            advice=f"relstack status --run {run.root} says which; train it, or delete {run.ensemble(task, name)}",
        )
    oof = read_ensemble(run, task, name, "oof", rows["train"]["id"])
    cuts = ensemble_cuts(run, task, name)
    dev = ensemble_scores(run, task, name, "dev", rows["dev"]["id"]) if "dev" in rows else None
    return Judged(
        name,
        manifest["kind"],
        tuple(manifest["learners"]),
        oof["score"].to_numpy(),
        oof["decision"].to_numpy(),
        cuts,
        rate=1.0 / sum(1.0 / gathered.rates[learner] for learner in manifest["learners"]),
        dev_scores=dev,
        dev_decisions=None if dev is None else cuts.decide(dev, rows["dev"]["language"].to_numpy()),
    )


def entries_of(task: Task, found: Sequence[Judged], frames: Mapping[str, PredictionFrame]) -> list[Entry]:
    """One entry of the leaderboard for all that was judged, with its difference to the best of them."""
    made = [entry(task, each, frames) for each in found]
    return with_differences(made, {each.name: each.decisions for each in found}, frames["train"])


def with_differences(
    entries: Sequence[Entry], decisions: Mapping[str, np.ndarray], train: PredictionFrame
) -> list[Entry]:
    """The entries of one task, each with its difference in F1 to the best of them on the same rows.

    `decisions` are cross-fitted, ``(n_rows,)`` by name. Of equals the first by name is the best, as on the leaderboard.
    """
    best = min(entries, key=lambda each: (-(0.0 if each.quality is None else each.quality), each.name))
    compared = []
    for each in entries:
        gap = paired_difference(train.labels, decisions[each.name], decisions[best.name], train.group)
        compared.append(replace(each, difference=gap.estimate, difference_low=gap.low, difference_high=gap.high))
    return compared


def entry(task: Task, found: Judged, frames: Mapping[str, PredictionFrame]) -> Entry:
    """One line of the leaderboard."""
    train, scores, decisions = frames["train"], found.scores, found.decisions
    interval = f1_interval(train.labels, decisions, train.group)
    by_fold = score_table(train.labels, decisions, scores, train.fold)
    dev, seen = dev_f1(frames, found.dev_decisions) if found.dev_decisions is not None else (None, None)
    return Entry(
        task=task.name,
        name=found.name,
        kind=found.kind,
        f1=interval.estimate,
        f1_low=interval.low,
        f1_high=interval.high,
        f1_fold_std=float(by_fold["f1"].std(ddof=0)),
        f1_at_half=f1(train.labels, decide(scores, 0.5)),
        auc=auc(train.labels, scores),
        positive_rate=float(decisions.mean()),
        threshold=found.cuts.overall,
        rows_per_second=found.rate,
        dev_f1=dev,
        dev_f1_seen_languages=seen,
        metric=_other_metric(task, train.labels, found.decisions, found.scores),
        dev_metric=_dev_metric(task, frames, found),
    )


def _other_metric(task: Task, labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float | None:
    """What the host judges by; None where that is F1, which stands beside it."""
    if task.metric == "f1":
        return None
    return METRICS[task.metric].judge(labels, decisions=decisions, scores=scores)


def _dev_metric(task: Task, frames: Mapping[str, PredictionFrame], found: Judged) -> float | None:
    if found.dev_scores is None or found.dev_decisions is None:
        return None
    rows = frames["dev"].rows["label"]
    known = rows.notna().to_numpy()
    if not known.any():
        return None
    labels = rows[known].to_numpy(dtype=np.int8)
    return _other_metric(task, labels, found.dev_decisions[known], found.dev_scores[known])


def student_entry(run: RunFolder, task: Task, name: str, frames: Mapping[str, PredictionFrame]) -> Entry:
    """The line of a student: it was trained on all rows, so labelled dev rows alone can tell how good it is."""
    manifest = read_student(run.student(task.name, name))
    judged = "dev" in frames and "dev" in manifest["thresholds"]
    dev, seen = dev_f1(frames, student_decisions(run, task.name, name, "dev")) if judged else (None, None)
    return Entry(
        task=task.name,
        name=f"{STUDENT}/{name}",
        kind=STUDENT,
        f1=None,
        threshold=new_row_threshold(run, task.name, name),
        rows_per_second=manifest["rows_per_second"],
        dev_f1=dev,
        dev_f1_seen_languages=seen,
    )


def student_of(entry: Entry) -> str:
    """The name of a student by its line on the leaderboard."""
    return entry.name.removeprefix(f"{STUDENT}/")


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
        raise CompetitionError(
            f"{task} has no dev file with labels",
            advice="relstack leaderboard without --by language shows the out-of-fold scores",
        )
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
