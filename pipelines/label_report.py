"""The label-quality report of a run: which training labels no base learner believes."""

import numpy as np
import pandas as pd

from oof.blend import SingleLearner
from oof.crossfit import cross_fit
from oof.label_quality import doubt_table, doubted_rows
from pipelines.ensembling import complete_learners, gather
from pipelines.run_folder import RunFolder


def label_tables(run: RunFolder, task: str, *, top: int) -> dict[str, pd.DataFrame]:
    """Two tables by title: doubted labels per language, and the `top` surest doubts.

    Every base learner decides at its own threshold, cross-fitted, on scores of models that did not see the row.

    Raises
    ------
    MissingPartError
        No base learner has all its parts.
    """
    train = gather(run, task, complete_learners(run, task)).frames["train"]
    decisions = np.column_stack([cross_fit(SingleLearner(name), train).decisions for name in train.learners])
    return {
        f"{task}: labels that no base learner believes": doubt_table(
            train.labels, decisions, train.rows["language"].to_numpy()
        ),
        f"{task}: the surest doubts": doubted_rows(train, decisions, top=top),
    }
