"""What a model card says of one task of a run: tables and figures, all read from what is on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from competition.fold_report import compare_overlaps, fold_report
from competition.metrics import score_table
from competition.tasks import Task
from oof.blend import SingleLearner
from oof.crossfit import cross_fit
from oof.store import PartKey, PartManifest
from pipelines.config import recipe_values
from pipelines.ensembling import gather, read_ensemble
from pipelines.handover.licences import licence_of
from pipelines.handover.model import Chosen
from pipelines.run_folder import RunFolder, digest_model_rows
from submissions.leaderboard import Entry, Leaderboard

SHOWN = ["name", "kind", "f1", "f1_low", "f1_high", "auc", "dev_f1", "difference", "difference_low", "difference_high"]


@dataclass(frozen=True, eq=False)
class TaskFacts:
    """One task.

    Attributes
    ----------
    threshold
        The submission's own, which is not the ensemble's where it was cut for another share of positives; None where
        languages have their own.
    data
        One line per split: rows, languages, share of 1, digest.
    folds, overlaps
        Rows of every fold, and what held-out, dev and test rows share with what is trained on.
    learners
        One line per base learner: recipe, weights, licence, time, hardware.
    board
        The task's leaderboard.
    by_language
        Cross-fitted, one line per language of train.
    unseen
        Languages of the submitted split that train lacks -> rows.
    """

    task: Task
    entry: Entry
    chosen: Chosen
    split: str
    threshold: float | None
    prior_matched: bool
    submitted_rate: float
    data: pd.DataFrame
    plan: Mapping[str, Any]
    folds: pd.DataFrame
    overlaps: pd.DataFrame
    learners: pd.DataFrame
    board: pd.DataFrame
    by_language: pd.DataFrame
    unseen: Mapping[str, int]
    n_submitted: int
    without_english: float

    @property
    def unseen_share(self) -> float:
        """The share of submitted rows in languages that train lacks."""
        return sum(self.unseen.values()) / max(self.n_submitted, 1)


def facts_of(
    run: RunFolder, task: Task, *, chosen: Chosen, board: Leaderboard, manifest: Mapping[str, Any]
) -> TaskFacts:
    """The facts of a task as a submission with this `manifest` used it."""
    rows, folds, told = run.rows(task.name), run.folds(task.name), manifest["chosen"][task.name]
    report = fold_report(rows["train"], folds.dealt(rows["train"]), plan=folds.plan, task=task)
    entries = [each for each in board.entries if each.task == task.name]
    submitted = rows[told["split"]]
    unseen = submitted["language"][~submitted["language"].isin(rows["train"]["language"])].value_counts()
    foreign = submitted["language"] != "en"
    return TaskFacts(
        task=task,
        entry=next(each for each in entries if each.name == chosen.name),
        chosen=chosen,
        split=told["split"],
        threshold=manifest["tasks"][task.name].get("threshold"),
        prior_matched=told["cut"] == "prior-matched",
        submitted_rate=manifest["tasks"][task.name]["positive_rate"],
        data=pd.DataFrame([_split_line(split, frame) for split, frame in rows.items()]),
        plan={"kind": folds.plan.kind, "n_splits": folds.plan.n_splits, "seed": folds.plan.seed,
              "digest": folds.digest},
        folds=report.folds,
        overlaps=compare_overlaps(report, rows, task=task),
        learners=pd.DataFrame([_learner_line(run, task.name, name, chosen.n_folds) for name in chosen.learners]),
        board=Leaderboard(tuple(entries)).to_frame()[SHOWN],
        by_language=_by_language(run, task.name, chosen),
        unseen={str(name): int(count) for name, count in sorted(unseen.items())},
        n_submitted=len(submitted),
        without_english=float((submitted["query_en"][foreign] == "").mean()) if foreign.any() else 0.0,
    )  # fmt: skip


def part_manifests_of(run: RunFolder, task: str, name: str, n_folds: int) -> list[PartManifest]:
    """The manifests of a base learner's parts."""
    return [run.parts.manifest(PartKey(task, name, fold)) for fold in range(n_folds)]


def weights_of(run: RunFolder, learner: str) -> str | None:
    """The pretrained weights that a base learner begins with, by the name in its recipe."""
    section = recipe_values(run.recipe(learner)).get("weights")
    return None if section is None else str(section["name"])


def _split_line(split: str, rows: pd.DataFrame) -> dict[str, Any]:
    labels = rows["label"].dropna()
    return {
        "split": split,
        "rows": len(rows),
        "queries": rows["query"].nunique(),
        "positive": float(labels.mean()) if len(labels) else None,
        "languages": ", ".join(f"{name} {count:,}" for name, count in rows["language"].value_counts().items()),
        "digest": digest_model_rows(rows),
    }


def _learner_line(run: RunFolder, task: str, name: str, n_folds: int) -> dict[str, Any]:
    recipe, parts = run.recipe(name), part_manifests_of(run, task, name, n_folds)
    weights = weights_of(run, name)
    return {
        "base learner": name,
        "kind": recipe.kind,
        "what it is": recipe.description,
        "weights": weights or "none",
        "licence of the weights": (licence_of(weights) or "unknown") if weights else "",
        "fit, s": sum(part.fit_seconds for part in parts),
        "score, s": sum(part.predict_seconds for part in parts),
        "device": ", ".join(sorted({part.device for part in parts})),
    }


def _by_language(run: RunFolder, task: str, chosen: Chosen) -> pd.DataFrame:
    train = run.rows(task)["train"]
    scores, decisions = _cross_fitted(run, task, chosen, train["id"])
    labels = train["label"].to_numpy(dtype=np.int8)
    table = score_table(labels, decisions, scores, train["language"].to_numpy())
    named = {"positives": "labelled positive", "positive_rate": "decided positive"}
    return table.rename(columns=named).rename_axis("language").reset_index()


def _cross_fitted(run: RunFolder, task: str, chosen: Chosen, ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Scores and decisions of every training row, each made without its fold."""
    if chosen.kind != "base":
        oof = read_ensemble(run, task, chosen.name, "oof", ids)
        return oof["score"].to_numpy(), oof["decision"].to_numpy()
    crossed = cross_fit(SingleLearner(chosen.name), gather(run, task, [chosen.name]).frames["train"])
    return crossed.scores, crossed.decisions
