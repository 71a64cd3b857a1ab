"""Scores of new rows by the fold models of a base learner of a finished run."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.cleaning import clean
from competition.errors import CompetitionError, Fault
from competition.rows import read_rows
from oof.store import PartKey, train_command
from pipelines.freeing import refuse_freed_weights
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder, without_labels
from pipelines.weights import cache_dir


def predict(run: RunFolder, *, task: str, learner: str, data: Path) -> pd.DataFrame:
    """One line per row of a file in the competition's format: id, score (mean of the fold models).

    The rows are cleaned and translated as those of the run. Behind adapters the base model is in memory once for all
    folds.

    Raises
    ------
    CompetitionError
        A fold of the base learner is not trained yet, its weights were freed, or the file has faults: all of them.
    """
    from pipelines.backbones import load_folds
    from pipelines.backbones.protocol import Corpus, Workspace

    keys = [PartKey(task, learner, fold) for fold in range(run.folds(task).plan.n_splits)]
    missing = [key for key in keys if not run.parts.is_finished(key)]
    if missing:
        raise CompetitionError(
            f"{learner} has not been trained for all folds of {task}",
            faults=[Fault(str(key), "no finished part", "made by " + train_command(key)) for key in missing],
        )
    refuse_freed_weights(run, keys)
    definition = run.task(task)
    rows = clean(read_rows(data, definition, labelled=False), run.settings().cleaning, definition, may_drop=False)
    rows = run.with_english(rows)
    frames = [without_labels(frame) for frame in run.rows(task).values()]
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=run.root,
        corpus=Corpus.of([*frames, without_labels(rows)]),
        seed=run.settings().seed,
        threads=available_threads(),
    )
    folders = [run.parts.folder(key) / "weights" for key in keys]
    scores = [model.predict(without_labels(rows), definition) for model in load_folds(folders, space)]
    return pd.DataFrame({"id": rows["id"], "score": np.mean(scores, axis=0, dtype=np.float64)})
