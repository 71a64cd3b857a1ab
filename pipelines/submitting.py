"""The last stage: choose per task, cut at the threshold, and write a validated submission."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import CompetitionError
from pipelines.ensembling import ensemble_scores, gather
from pipelines.run_folder import RunFolder
from pipelines.scoreboard import leaderboard
from submissions.build import Submission, cut
from submissions.leaderboard import Entry, Leaderboard
from submissions.write import SubmissionFiles, write_submission

log = logging.getLogger(__name__)


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
