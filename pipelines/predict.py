"""Scores of new rows by the fold models of a base learner of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from competition.cleaning import clean
from competition.damage import refuse_damage
from competition.errors import CompetitionError, Fault
from competition.rows import read_rows
from competition.tasks import Task
from oof.store import PartKey, train_command
from pipelines.distilling import MAKE_AGAIN, WEIGHTS, student_folder
from pipelines.freeing import refuse_freed_weights
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder, without_labels
from pipelines.weights import cache_dir

if TYPE_CHECKING:
    from pipelines.backbones.protocol import Backbone, Workspace


@dataclass(frozen=True, eq=False)
class Models:
    """The models of a base learner, or that of a student, in memory.

    Attributes
    ----------
    models
        One a fold.
    """

    name: str
    task: Task
    models: "tuple[Backbone, ...]"

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """The mean of the models' scores, ``(n_rows,)`` float64: the same for a row alone and in any batch.

        `rows` are as the run's, without labels; give all `Models` of a `serving_space` the very same frame.
        """
        return np.asarray(np.mean([model.predict(rows, self.task) for model in self.models], axis=0, dtype=np.float64))


def predict(
    run: RunFolder, *, task: str, data: Path, learner: str | None = None, student: str | None = None
) -> pd.DataFrame:
    """One line per row of a file in the competition's format: id, score (a base learner's: mean of the fold models).

    The rows are cleaned and translated as those of the run. What a model knows of other texts is what the run's files
    tell: a row gets the same score whatever else is in the file.

    Raises
    ------
    CompetitionError
        A fold of the base learner is not trained yet, its weights were freed, or the file has faults: all of them.
    """
    definition, space = task_of(run, task), serving_space(run, task)
    if student is None:
        assert learner is not None, "one of the two is named"
        models = learner_models(run, definition, learner, space)
    else:
        models = student_model(run, definition, student, space)
    rows = clean(read_rows(data, definition, labelled=False), run.settings().cleaning, definition, may_drop=False)
    return pd.DataFrame({"id": rows["id"], "score": models.score(without_labels(run.with_english(rows)))})


def task_of(run: RunFolder, name: str) -> Task:
    """The task of this name that the run has."""
    there = {task.name: task for task in run.tasks()}
    if name not in there:
        run.rows(name)  # says what is missing
    return there[name]


def serving_space(run: RunFolder, task: str) -> "Workspace":
    """What models use that score rows a few at a time: the texts of the run's files, and none of the rows asked for."""
    from pipelines.backbones.protocol import Corpus, Workspace
    from pipelines.backbones.recent import Recent

    return Workspace(
        cache=cache_dir() / "embeddings",
        scratch=run.root,
        corpus=Corpus.of(without_labels(frame) for frame in run.rows(task).values()),
        seed=run.settings().seed,
        threads=available_threads(),
        recent=Recent(),
    )


def learner_models(run: RunFolder, task: Task, learner: str, space: "Workspace") -> Models:
    """The fold models of a base learner; behind adapters the base model is in memory once for all folds.

    Raises
    ------
    CompetitionError
        A fold is not trained yet, weights were freed, a part is damaged, or pretrained weights are not to be had.
    """
    from pipelines.backbones import load_folds

    keys = [PartKey(task.name, learner, fold) for fold in range(run.folds(task.name).plan.n_splits)]
    missing = [key for key in keys if not run.parts.is_finished(key)]
    if missing:
        raise CompetitionError(
            f"{learner} has not been trained for all folds of {task.name}",
            faults=[Fault(str(key), "no finished part", "made by " + train_command(key)) for key in missing],
            advice="train the missing folds by the commands above",
        )
    refuse_freed_weights(run, keys)
    run.parts.refuse_damaged(keys)
    return Models(learner, task, tuple(load_folds([run.parts.folder(key) / WEIGHTS for key in keys], space)))


def student_model(run: RunFolder, task: Task, name: str, space: "Workspace") -> Models:
    """The model of a student.

    Raises
    ------
    CompetitionError
        There is no such student, its weights are missing, or it is damaged.
    """
    from pipelines.backbones import load

    student = student_folder(run, task.name, name)
    folder = student / WEIGHTS
    if not folder.is_dir():
        fault = Fault(str(folder), "its weights are missing")
        raise CompetitionError("there is nothing to score new rows with", faults=[fault], advice=MAKE_AGAIN)
    refuse_damage(student, what=f"student {name}", advice=MAKE_AGAIN)
    return Models(name, task, (load(folder, space),))
