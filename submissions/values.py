"""What a prediction is in a task's CSV file: a digit, a word, or a score on the host's scale."""

import math
from collections.abc import Iterable, Sequence

from competition.tasks import Task


def is_scored(task: Task) -> bool:
    """Whether the host wants scores, not decisions."""
    return task.submission.value == "score"


def csv_header(task: Task) -> tuple[str, str]:
    """The header of the CSV file: the column of ids, and that of predictions."""
    return task.submission.id or task.id, task.submission.prediction or task.prediction


def cells(task: Task, predictions: Iterable[float]) -> list[str]:
    """The cells of the CSV file for predictions, scores on the host's scale.

    Examples
    --------
    >>> from competition.tasks import QC
    >>> cells(QC, [1, 0])
    ['1', '0']
    """
    if is_scored(task):
        low, high = task.submission.scale
        return [repr(min(high, low + (high - low) * float(score))) for score in predictions]
    words = task.submission.words or ("0", "1")
    return [words[int(decision)] for decision in predictions]


def prediction_of(task: Task, cell: str) -> float | None:
    """The prediction that a cell holds, 0 or 1 or a score in [0, 1]; None if it is none.

    Examples
    --------
    >>> from competition.tasks import QC
    >>> prediction_of(QC, "1"), prediction_of(QC, "0.5")
    (1, None)
    """
    if not is_scored(task):
        words: Sequence[str] = task.submission.words or ("0", "1")
        return words.index(cell) if cell in words else None
    low, high = task.submission.scale
    try:
        number = float(cell)
    except ValueError:
        return None
    return (number - low) / (high - low) if math.isfinite(number) and low <= number <= high else None


def expected_cell(task: Task) -> str:
    """What a cell must hold, in the words of a message."""
    if is_scored(task):
        return "a number from {:g} to {:g}".format(*task.submission.scale)
    return " or ".join(task.submission.words or ("0", "1"))
