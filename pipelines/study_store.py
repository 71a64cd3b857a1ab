"""A study on disk: what it was made from, its journal of trials, and which trials are still being worked on.

A study folder holds ``study.json`` (settings; other ones are refused), ``journal.log`` (every trial, optuna's
JournalStorage), ``workers/`` (one lock per worker, held while it lives), the tuned recipe, and a manifest while nobody
works on it. Any number of processes
may work on it at once, and any of them may be killed: locks are the operating system's and go with their holder.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from competition.artefacts import FILES, MANIFEST, hashes, write_manifest, write_text
from competition.errors import CompetitionError, Fault, MismatchError
from competition.json_files import parse_json, read_json
from competition.regular_files import read_bytes
from oof.journal import open_journal

if TYPE_CHECKING:
    import optuna

# Studies here have tens of trials, not hundreds: so many are drawn at random before the sampler models them and the
# pruner trusts its median (optuna's own numbers are 10 and 5).
N_RANDOM = 5
MOST_REPEATS = 10  # for every trial asked for; then the space has hardly anything new in it
MOST_JOURNAL_BYTES = 2**30
# Optuna trusts its journal: a line of another shape fails wherever it is used first.
JOURNAL_FAILURES = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError, RecursionError,
)  # fmt: skip
BASE, WORKER, REASON, REPEATS = "base", "worker", "reason", "repeats"  # what is noted on a trial


@dataclass(frozen=True)
class StudyStore:
    """The files of one study."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """What the study was made from."""
        return self.root / "study.json"

    @property
    def journal(self) -> Path:
        """Every trial, as optuna writes it."""
        return self.root / "journal.log"

    def scratch(self, number: int) -> Path:
        """A trial's own folder, for checkpoints; gone when the trial is over."""
        return self.root / "scratch" / f"trial-{number}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time is in here."""
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".study.lock"):
            yield

    def agree_on(self, settings: Mapping[str, Any]) -> None:
        """Keep the settings of a new study.

        Raises
        ------
        MismatchError
            The study was made with others; the differences are named.
        """
        text = json.dumps(settings, ensure_ascii=False, indent=1) + "\n"
        with self.locked():
            if not self.settings_file.exists():
                write_text(self.settings_file, text)
                return
            saved, asked = dict(_flat(_read(self.settings_file))), dict(_flat(json.loads(text)))
        faults = [
            Fault(key, _shown(asked, key), f"{_shown(saved, key)}, as the study was made")
            for key in sorted(saved.keys() | asked.keys())
            if _shown(saved, key) != _shown(asked, key)
        ]
        if faults:
            raise MismatchError(
                f"study {self.root.name} was made with other settings", faults=faults, advice="give --study a new name"
            )

    def open(self, direction: str) -> "optuna.Study":
        """The study as it stands in the journal, begun if it is not there; call it under `locked`.

        Its manifest is gone until `seal` writes it again: the journal grows.
        """
        import optuna

        (self.root / MANIFEST).unlink(missing_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            if self.journal.exists():
                _refuse_broken(self.journal)
            storage = open_journal(self.journal)
            study = optuna.create_study(
                storage=storage,
                study_name=self.root.name,
                direction=direction,
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=N_RANDOM),
            )
            study.get_trials(deepcopy=False)
        except JOURNAL_FAILURES as error:
            raise CompetitionError(
                f"the journal of study {self.root.name} is damaged",
                faults=[Fault(str(self.journal), f"{type(error).__name__}: {error}"[:300])],
                advice="cut the broken lines off its end, or give --study a new name",
            ) from error
        return study

    def seal(self, values: Mapping[str, Any]) -> None:
        """Write the manifest: `values` and the hashes of all files; call it under `locked`."""
        write_manifest(self.root / MANIFEST, {**values, FILES: hashes(self.root)})

    @contextmanager
    def worker(self) -> Iterator[str]:
        """The name of a new worker, who counts as alive in the block and no longer."""
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        path = self._worker_lock(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield name
        path.unlink(missing_ok=True)

    def next_trial(
        self,
        study: "optuna.Study",
        distributions: Mapping[str, Any],
        *,
        first: Mapping[str, Any],
        n_trials: int,
        worker: str,
        seed: int,
    ) -> "optuna.Trial | None":
        """A trial for this worker, or None once `n_trials` are finished or under way, or the space is used up.

        The first trial of a study has the values `first`, and is noted as `BASE` (true if these are all). What is drawn
        for the others depends on the seed, the trial's number and the trials before it, not on the process: a study
        that was stopped goes on as if it had not been, and of two workers each draws its own. After a trial that
        repeated an earlier one the next is drawn at random: in a small space the sampler would repeat itself for ever.
        """
        import optuna

        with self.locked():
            self._give_up_abandoned(study)
            trials = study.get_trials(deepcopy=False)
            n_repeats = sum(REPEATS in trial.user_attrs for trial in trials)
            if sum(map(counts, trials)) >= n_trials or n_repeats >= MOST_REPEATS * n_trials:
                return None
            waiting = [trial.number for trial in trials if trial.state.name == "WAITING"]
            if not waiting and not any(BASE in trial.user_attrs and counts(trial) for trial in trials):
                study.enqueue_trial(dict(first), user_attrs={BASE: first.keys() == distributions.keys()})
            number = waiting[0] if waiting else len(trials)
            seed_of_trial = int(np.random.default_rng([seed, number]).integers(2**32))
            n_random = len(trials) + 1 if trials and REPEATS in trials[-1].user_attrs else N_RANDOM
            study.sampler = optuna.samplers.TPESampler(
                seed=seed_of_trial, multivariate=True, constant_liar=True, n_startup_trials=n_random
            )
            trial = study.ask(dict(distributions))
            trial.set_user_attr(WORKER, worker)
            return trial

    def n_counted(self, study: "optuna.Study") -> int:
        """How many trials are finished, or under way at a worker that lives."""
        with self.locked():
            self._give_up_abandoned(study)
            return sum(map(counts, study.get_trials(deepcopy=False)))

    def _give_up_abandoned(self, study: "optuna.Study") -> None:
        """Fail the trials whose worker is gone."""
        from optuna.trial import TrialState

        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if not self._alive(trial.user_attrs.get(WORKER, "")):
                study.tell(trial.number, state=TrialState.FAIL)
                shutil.rmtree(self.scratch(trial.number), ignore_errors=True)

    def _alive(self, worker: str) -> bool:
        path = self._worker_lock(worker)
        if not worker or not path.is_file():
            return False
        try:
            with FileLock(path, blocking=False):
                pass
        except Timeout:
            return True
        path.unlink(missing_ok=True)
        return False

    def _worker_lock(self, name: str) -> Path:
        return self.root / "workers" / f"{name}.lock"


def counts(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether the trial counts: it is under way or came to an end, which a killed one and a repeated one did not."""
    return trial.state.name in ("RUNNING", "COMPLETE", "PRUNED")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, {}, what="a study", advice="delete the study's folder, or give --study a new name")


def _refuse_broken(journal: Path) -> None:
    """Nothing if every line of a journal is one JSON object; what follows the last one is cut off by `open_journal`.

    Raises
    ------
    OSError, ValueError
        It is no file, or has a line that is none.
    """
    *lines, _unfinished = read_bytes(journal, most=MOST_JOURNAL_BYTES).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not isinstance(parse_json(line), dict):
            raise ValueError(f"line {number} is no JSON object")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"
