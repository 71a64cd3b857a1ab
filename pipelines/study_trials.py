"""The trials of a study: draw values, fit and score, say how it ended; one after the other, beside other workers."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from competition.errors import CompetitionError
from pipelines.config import Recipe
from pipelines.memory import MemoryShortageError, first_line, free_memory, out_of_memory
from pipelines.progress import available_threads
from pipelines.run_folder import without_labels
from pipelines.study_plan import FoldRows, Plan
from pipelines.study_store import BASE, REASON, REPEATS
from pipelines.weights import cache_dir

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: with a value, pruned (None), or unable to go on for a reason."""

    value: float | None = None
    reason: str = ""


def work(plan: Plan) -> None:
    """Do trials until all that were asked for are finished or under way elsewhere."""
    store, study = plan.tuning.store, plan.open()
    distributions = plan.space.distributions()
    with store.worker() as worker:
        while _parent_lives():
            trial = store.next_trial(
                study, distributions, first=plan.own_values, n_trials=plan.tuning.trials, worker=worker, seed=plan.seed
            )
            if trial is None:
                return
            _do(plan, study, trial)


def _do(plan: Plan, study: "optuna.Study", trial: "optuna.Trial") -> None:
    """Bring one trial to its end; what was drawn before is not fitted again."""
    from optuna.trial import TrialState

    if (twin := _twin(study, trial)) is not None:
        trial.set_user_attr(REPEATS, twin)
        study.tell(trial, state=TrialState.FAIL)
        log.debug("trial %d: the same as trial %d", trial.number, twin)
        return
    outcome = _outcome(plan, trial)
    if outcome.reason:
        trial.set_user_attr(REASON, outcome.reason)
    # A failed trial the sampler does not look at, and draws its values again and again; a pruned one it avoids.
    state = TrialState.PRUNED if outcome.value is None else TrialState.COMPLETE
    told = study.tell(trial, outcome.value, state=state)
    _tell(plan, told, outcome)


def _tell(plan: Plan, trial: "optuna.trial.FrozenTrial", outcome: Outcome) -> None:
    values = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
    result = "pruned" if outcome.value is None else f"{plan.tuning.metric} {outcome.value:.4f}"
    seconds = max(trial.duration.total_seconds(), 0.0) if trial.duration else 0.0  # clocks are set back
    log.info("trial %d: %s in %.1f s (%s)", trial.number, outcome.reason or result, seconds, values)


def _twin(study: "optuna.Study", trial: "optuna.Trial") -> int | None:
    """Number of an earlier trial with the same values that came to an end; the recipe as it stands has none."""
    from optuna.trial import TrialState

    if BASE in trial.user_attrs:
        return None
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return next((earlier.number for earlier in ended if earlier.params == trial.params), None)


def _outcome(plan: Plan, trial: "optuna.Trial") -> Outcome:
    """Fit and score the trial; values that do not go together and memory that runs out are reasons, not crashes."""
    from optuna import TrialPruned

    is_base = trial.user_attrs.get(BASE, False)
    scratch = plan.tuning.store.scratch(trial.number)
    try:
        return Outcome(_value(plan, trial, scratch, may_prune=not is_base))
    except TrialPruned:
        return Outcome()
    except (MemoryError, RuntimeError, MemoryShortageError) as error:
        if not out_of_memory(error):
            raise
        reason = f"out of memory: {first_line(error)}"
    except CompetitionError as error:
        if is_base:
            raise  # what the recipe itself cannot do, no trial of it will
        return Outcome(reason="; ".join([error.summary, *map(str, error.faults)]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    free_memory()  # here the exception, which holds on to the network, is gone
    return Outcome(reason=reason)


def _value(plan: Plan, trial: "optuna.Trial", scratch: Path, *, may_prune: bool) -> float:
    """Mean over the folds; the mean so far is reported after each, and may be the end of the trial."""
    from optuna import TrialPruned

    recipe = plan.recipe_of(trial.params)
    scores: list[float] = []
    for step, part in enumerate(plan.parts):
        scores.append(_fold_value(plan, recipe, part, scratch / f"fold-{part.fold}"))
        trial.report(float(np.mean(scores)), step)
        if may_prune and part is not plan.parts[-1] and trial.should_prune():
            raise TrialPruned
    return float(np.mean(scores))


def _fold_value(plan: Plan, recipe: Recipe, part: FoldRows, scratch: Path) -> float:
    """The metric on a fold's rows, scored by a backbone that was fitted without them."""
    from pipelines.backbones import build
    from pipelines.backbones.protocol import Workspace

    scratch.mkdir(parents=True, exist_ok=True)
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=scratch,
        corpus=plan.corpus,
        seed=plan.seed,
        threads=available_threads(),
    )
    backbone = build(recipe, space).fit(part.train, plan.task)
    scores = backbone.predict(without_labels(part.held_out), plan.task)
    value = plan.metric.score(part.held_out["label"].to_numpy(dtype=np.int8), scores)
    if not np.isfinite(value):
        raise CompetitionError(
            f"fold {part.fold}: {plan.tuning.metric} is {value}: some scores are no numbers",
            advice="vary keys within smaller ranges, a lower learning rate first",
        )
    shutil.rmtree(scratch, ignore_errors=True)
    return value


def _parent_lives() -> bool:
    """Whether the process that started this worker is still there (true for a worker that nobody started)."""
    from multiprocessing import parent_process

    parent = parent_process()
    return parent is None or parent.is_alive()
