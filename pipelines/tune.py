"""Tuning one base learner's recipe: a study of trials over named recipe keys, on some folds and some rows.

A trial fits a fresh backbone without a fold's rows and scores them, as fold training does, on about as many rows as
asked for and the same ones for every trial. Its value is the mean over the folds. The first trial is the recipe as it
stands, so the tuned recipe is never worse than that on the study's own measure. **That measure is optimistic**: the
best of many trials is chosen on the very rows that it is measured on (and F1 takes the best threshold of those rows).
How good the tuned recipe is, fold training says, and best on folds that the study did not use.

Values are drawn by a multivariate tree-structured Parzen estimator (Bergstra et al. 2011, Falkner et al. 2018).
A trial is pruned when its mean so far is below the median of the finished trials after as many folds (MedianPruner,
Golovin et al. 2017). A Wilcoxon test over folds, which optuna has for cross-validation, could not reject with fewer
than four folds; successive halving would judge from the second trial on.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from competition.artefacts import PROVENANCE
from competition.errors import CompetitionError, Fault
from pipelines.config import learner_name, recipe_path
from pipelines.output import narrate
from pipelines.progress import available_threads
from pipelines.provenance import now, provenance
from pipelines.recipe_file import write_recipe
from pipelines.study_plan import Plan, Tuning, plan_study
from pipelines.study_store import BASE, REASON, REPEATS, counts
from pipelines.study_trials import work

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

STATE_OF = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "stopped", "RUNNING": "running"}
STATES = ("complete", "pruned", "failed", "stopped", "running")


@dataclass(frozen=True)
class Tuned:
    """What came of a study.

    Attributes
    ----------
    path
        The tuned recipe's file.
    value, base_value
        Of the best trial, and of the recipe as it stands (None where its values are not in the space, or it failed).
        Both are optimistic, see the module.
    trials
        One line per trial, the best first: trial, value, state, seconds, the values that varied, note.
    n_held_out
        Rows that a trial was measured on.
    """

    path: Path
    value: float
    base_value: float | None
    trials: pd.DataFrame
    n_held_out: int


def tune(tuning: Tuning, *, workers: int = 1, out: Path | None = None) -> Tuned:
    """The study with all its trials, and its best recipe written to the study's folder, and to `out` as well.

    The same call again goes on where the last one stopped; the same call several times at once, or `workers`, share
    the trials. One worker draws the same values every time, several do not: what is drawn depends on what is known.

    Raises
    ------
    CompetitionError
        Before anything starts: a space, folds or names that cannot be, all faults named. Later: the recipe as it
        stands cannot be fitted, or no trial got to its end.
    MismatchError
        A study of this name was made from other rows, folds, recipe or space.
    """
    _refuse_bad_out(tuning, out)
    started = now()
    plan = plan_study(tuning)
    tuning.store.agree_on(plan.settings())
    if plan.own_values.keys() != plan.space.texts().keys():
        missing = ", ".join(key for key in plan.space.texts() if key not in plan.own_values)
        log.warning("the recipe's own value is not in the space: %s; no trial is the recipe as it stands", missing)
    if workers == 1:
        work(plan)
    else:
        _work_together(plan, workers)
    if (n_trials := tuning.store.n_counted(plan.open())) < tuning.trials:
        log.info("study %s: no more than %d different trials were found in this space", tuning.name, n_trials)
    return _finish(plan, out, started=started)


def _finish(plan: Plan, out: Path | None, *, started: str) -> Tuned:
    """Write the best trial's recipe. One process at a time, so that the last word is that of the whole journal."""
    store, study = plan.tuning.store, plan.open()
    with store.locked():
        trials = study.get_trials(deepcopy=False)
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        if not complete:
            reasons = [Fault(f"trial {t.number}", t.user_attrs[REASON]) for t in trials if REASON in t.user_attrs]
            raise CompetitionError(
                "no trial of this study got to its end",
                faults=reasons,
                advice="mend what the reasons name, and begin another study: --study NAME",
            )
        best = min(complete, key=lambda trial: (-plan.metric.sign * trial.value, trial.number))
        recipe = plan.recipe_of(best.params)
        folds = ",".join(str(part.fold) for part in plan.parts)
        words = (
            f"{plan.recipe.description} (tuned: study {plan.tuning.name}, {plan.task.name}, trial {best.number} of "
            f"{sum(map(counts, trials))}, {plan.tuning.metric} on fold {folds})"
        )
        described = recipe.model_copy(update={"description": words.strip()})
        path = write_recipe(store.root / f"{learner_name(plan.tuning.model)}-tuned.toml", described)
        store.seal({"task": plan.task.name, PROVENANCE: provenance(seed=plan.seed, started=started)})
        if out is not None:
            path = write_recipe(out, described)
    base = [trial.value for trial in complete if trial.user_attrs.get(BASE)]
    table = trial_table(trials, sign=plan.metric.sign, n_folds=len(plan.parts))
    return Tuned(path, best.value, base[0] if base else None, table, sum(len(part.held_out) for part in plan.parts))


def trial_table(trials: "list[optuna.trial.FrozenTrial]", *, sign: int, n_folds: int) -> pd.DataFrame:
    """One line per trial, the best first, those without a proper end last; `sign` is -1 where less is better.

    A trial is complete, pruned, failed (the note says why), stopped (its worker was) or running. Draws that repeated
    an earlier trial are left out.
    """
    lines = [
        {
            "trial": trial.number,
            "value": trial.value,
            "state": _state(trial),
            "seconds": round(max(trial.duration.total_seconds(), 0.0), 2) if trial.duration else None,
            **trial.params,
            "note": _note(trial, n_folds),
        }
        for trial in trials
        if trial.state.name != "WAITING" and REPEATS not in trial.user_attrs
    ]
    lines.sort(key=lambda line: (STATES.index(line["state"]), -sign * (line["value"] or 0.0), line["trial"]))
    return pd.DataFrame(lines)


def _state(trial: "optuna.trial.FrozenTrial") -> str:
    return "failed" if REASON in trial.user_attrs else STATE_OF[trial.state.name]


def _note(trial: "optuna.trial.FrozenTrial", n_folds: int) -> str:
    n_scored = len(trial.intermediate_values)
    notes = [
        "the recipe as it stands" if trial.user_attrs.get(BASE) else "",
        f"after {n_scored} of {n_folds} folds" if 0 < n_scored < n_folds else "",
        trial.user_attrs.get(REASON, ""),
    ]
    return "; ".join(note for note in notes if note)


def _work_together(plan: Plan, workers: int) -> None:
    """Several processes do the trials; each gets its share of the threads."""
    from multiprocessing import get_context

    context, level = get_context("spawn"), logging.getLogger("pipelines").getEffectiveLevel()
    processes = [context.Process(target=_work_alone, args=(plan.tuning, level)) for _ in range(workers)]
    with _threads(max(1, available_threads() // workers)):
        for process in processes:
            process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    stopped = [process.exitcode for process in processes if process.exitcode]
    if stopped and plan.tuning.store.n_counted(plan.open()) < plan.tuning.trials:
        raise CompetitionError(
            f"{len(stopped)} of {workers} workers stopped early (exit codes {', '.join(map(str, stopped))})",
            advice="look at their messages; the same command goes on where they stopped",
        )


def _work_alone(tuning: Tuning, level: int) -> None:
    """What a process of `_work_together` does."""
    narrate(quiet=level > logging.INFO, verbose=level < logging.INFO)
    try:
        work(plan_study(tuning))
    except CompetitionError as error:
        log.error("a worker stops: %s", error)
        sys.exit(error.exit_code)


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    """Processes started in here use so many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _refuse_bad_out(tuning: Tuning, out: Path | None) -> None:
    if out is None:
        return
    if out.suffix != ".toml" or out.resolve() == recipe_path(tuning.model).resolve():
        fault = Fault("--out", str(out), "a .toml file that is not the recipe itself")
        raise CompetitionError(
            "the tuned recipe cannot be written there", faults=[fault], advice="name another file: --out mine.toml"
        )
