"""The last stage: choose per task, cut at the threshold, and write a validated submission."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import PROVENANCE
from competition.errors import CompetitionError, Fault
from oof.calibration import METHODS
from oof.priors import prior_matched_threshold
from pipelines.distilling import student_scores, student_threshold
from pipelines.ensembling import ensemble_cuts, ensemble_scores, gather, part_manifests, read_ensemble
from pipelines.locks import alone
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder
from pipelines.scoreboard import STUDENT, leaderboard, student_of
from submissions.build import Submission, cut, scored
from submissions.leaderboard import Entry, Leaderboard
from submissions.values import is_scored
from submissions.write import SubmissionFiles, write_submission

log = logging.getLogger(__name__)


def submit(
    run: RunFolder,
    *,
    choice: str = "best",
    split: str | None = None,
    name: str = "final",
    prior_matched: bool = False,
    board: Leaderboard | None = None,
) -> SubmissionFiles:
    """A validated submission of all tasks for test (dev where there is no test).

    `choice` is the name of a leaderboard entry (an ensemble, a base learner, ``student/NAME``), or ``best``: per task
    the ensemble with the highest cross-fitted F1, or whatever the host judges by. Where the host wants scores they are
    not cut. With `prior_matched` the cut is not that of training but the one for the share of positives that the
    split's own scores tell of, see `oof.priors` for what that assumes. `board` is the run's leaderboard, where it has
    just been made.
    """
    if prior_matched and (uncut := [task.name for task in run.tasks() if is_scored(task)]):
        raise CompetitionError(f"{', '.join(uncut)}: scores are wanted, and no cut", advice="leave --prior-matched out")
    started = now()
    board = leaderboard(run) if board is None else board
    submissions: list[Submission] = []
    rows: dict[str, pd.DataFrame] = {}
    chosen: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    for task in run.tasks():
        there = [s for s in ((split,) if split else ("test", "dev")) if s in run.splits(task.name)]
        if not there:
            log.warning("%s has no %s rows, so it is not in the submission", task.name, split or "test or dev")
            continue
        entry_ = choose(board, task.name, choice)
        frame = run.rows(task.name)[there[0]]
        scores = final_scores(run, entry_, there[0], frame["id"])
        if is_scored(task):
            submissions.append(scored(task, frame["id"], scores))
        else:
            cuts = (
                _matched(run, entry_, scores) if prior_matched else (scores, _thresholds(run, entry_, there[0], frame))
            )
            submissions.append(cut(task, frame["id"], *cuts))
        rows[task.name] = frame
        inputs |= _manifests(run, entry_)
        chosen[task.name] = {
            "ensemble": entry_.name,
            "kind": entry_.kind,
            "split": there[0],
            "f1": entry_.f1,
            "cut": "none" if is_scored(task) else "prior-matched" if prior_matched else "usual",
        }
    if not submissions:
        raise CompetitionError(
            "there is nothing to submit: no task has dev or test rows",
            advice="add a test or dev file to the data, and make the run again in another --run folder",
        )
    rates = {task.name: float(run.rows(task.name)["train"]["label"].mean()) for task in run.tasks()}
    made = provenance(seed=run.settings().seed, started=started)
    manifest = {"run": run.root.name, "chosen": chosen, "inputs": inputs, PROVENANCE: made}
    folder = run.submission(name)
    with alone(folder):
        return write_submission(folder, submissions, rows, manifest=manifest, replace=True, train_rates=rates)


def final_scores(run: RunFolder, chosen: Entry, split: str, ids: pd.Series) -> np.ndarray:
    """Level-2 scores of dev or test of a leaderboard entry, ``(n_ids,)``."""
    if chosen.kind == STUDENT:
        return student_scores(run, chosen.task, student_of(chosen), split, ids)
    if chosen.kind != "base":
        return ensemble_scores(run, chosen.task, chosen.name, split, ids)
    return gather(run, chosen.task, [chosen.name]).frames[split].scores[:, 0]


def _manifests(run: RunFolder, chosen: Entry) -> dict[str, str]:
    """The manifests of what a leaderboard entry is made of: its ensemble's, or its parts'."""
    if chosen.kind == "base":
        return part_manifests(run, chosen.task, [chosen.name])
    if chosen.kind == STUDENT:
        return run.manifests([run.student(chosen.task, student_of(chosen))])
    return run.manifests([run.ensemble(chosen.task, chosen.name)])


def _thresholds(run: RunFolder, chosen: Entry, split: str, rows: pd.DataFrame) -> float | np.ndarray:
    """The cut of a leaderboard entry: one for all rows, or one per row where languages have earned their own."""
    if chosen.kind == STUDENT:
        return student_threshold(run, chosen.task, student_of(chosen), split)
    assert chosen.threshold is not None, "every entry made here has its threshold"
    if chosen.kind == "base":
        return chosen.threshold
    cuts = ensemble_cuts(run, chosen.task, chosen.name)
    return cuts.thresholds(rows["language"].to_numpy()) if cuts.by_segment else cuts.overall


def _matched(run: RunFolder, chosen: Entry, scores: np.ndarray) -> tuple[np.ndarray, float]:
    """The calibrated scores of a split, and the cut that matches their own share of positives."""
    if chosen.kind == STUDENT:
        fault = Fault(f"{chosen.task}: {chosen.name}", "no out-of-fold scores", "an ensemble or base learner")
        raise CompetitionError("a student's cut cannot be matched to a share of positives", faults=[fault])
    train = run.rows(chosen.task)["train"]
    if chosen.kind == "base":
        own = gather(run, chosen.task, [chosen.name]).frames["train"].scores[:, 0]
    else:
        own = read_ensemble(run, chosen.task, chosen.name, "oof", train["id"])["score"].to_numpy()
    labels = train["label"].to_numpy(dtype=np.int8)
    calibrated = METHODS["isotonic"](labels, own)(scores)
    threshold, shift = prior_matched_threshold(calibrated, float(labels.mean()))
    log.info("%s: %.1f %% positive expected (train %.1f %%, p %.2g): cut at %.3f of the calibrated scores",
             chosen.task, 100 * shift.rate, 100 * shift.train_rate, shift.p_value, threshold)  # fmt: skip
    return calibrated, threshold


def choose(board: Leaderboard, task: str, choice: str) -> Entry:
    """The entry of a task by its name; ``best``: the ensemble with the highest cross-fitted F1.

    Raises
    ------
    CompetitionError
        There is none of that name; those that there are are named.
    """
    entries = [each for each in board.entries if each.task == task]
    if choice == "best":
        judged = [each for each in entries if each.f1 is not None]
        if not judged:
            raise CompetitionError(f"{task} has no base learner or ensemble yet", advice="run `relstack status`")
        entries = [each for each in judged if each.kind != "base"] or judged
        return max(entries, key=lambda each: float("-inf") if each.quality is None else each.quality)
    named = [each for each in entries if each.name == choice]
    if not named:
        raise CompetitionError(
            f"{task} has no base learner or ensemble called {choice!r}",
            advice=f"name one of {', '.join(each.name for each in entries)}, or best",
        )
    return named[0]
