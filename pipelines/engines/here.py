"""Jobs in this process, one after the other: what one has loaded or computed, the next one finds."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

import click

from competition.errors import CompetitionError
from pipelines.engines.processes import last_lines, open_log, unwritten
from pipelines.engines.protocol import EngineOptions, Outcome
from pipelines.failures import named
from pipelines.job_state import FAILED, exit_code_of
from pipelines.jobs import Job
from pipelines.run_folder import RunFolder
from pipelines.secrets import RedactingFormatter, redacted

log = logging.getLogger(__name__)


class Here:
    """This process."""

    tries = 1

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.outcomes: list[Outcome] = []

    @classmethod
    def of(cls, run: RunFolder, options: EngineOptions) -> "Here":
        """This process, whatever the options."""
        return cls(run)

    def has_room(self, job: Job) -> bool:
        """One at a time."""
        return not self.outcomes

    def start(self, job: Job) -> None:
        """Do the job; a log that cannot be written is how it ends."""
        try:
            self.outcomes.append(self._outcome(job))
        except OSError as error:
            self.outcomes.append(unwritten(self.run, job, error))

    def _outcome(self, job: Job) -> Outcome:
        was_done = job.done
        with open_log(self.run, job) as file, _said_to(file):
            exit_code = _call(self.run, job, file)
        done = job.done and (exit_code == 0 or not was_done)
        last = tuple(last_lines(self.run.job_log(job.name)))
        return Outcome(job, exit_code if exit_code or done else FAILED, done, last)

    def ended(self) -> list[Outcome]:
        """The job that was done last."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def stop(self) -> None:
        """Nothing runs besides the caller."""


def _call(run: RunFolder, job: Job, log: TextIO) -> int:
    """The exit code of the job's command, done in this process."""
    from pipelines.cli import main

    command, *words = job.argv
    try:
        main.commands[command].main(words, standalone_mode=False)
    except click.Abort as error:  # what click makes of Ctrl-C
        raise KeyboardInterrupt from error
    except Exception as error:  # whatever it is, the next job may well work
        known = error if isinstance(error, CompetitionError) else named(error, stage=job.name, folder=run.root)
        log.write(redacted(traceback.format_exc() if known is None else f"error: {known}\n"))
        return exit_code_of(error)
    return 0


@contextmanager
def _said_to(file: TextIO) -> Iterator[None]:
    """What is printed goes to the file; what is logged goes there too."""
    handler = logging.StreamHandler(file)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    try:
        with redirect_stdout(file):
            yield
    finally:
        logging.getLogger().removeHandler(handler)
