"""Level-2 features whose distribution in dev or test is not that of training: what a stacker must not lean on.

A feature such as the number of rows that share a target may be honest within every fold and still mean something
else in the test file. Cross-validation cannot see that; the test file can, without labels: the feature by itself
tells train rows from test rows (adversarial validation). Measured on the `cup` data, QC: with the features of the
target group (AUC of train against test .72 to .99) the stacker gained .2 pt cross-fitted and lost .8 pt on dev.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from competition.metrics import auc
from oof.features import level2_features
from oof.frame import PredictionFrame

LIMIT = 0.6
ERRORS = 3.0
KEPT = ("language",)


def feature_shift(train: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Per feature the AUC, .5 to 1, with which it alone tells rows of `train` from rows of `other`.

    Missing values count as the lowest. A feature that is constant tells nothing (.5).

    Examples
    --------
    >>> train = pd.DataFrame({"size": [1.0, 2.0, 1.0], "score": [0.2, 0.7, 0.9]})
    >>> feature_shift(train, pd.DataFrame({"size": [8.0, 9.0], "score": [0.2, 0.9]})).round(2).to_dict()
    {'size': 1.0, 'score': 0.5}
    """
    origin = np.repeat([0, 1], [len(train), len(other)])
    lowest = -np.finfo(np.float32).max
    both = pd.concat([train, other], ignore_index=True).fillna(lowest)
    areas = {str(name): auc(origin, both[name]) for name in train}
    return pd.Series({name: max(area, 1 - area) for name, area in areas.items()}, dtype="float64")


def shifted_features(
    train: PredictionFrame, others: Sequence[PredictionFrame], *, paths: bool = False
) -> tuple[str, ...]:
    """Names of the level-2 features that tell train rows from those of any other frame.

    That is an AUC above `LIMIT` by more than `ERRORS` standard errors of an AUC between like rows (Mann and Whitney
    1947), so that a small test file excludes nothing by chance. Labels are not looked at. The language is kept: one
    that training does not know is a missing value to the trees.
    """
    languages = sorted(train.rows["language"].unique())
    own = level2_features(train.without_labels(), languages=languages, paths=paths).drop(columns=list(KEPT))
    found: set[str] = set()
    for other in others:
        shift = feature_shift(own, level2_features(other.without_labels(), languages=languages, paths=paths))
        error = np.sqrt((train.n_rows + other.n_rows + 1) / (12 * train.n_rows * other.n_rows))
        found |= set(shift.index[shift > LIMIT + ERRORS * error])
    return tuple(name for name in own if name in found)
