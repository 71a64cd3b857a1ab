"""What a report looks at: one task of a run, gathered and judged once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.tasks import Task
from oof.frame import PredictionFrame
from pipelines.ensembling import Gathered, complete_learners, gather
from pipelines.run_folder import RunFolder
from pipelines.scoreboard import Judged, entries_of, judge
from submissions.leaderboard import Entry, Leaderboard


@dataclass(frozen=True, eq=False)
class TaskView:
    """One task of a run whose base learners are there.

    Attributes
    ----------
    entries
        Those of the leaderboard, the best first.
    judged
        In the same order.
    """

    run: RunFolder
    task: Task
    gathered: Gathered
    entries: tuple[Entry, ...]
    judged: tuple[Judged, ...]

    @property
    def train(self) -> PredictionFrame:
        """The rows of train with their out-of-fold scores."""
        return self.gathered.frames["train"]

    @property
    def dev(self) -> PredictionFrame | None:
        """The rows of dev, if there is a dev file."""
        return self.gathered.frames.get("dev")

    @property
    def labelled_dev(self) -> np.ndarray | None:
        """Which rows of dev have a label, ``(n_rows,)``; None where none has."""
        if self.dev is None or not (there := self.dev.rows["label"].notna().to_numpy()).any():
            return None
        return np.asarray(there)

    @property
    def learners(self) -> list[Judged]:
        """The base learners, in the order of the frame's columns."""
        by_name = {each.name: each for each in self.judged}
        return [by_name[name] for name in self.train.learners]

    @property
    def ensembles(self) -> list[Judged]:
        """The ensembles, the best first."""
        return [each for each in self.judged if each.kind != "base"]

    @property
    def chosen(self) -> Judged:
        """What would be submitted: the best ensemble, or the best base learner where there is no ensemble."""
        return (self.ensembles or list(self.judged))[0]


def views_of(run: RunFolder) -> tuple[list[TaskView], list[Task]]:
    """The tasks that have a base learner with all its parts, judged; and those that have none."""
    views, bare = [], []
    for task in run.tasks():
        if complete := complete_learners(run, task.name):
            views.append(view_of(run, task, complete))
        else:
            bare.append(task)
    return views, bare


def view_of(run: RunFolder, task: Task, learners: Sequence[str]) -> TaskView:
    """One task of a run with the named base learners."""
    gathered = gather(run, task.name, learners)
    found = judge(run, task.name, gathered)
    board = Leaderboard.from_entries(entries_of(task, found, gathered.frames))
    by_name = {each.name: each for each in found}
    return TaskView(run, task, gathered, board.entries, tuple(by_name[entry.name] for entry in board.entries))
