"""Level-2 folds: what is held out from combiners, where the folds of the base learners are too few or too many."""

from dataclasses import replace

import numpy as np
import pandas as pd

from competition.splitter import assign_groups
from oof.frame import PredictionFrame

N_FOLDS = 5


def with_level2_folds(frame: PredictionFrame, *, seed: int | None = None) -> PredictionFrame:
    """The frame with a column `level2_fold` in its rows: `N_FOLDS` folds, no group in two of them.

    Without a seed the folds of the base learners serve, as they are if there are `N_FOLDS`, several taken together if
    there are more; if there are fewer, groups are dealt anew. With a seed they are dealt anew in any case, which is how
    a nested estimate is repeated. A combiner held out from a row's group has not seen its label either way: the base
    scores come from models that did not see it, and so do the group statistics, which stay within level-1 folds.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": range(8), "language": "en", "fold": [0, 1, 2, 3, 4, 5, 6, 7], "label": 1})
    >>> frame = PredictionFrame(rows, np.full((8, 1), 0.5), ("a",))
    >>> with_level2_folds(frame).level2_fold.tolist()
    [0, 1, 2, 3, 4, 0, 1, 2]
    """
    folds, places = np.unique(frame.fold, return_inverse=True)
    if seed is None and len(folds) >= N_FOLDS:
        return replace(frame, rows=frame.rows.assign(level2_fold=(places % N_FOLDS).astype(np.int8)))
    groups, keys = pd.factorize(frame.group, sort=True)
    strata, _ = pd.factorize(pd.MultiIndex.from_arrays([frame.rows["language"], frame.labels]), sort=True)
    of_group = assign_groups(groups, strata, n_splits=min(N_FOLDS, len(keys)), seed=seed or 0)
    return replace(frame, rows=frame.rows.assign(level2_fold=of_group[groups]))
