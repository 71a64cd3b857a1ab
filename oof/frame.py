"""The prediction frame: scores by row id and base learner, beside fold, label, language and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.tasks import MetricName

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]

IDS_NAMED = 5  # ids spelled out in one fault; the count is always exact
LOGIT_CLIP = 12.0  # a score of 0 or 1 exactly (float32 models give them) must not become infinite


@dataclass(frozen=True, eq=False)
class PredictionFrame:
    """The scores of several base learners for the same rows.

    Attributes
    ----------
    rows
        Columns `id` (unique) and `language`; where known `fold` (level 1, not negative), `level2_fold` (see
        `oof.level2_folds`), `label` (0, 1 or missing), `group`, `query`, `target`, `query_en`, `unseen_language`,
        `unseen_target`. The index carries no meaning and is renumbered.
    scores
        ``(n_rows, n_learners)`` float64 in [0, 1]: the probability of label 1. Read-only.
    learners
        The names of the base learners, in the order of the columns of `scores`.
    metric
        What decisions on these rows are judged by: thresholds are chosen for it.

    Raises
    ------
    CompetitionError
        With every fault: repeated ids, gaps, scores out of range, lengths that differ, repeated names.
    """

    rows: pd.DataFrame
    scores: Floats
    learners: tuple[str, ...]
    metric: MetricName = "f1"

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "learners", tuple(self.learners))
        object.__setattr__(self, "rows", self.rows.reset_index(drop=True))
        if faults := [*_row_faults(self.rows), *_score_faults(self.rows, self.scores, self.learners)]:
            raise CompetitionError(
                "these scores do not make a prediction frame",
                faults=faults,
                advice="gather the parts again; a part that is at fault must be made anew",
            )

    @classmethod
    def from_parts(cls, rows: pd.DataFrame, parts: Mapping[str, pd.Series]) -> "PredictionFrame":
        """The frame of `rows`, each learner's scores joined by id (the index of its part), never by position.

        Raises
        ------
        CompetitionError
            Naming the learner and the ids that are missing, extra or repeated in its part.

        Examples
        --------
        >>> rows = pd.DataFrame({"id": [7, 8], "language": ["en", "fr"]})
        >>> PredictionFrame.from_parts(rows, {"a": pd.Series([0.8, 0.7], index=[8, 7])}).scores
        array([[0.7], [0.8]])
        """
        faults = [fault for name, part in parts.items() for fault in _part_faults(rows, name, part)]
        if faults:
            raise CompetitionError(
                "these parts do not belong to these rows",
                faults=faults,
                advice="make the named parts anew from the same rows",
            )
        columns = [part.reindex(rows["id"]).to_numpy(dtype=np.float64) for part in parts.values()]
        return cls(rows, np.column_stack(columns) if columns else np.empty((len(rows), 0)), tuple(parts))

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def n_learners(self) -> int:
        """The number of base learners."""
        return len(self.learners)

    @property
    def labels(self) -> Binary:
        """The labels, ``(n_rows,)`` 0 or 1; an error if any is missing."""
        self._require("label", "nothing can be fitted or scored without labels")
        return self.rows["label"].to_numpy(dtype=np.int8)

    @property
    def fold(self) -> Binary:
        """The level-1 fold of every row, ``(n_rows,)``; an error if there is none."""
        self._require("fold", "out-of-fold scores have folds; dev and test scores have none")
        return self.rows["fold"].to_numpy(dtype=np.int8)

    @property
    def level2_fold(self) -> Binary:
        """What is held out from combiners, ``(n_rows,)``: the level-1 fold unless the rows say otherwise."""
        if "level2_fold" not in self.rows:
            return self.fold
        return self.rows["level2_fold"].to_numpy(dtype=np.int8)

    @property
    def group(self) -> npt.NDArray[np.generic]:
        """The group of every row, ``(n_rows,)``; without that column every row is a group of its own."""
        return np.asarray(self.rows["group" if "group" in self.rows else "id"])

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> "PredictionFrame":
        """The rows chosen by a mask or by positions, in that order."""
        positions = np.flatnonzero(which) if which.dtype == bool else which
        return self._derived(rows=self.rows.iloc[positions].reset_index(drop=True), scores=self.scores[positions])

    def with_learners(self, names: Sequence[str]) -> "PredictionFrame":
        """The frame of these base learners only, in this order; an error names those that are not there."""
        if missing := [name for name in names if name not in self.learners]:
            raise CompetitionError(
                "base learners are missing",
                faults=[Fault(name, "no scores", f"one of {', '.join(self.learners)}") for name in missing],
                advice="give the same base learners as in fitting",
            )
        columns = [self.learners.index(name) for name in names]
        return self if tuple(names) == self.learners else self._derived(scores=self.scores[:, columns], learners=names)

    def without_labels(self) -> "PredictionFrame":
        """The frame without its labels: what a combiner is given to predict."""
        return self._derived(rows=self.rows.drop(columns="label", errors="ignore"))

    def id_order(self) -> npt.NDArray[np.intp]:
        """The positions that sort the rows by id, ``(n_rows,)``: fits in it ignore the file's order."""
        return np.asarray(self.rows["id"].argsort(kind="stable"), dtype=np.intp)

    def logits(self, clip: float = LOGIT_CLIP) -> Floats:
        """The log-odds of the scores, ``(n_rows, n_learners)``, cut to [-clip, clip].

        Examples
        --------
        >>> rows = pd.DataFrame({"id": [1, 2], "language": ["en", "en"]})
        >>> PredictionFrame(rows, np.array([[0.5], [1.0]]), ("a",)).logits().tolist()
        [[0.0], [12.0]]
        """
        return to_logits(self.scores, clip)

    def _derived(
        self, *, rows: pd.DataFrame | None = None, scores: Floats | None = None, learners: Sequence[str] | None = None
    ) -> "PredictionFrame":
        """A part of this frame, not checked again: fitting makes thousands of them."""
        part = object.__new__(PredictionFrame)
        chosen = self.scores if scores is None else scores
        chosen.flags.writeable = False
        object.__setattr__(part, "rows", self.rows if rows is None else rows)
        object.__setattr__(part, "scores", chosen)
        object.__setattr__(part, "learners", self.learners if learners is None else tuple(learners))
        object.__setattr__(part, "metric", self.metric)
        return part

    def _require(self, column: str, why: str) -> None:
        if column not in self.rows:
            raise CompetitionError(f"the rows have no column {column!r}", advice=why)
        if (missing := self.rows[column].isna()).any():
            found = f"missing for {_named(self.rows.loc[missing, 'id'])}"
            raise CompetitionError(f"not every row has a {column}", faults=[Fault(column, found)], advice=why)


def to_logits(scores: Floats, clip: float = LOGIT_CLIP) -> Floats:
    """The log-odds of scores, cut to [-clip, clip]."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(scores) - np.log1p(-scores), -clip, clip), dtype=np.float64)


def _row_faults(rows: pd.DataFrame) -> list[Fault]:
    faults = [Fault("rows", f"no column {name!r}") for name in ("id", "language") if name not in rows]
    if "id" in rows and (missing := int(rows["id"].isna().sum())):
        faults.append(Fault("id", f"{missing:,} missing", "an id for every row"))
    if "id" in rows and (repeated := rows["id"].duplicated()).any():
        faults.append(Fault("id", f"repeated: {_named(rows.loc[repeated, 'id'])}", "each id once"))
    if "label" in rows and (odd := ~(rows["label"].isin([0, 1]) | rows["label"].isna())).any():
        faults.append(Fault("label", f"other values in {odd.sum():,} rows", "0, 1 or missing"))
    if "fold" in rows and (odd := ~(rows["fold"] >= 0).fillna(False).astype(bool)).any():
        faults.append(Fault("fold", f"missing or negative in {odd.sum():,} rows", "0 or more"))
    return faults


def _score_faults(rows: pd.DataFrame, scores: Floats, learners: tuple[str, ...]) -> list[Fault]:
    faults = [Fault("learners", f"{name!r} repeated") for name in dict.fromkeys(learners) if learners.count(name) > 1]
    if not learners:
        faults.append(Fault("learners", "none", "at least one"))
    if scores.shape != (len(rows), len(learners)):
        faults.append(Fault("scores", f"shape {scores.shape}", f"{(len(rows), len(learners))}, rows x learners"))
        return faults
    ids = rows["id"] if "id" in rows else rows.index.to_series()
    for name, column in zip(learners, scores.T, strict=True):
        for found, wrong in (("NaN", np.isnan(column)), ("out of range", (column < 0) | (column > 1))):
            if wrong.any():
                faults.append(Fault(f"learner {name!r}", f"{found}: {_named(ids[wrong])}", "scores in [0, 1]"))
    return faults


def _part_faults(rows: pd.DataFrame, name: str, part: pd.Series) -> list[Fault]:
    expected = pd.Index(rows["id"])
    ids = {
        "repeated": part.index[part.index.duplicated()],
        "missing": expected.difference(part.index),
        "extra": part.index.difference(expected),
    }
    return [
        Fault(f"learner {name!r}", f"{kind}: {_named(found)}", "each row's id once")
        for kind, found in ids.items()
        if len(found)
    ]


def _named(ids: pd.Series | pd.Index) -> str:
    """How many ids, and the first few of them."""
    shown = ", ".join(str(value) for value in ids[:IDS_NAMED])
    return f"{len(ids):,} {'id' if len(ids) == 1 else 'ids'} ({shown}{', ...' if len(ids) > IDS_NAMED else ''})"
