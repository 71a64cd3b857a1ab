"""Scores along one category path: what the rows above and below a row say within the same query.

Where a category is relevant to a query, so is the category above it: on the `cup` data, QC, an ancestor that stands
with the same query was relevant beside all of 5,634 (train) and 3,029 (dev) rows labelled 1, and beside 89 % and 78 %
of the others. So scores along a path should not rise towards the leaf.

Nothing here looks at labels, and only rows of the same fold are compared, see `oof.features`.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.categories import levels
from competition.cleaning import map_distinct
from oof.context import NOWHERE, Context, keys_of
from oof.frame import PredictionFrame

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

PREFIX = "path_"
QUERY = ("language", "query")
MIN_SHARE = 0.01


def path_features(frame: PredictionFrame) -> pd.DataFrame:
    """How a row's mean logit stands to those of its ancestors and descendants, float64 columns, NaN without any.

    ``path_above_size, _min, _mean, _max`` of the rows of the same query (and fold) whose target is an ancestor,
    ``path_below_*`` of those whose target is a descendant; ``path_monotone`` is the logit of `monotone_logits`, and
    ``path_gap`` how far that is from the row's own. A frame without `query` or `target` gives no columns. New rows of
    a frame with a context stand alone among the rows of that.
    """
    if frame.context is None:
        return _of_file(frame)
    return frame.context.features(frame, PREFIX, of_file=_of_file, of_new=_of_new)


def _of_new(frame: PredictionFrame, context: Context) -> pd.DataFrame:
    """`path_features` of every row alone among those of the context: with those of its query it is a fold."""
    if not set(QUERY) <= set(frame.rows):
        return pd.DataFrame(index=frame.rows.index)
    members = context.members(QUERY)
    others = [members.get(key, NOWHERE) for key in keys_of(frame.rows, QUERY)]
    fold = np.concatenate([np.arange(frame.n_rows), np.repeat(np.arange(frame.n_rows), [*map(len, others)])])
    beside = context.frame.take(np.concatenate(others))
    texts = pd.concat([each.rows[["language", "query", "target"]] for each in (frame, beside)])
    rows = texts.assign(id=np.arange(len(fold)), fold=fold)
    together = PredictionFrame(rows, np.vstack([frame.scores, beside.scores]), frame.learners)
    return _of_file(together).head(frame.n_rows)


def _of_file(frame: PredictionFrame) -> pd.DataFrame:
    if not {"language", "query", "target"} <= set(frame.rows):
        return pd.DataFrame(index=frame.rows.index)
    logits = frame.logits().mean(axis=1)
    child, parent = related_rows(frame)
    tables = {
        "above": pd.Series(logits[parent]).groupby(child),
        "below": pd.Series(logits[child]).groupby(parent),
    }
    columns: dict[str, Floats] = {}
    for side, grouped in tables.items():
        of_row = grouped.agg(["size", "min", "mean", "max"]).reindex(np.arange(frame.n_rows))
        of_row["size"] = of_row["size"].fillna(0)
        columns |= {f"{PREFIX}{side}_{name}": of_row[name].to_numpy(dtype=np.float64) for name in of_row}
    columns[f"{PREFIX}monotone"] = _projected(logits, child, parent)
    columns[f"{PREFIX}gap"] = columns[f"{PREFIX}monotone"] - logits
    return pd.DataFrame(columns, index=frame.rows.index)


def has_paths(frame: PredictionFrame) -> bool:
    """Whether one row in a hundred or more stands with an ancestor of its target: titles hardly ever do, by chance."""
    if not {"language", "query", "target"} <= set(frame.rows):
        return False
    return len(np.unique(related_rows(frame)[0])) >= MIN_SHARE * frame.n_rows > 0


def related_rows(frame: PredictionFrame) -> tuple[Codes, Codes]:
    """Places of all pairs of rows of one query (and fold), the second's target an ancestor of the first's."""
    fold = frame.rows["fold"].to_numpy() if "fold" in frame.rows else np.zeros(frame.n_rows, dtype=np.int8)
    group = frame.rows.groupby([fold, "language", "query"], sort=False, dropna=False).ngroup().to_numpy()
    target, paths = pd.factorize(map_distinct(frame.rows["target"].fillna(""), lambda path: ",".join(levels(path))))
    target_below, target_above = _ancestors(list(paths))
    rows = pd.DataFrame({"row": np.arange(frame.n_rows), "group": group, "target": target})
    chains = pd.DataFrame({"target": target_below, "above": target_above})
    wanted = rows.merge(chains, on="target")
    found = wanted.merge(rows, left_on=["group", "above"], right_on=["group", "target"], suffixes=("", "_above"))
    return found["row"].to_numpy(dtype=np.int64), found["row_above"].to_numpy(dtype=np.int64)


def _ancestors(paths: list[str]) -> tuple[list[int], list[int]]:
    """Places of all pairs of `paths` of which the second is an ancestor of the first."""
    place = {path: i for i, path in enumerate(paths)}
    below, above = [], []
    for path, i in place.items():
        names = levels(path)
        found = [place[up] for up in (",".join(names[:depth]) for depth in range(1, len(names))) if up in place]
        below += [i] * len(found)
        above += found
    return below, above


def _projected(logits: Floats, child: Codes, parent: Codes) -> Floats:
    """The mean of each row's greatest logit at or below it and its least at or above it."""
    greatest, least = logits.copy(), logits.copy()
    np.maximum.at(greatest, parent, logits[child])
    np.minimum.at(least, child, logits[parent])
    return np.asarray((greatest + least) / 2, dtype=np.float64)
