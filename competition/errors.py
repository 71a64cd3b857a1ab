"""The errors that a user can cause: each says what was found, where, what was expected and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MAX_FAULTS_SHOWN = 200
WORTH_RETRYING = 75  # exit code of what the same command may well finish


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and the place where it stands.

    Examples
    --------
    >>> print(Fault("train_QC.txt:17", "label is 'yes'", "0 or 1"))
    train_QC.txt:17: label is 'yes'; expected 0 or 1
    """

    where: str
    found: str
    expected: str = ""

    def __str__(self) -> str:
        tail = f"; expected {self.expected}" if self.expected else ""
        return f"{self.where}: {self.found}{tail}"


class CompetitionError(Exception):
    """What a user can cause and mend; the command line prints it and leaves with `exit_code`.

    Parameters
    ----------
    summary
        One line: what went wrong.
    faults
        Every single fault, not only the first; `MAX_FAULTS_SHOWN` of them are printed, all are kept.
    advice
        What to do next.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, summary: str, *, faults: Sequence[Fault] = (), advice: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.faults = tuple(faults)
        self.advice = advice

    def __str__(self) -> str:
        lines = [self.summary]
        lines += [f"  {fault}" for fault in self.faults[:MAX_FAULTS_SHOWN]]
        if len(self.faults) > MAX_FAULTS_SHOWN:
            lines.append(f"  ... and {len(self.faults) - MAX_FAULTS_SHOWN:,} more faults of {len(self.faults):,}")
        if self.advice:
            lines.append(f"What to do: {self.advice}")
        return "\n".join(lines)


class MissingPartError(CompetitionError):
    """A base learner's part is not there yet; the advice names the command that makes it."""


class MismatchError(CompetitionError):
    """Two artefacts do not belong together: other rows, other folds, another recipe."""
