"""Check what leaves the building: a submission in memory, and its files as they stand on disk.

Every fault is gathered before the error is raised. Only a `Validation`, which exists only when there is no
fault, says "passed"; what is merely suspicious is a warning and is counted as one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.tasks import Task
from submissions.build import Fields, RowId, Submission, raw_fields, row_ids
from submissions.sources import Source, extra_id, find_sources, id_kind, missing_id
from submissions.values import is_scored

RATE_GAP = 0.15  # another threshold or new languages move the positive rate by less than this


@dataclass(frozen=True)
class Validation:
    """What was checked and found without fault.

    Attributes
    ----------
    files
        Names of the files (a zip's members as ``submit.zip/submit_QC.txt``).
    rows, positive_rates
        By task name: number of rows, share of 1 in [0, 1], or the mean of scores.
    warnings
        What is allowed but suspicious.
    scored
        The tasks whose predictions are scores.
    """

    files: tuple[str, ...]
    rows: Mapping[str, int]
    positive_rates: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.warnings)
        head = "passed" if not count else f"passed with {count} warning{'s' if count > 1 else ''}"
        lines = [f"{head}: {', '.join(self.files)}"]
        lines += [f"  {task}: {n_rows:,} rows, {self._rate(task)}" for task, n_rows in self.rows.items()]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])

    def _rate(self, task: str) -> str:
        rate = self.positive_rates[task]
        return f"mean score {rate:.4f}" if task in self.scored else f"{rate:.2%} positive"


# --- in memory


def validate(submission: Submission, expected_rows: pd.DataFrame) -> None:
    """Nothing if the submission predicts 0 or 1 for every row of `expected_rows` once.

    Raises
    ------
    CompetitionError
        With a fault for every id that is missing, extra or repeated, or whose prediction is not an
        integer 0 or 1.
    """
    raise_faults(f"the {submission.task.name} submission", submission_faults(submission, expected_rows))


def raise_faults(what: str, faults: Sequence[Fault]) -> None:
    """Nothing if there are no `faults`, else one error with all of them."""
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise CompetitionError(
            f"{what} has {len(faults):,} fault{plural}",
            faults=faults,
            advice="predict 0 or 1 for every input row once, then write the files with `relstack submit`",
        )


def submission_faults(submission: Submission, expected_rows: pd.DataFrame) -> list[Fault]:
    """Every fault of the submission, each naming the id."""
    name, predictions = submission.task.name, submission.predictions
    wanted, found = dict.fromkeys(row_ids(expected_rows)), predictions.index.tolist()
    kind = id_kind(wanted)
    known = [type(row_id) is kind and row_id in wanted for row_id in found]
    extra = [row_id for row_id, is_known in zip(found, known, strict=True) if not is_known]
    repeated = predictions.index[predictions.index.duplicated()].unique().tolist()
    missing = wanted.keys() - {row_id for row_id, is_known in zip(found, known, strict=True) if is_known}
    faults = [extra_id(f"{name}, id {row_id!r}", wanted) for row_id in dict.fromkeys(extra)]
    faults += [Fault(f"{name}, id {row_id!r}", "is repeated", "each id once") for row_id in repeated]
    faults += [missing_id(name, row_id) for row_id in wanted if row_id in missing]
    return faults + _value_faults(submission) + ([] if wanted else [Fault(name, "there are no input rows")])


def _value_faults(submission: Submission) -> list[Fault]:
    name, predictions = submission.task.name, submission.predictions
    is_score = is_scored(submission.task)
    expected = "a score, 0 to 1" if is_score else "an integer, 0 or 1"
    values = predictions.astype(object).tolist()
    return [
        Fault(f"{name}, id {row_id!r}", f"prediction is {value!r}", expected)
        for row_id, value in zip(predictions.index.tolist(), values, strict=True)
        if not (isinstance(value, int | np.integer | float) and _is_value(value, is_score=is_score))
    ]


def _is_value(value: int | np.integer | float, *, is_score: bool) -> bool:
    return not isinstance(value, bool) and (is_score or not isinstance(value, float)) and bool(0 <= value <= 1)


def expected_fields(rows: pd.DataFrame) -> dict[RowId, Fields]:
    """What the submission must repeat, by row id, in the order of `rows`."""
    wanted = dict(zip(row_ids(rows), raw_fields(rows), strict=True))
    assert len(wanted) == len(rows), "ids of the input rows are unique: competition.rows refuses others"
    return wanted


def rate_warnings(task: Task, predictions: Iterable[float], train_rate: float | None) -> list[str]:
    """Warnings about the number of rows and the share of 1: all alike, or further from `train_rate` than usual.

    Usual is `RATE_GAP` plus noise; of scores only those that are all alike are told.

    Examples
    --------
    >>> from competition.tasks import QC
    >>> rate_warnings(QC, [1, 1, 1], None)
    ['QC: every prediction is 1']
    """
    values = np.fromiter(predictions, dtype=np.float64)
    rate, due = float(values.mean()), task.submission.rows
    counted = (
        [f"{task.name}: {len(values):,} rows, and the host expects {due:,}"] if due not in (0, len(values)) else []
    )
    return counted + _share_warnings(task, values, rate, train_rate)


def _share_warnings(task: Task, values: npt.NDArray[np.float64], rate: float, train_rate: float | None) -> list[str]:
    if (len(values) > 1 and values.min() == values.max()) or rate in (0.0, 1.0):
        return [f"{task.name}: every prediction is {rate:g}"]
    if train_rate is None or is_scored(task):
        return []
    noise = 3 * float(np.sqrt(train_rate * (1 - train_rate) / len(values)))  # three standard errors
    if abs(rate - train_rate) <= RATE_GAP + noise:
        return []
    return [f"{task.name}: {rate:.1%} of the predictions are 1, but {train_rate:.1%} of the training labels"]


# --- on disk


def validate_files(
    path: Path | str,
    expected: Mapping[str, pd.DataFrame],
    tasks: Sequence[Task],
    *,
    train_rates: Mapping[str, float] | None = None,
) -> Validation:
    """What stands at `path`, if it is a submission for all rows of all `tasks`.

    Parameters
    ----------
    path
        A folder as `write_submission` leaves it, a zip for upload, or one task's file: JSON Lines (``.txt``,
        ``.jsonl``) or CSV (``.csv``). A single file belongs to the only task, or to the one in its name.
    expected
        The input rows by task name.
    train_rates
        The share of 1 among the training labels by task name, for the warnings.

    Raises
    ------
    CompetitionError
        With all faults of all files, each with file, line and id.
    """
    path = Path(path)
    sources, faults = find_sources(path, tasks)
    fields = {name: expected_fields(expected[name]) for name in {source.task.name for source in sources}}
    checked: list[Source] = []
    predictions: dict[str, tuple[str, Mapping[RowId, float]]] = {}
    for source in sources:
        if any(twin.task is source.task and twin.data == source.data for twin in checked):
            continue  # a zip's member is the same bytes as the file beside it: nothing new to find
        checked.append(source)
        contents = source.contents(fields[source.task.name])
        earlier = predictions.setdefault(source.task.name, (source.name, contents.by_id))
        faults += [*contents.faults, *_disagreements(source.name, contents.by_id, *earlier)]
    faults += [Fault(name, "there are no input rows") for name in predictions if not fields[name]]
    raise_faults(str(path), faults)
    rates = train_rates or {}
    found = [(task, predictions[task.name][1].values()) for task in tasks if task.name in predictions]
    return Validation(
        files=tuple(source.name for source in sources),
        rows={task.name: len(values) for task, values in found},
        positive_rates={task.name: sum(values) / len(values) for task, values in found},
        scored=tuple(task.name for task, _ in found if is_scored(task)),
        warnings=tuple(w for task, values in found for w in rate_warnings(task, values, rates.get(task.name))),
    )


def _disagreements(
    name: str, found: Mapping[RowId, float], earlier_name: str, earlier: Mapping[RowId, float]
) -> list[Fault]:
    return [
        Fault(f"{name}, id {row_id!r}", f"prediction is {value}", f"{earlier[row_id]}, as in {earlier_name}")
        for row_id, value in found.items()
        if earlier.get(row_id, value) != value
    ]
