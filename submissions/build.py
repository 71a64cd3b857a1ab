"""A submission: one task's predictions by row id, the names of its files and the raw values that they repeat.

`submissions.write` writes the files, `submissions.formats` reads them record by record, `submissions.sources` finds
them in folders and zips, and `submissions.validate` checks them against the input rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.tasks import Task

RowId = int | str
Fields = tuple[str | None, str | None, str | None]

MANIFEST_NAME = "manifest.json"


def text_name(task: Task) -> str:
    """The name of the task's JSON Lines file, as the competition wants it; empty where it wants none."""
    return task.submission.text.replace("{task}", task.name)


def csv_name(task: Task) -> str:
    """The name of the task's CSV file, for contests that want `id,prediction`; empty where there is none."""
    return task.submission.csv.replace("{task}", task.name)


def upload_name(task: Task) -> str:
    """The name of the file that goes to the host: JSON Lines, or CSV where there are none."""
    return text_name(task) or csv_name(task)


def zip_name(tasks: Sequence[Task]) -> str:
    """The name of the archive for upload; empty where none is wanted."""
    return next((task.submission.zip for task in tasks if task.submission.zip), "")


@dataclass(frozen=True, eq=False)
class Submission:
    """One task's predictions by row id, not yet checked against any rows: `submissions.validate` does that.

    Attributes
    ----------
    predictions
        ``(n_rows,)`` 0 or 1, int8, or where the host wants scores those, float64; the index is the row id.
    threshold
        The cut that made them, where there is one for all rows; it goes into the manifest.
    """

    task: Task
    predictions: pd.Series
    threshold: float | None = None


def cut(
    task: Task,
    ids: Sequence[RowId] | pd.Index | pd.Series,
    scores: npt.ArrayLike,
    threshold: float | npt.NDArray[np.float64],
) -> Submission:
    """The submission that predicts 1 where the score reaches the threshold (``score >= threshold``).

    Parameters
    ----------
    ids, scores
        ``(n_rows,)`` each: row ids, and probabilities of label 1 in [0, 1].
    threshold
        One number for all rows, or ``(n_rows,)`` (a threshold per segment).

    Raises
    ------
    CompetitionError
        A score is NaN or outside [0, 1], named by id; or the threshold is NaN.

    Examples
    --------
    >>> from competition.tasks import QC
    >>> cut(QC, ["a", "b", "c"], [0.2, 0.45, 0.9], 0.45).predictions.to_dict()
    {'a': 0, 'b': 1, 'c': 1}
    """
    index, values = _checked(task, ids, scores, threshold)
    predictions = pd.Series((values >= threshold).astype(np.int8), index=index, name="prediction")
    return Submission(task, predictions, float(threshold) if np.ndim(threshold) == 0 else None)


def scored(task: Task, ids: Sequence[RowId] | pd.Index | pd.Series, scores: npt.ArrayLike) -> Submission:
    """The submission that holds the scores themselves, for hosts that want them; errors as of `cut`."""
    index, values = _checked(task, ids, scores)
    return Submission(task, pd.Series(values, index=index, name="prediction"))


def _checked(
    task: Task,
    ids: Sequence[RowId] | pd.Index | pd.Series,
    scores: npt.ArrayLike,
    threshold: float | npt.NDArray[np.float64] = 0.0,
) -> tuple[pd.Index, npt.NDArray[np.float64]]:
    """Ids and scores; an error if a score is none, or the threshold NaN."""
    index = pd.Index(ids, name="id")
    names = index.tolist()
    # float64 before the comparison: numpy would round the threshold to the precision of float32 scores.
    values = np.asarray(scores, dtype=np.float64)
    assert values.shape == (len(index),), f"{values.shape} scores for {len(index)} ids"
    outside = np.flatnonzero(~((values >= 0) & (values <= 1)))
    faults = [Fault(f"{task.name}, id {names[i]!r}", f"score is {values[i]}", "a probability, 0 to 1") for i in outside]
    if np.isnan(threshold).any():
        faults.append(Fault(task.name, "the threshold is NaN", "a number"))
    if faults:
        raise CompetitionError(f"{task.name}: the scores cannot be cut", faults=faults)
    return index, values


def row_ids(rows: pd.DataFrame) -> list[RowId]:
    """The ids of `rows` as Python integers or text, in order."""
    ids: list[RowId] = rows["id"].tolist()
    return ids


def raw_fields(rows: pd.DataFrame) -> list[Fields]:
    """What a submission repeats of every row, as it stood in the input file: language, query, target.

    A null stays None. Rows whose language was changed have a `raw_language`.

    Examples
    --------
    >>> raw_fields(pd.DataFrame({"language": ["ko"], "raw_query": [" Ópera "], "raw_target": [None]}))
    [('ko', ' Ópera ', None)]
    """
    columns = [
        rows[name].to_numpy(dtype=object, na_value=None).tolist()  # type: ignore[call-overload]  # None is a value
        for name in ("raw_language" if "raw_language" in rows else "language", "raw_query", "raw_target")
    ]
    return list(zip(*columns, strict=True))
