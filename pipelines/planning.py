"""What a run will take, before it begins: its jobs with hours, memory and disk, and the wall time of them all."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from competition.cleaning import get_preset
from competition.errors import CompetitionError
from competition.tasks import Task
from oof.store import MANIFEST, PartKey
from pipelines.config import Recipe, learner_name, load_recipe
from pipelines.contests import contest_of
from pipelines.estimates import Cost, Rates, cost_of, gather_rates, peak_of, stage_seconds
from pipelines.jobs import ENSEMBLE, Job, maker_of, weights_manifest, weights_to_make
from pipelines.rates import ENSEMBLES, shipped
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.simulation import Schedule, SimulatedJob, simulate
from pipelines.slots import Slots
from pipelines.workload import Workload, workloads

log = logging.getLogger(__name__)

HOUR, GB = 3600.0, 1e9
STEPS_KEPT = 0.5  # of a training: a checkpoint after each of two epochs


@dataclass(frozen=True)
class PlannedJob:
    """One job of a run, and what it takes if it is to do.

    Attributes
    ----------
    group
        Jobs that are told together: a task's base learner, else a stage.
    needs
        Names of the jobs that must be done before.
    kept_bytes, passing_bytes
        Disk that it leaves behind, and besides while it runs.
    basis
        What the seconds rest on.
    """

    name: str
    group: str
    done: bool
    needs: tuple[str, ...]
    seconds: float
    basis: str
    gpus: int = 0
    memory_gib: float = 0.0
    gpu_gib: float | None = None
    kept_bytes: float = 0.0
    passing_bytes: float = 0.0


def plan_run(
    run: RunFolder, settings: RunSettings, others: Sequence[RunFolder] = (), *, slots: Slots | None = None
) -> list[PlannedJob]:
    """All jobs of a run in their order, with estimates; nothing is written, and nothing but row counts is read.

    Leaderboard and submission are made every time. An ensemble counts as done where it is there and no part is to do.

    `others` are runs whose finished parts tell rates.

    Raises
    ------
    CompetitionError
        Unknown recipes or presets, no files, or a network whose shape nobody knows.
    """
    recipes = {learner_name(name): load_recipe(name, settings.overrides) for name in settings.recipes}
    get_preset(settings.cleaning)
    card = slots.card if slots and slots.n_gpus else None
    rates = gather_rates(run, settings, others, card=None if card is None else peak_of(card))
    work, contest = workloads(run, settings), contest_of(settings)
    n_rows = sum(one.n_rows for one in work)
    plan = [_stage("prepare", n_rows, rates, done=run.settings_file.is_file())]
    for one in work:
        fitting = _fitting(recipes, contest.task(one.task))
        sources = [other for other in work if other is not one]
        pretraining = _pretraining(run, settings, one, sources, fitting, rates)
        plan += _task_jobs(run, one, fitting, rates, pretraining)
    ensembles = tuple(job.name for job in plan if job.name.startswith(ENSEMBLES))
    plan.append(_stage("leaderboard", n_rows, rates, done=False, needs=ensembles))
    plan.append(_stage("submit", n_rows, rates, done=False, needs=ensembles))
    return plan


def _task_jobs(
    run: RunFolder,
    work: Workload,
    recipes: Mapping[str, Recipe],
    rates: Rates,
    pretraining: Mapping[str, PlannedJob],
) -> Iterator[PlannedJob]:
    """The jobs of a task; `pretraining` has by base learner those that make what it begins with."""
    split = f"split {work.task}"
    done = any(run.folds_folder(work.task).glob("*.json"))
    yield _stage("split", work.n_rows, rates, done=done, name=split, needs=("prepare",))
    yield from {job.name: job for job in pretraining.values()}.values()
    parts: list[PlannedJob] = []
    for name, recipe in recipes.items():
        begun_with = (pretraining[name].name,) if name in pretraining else ()
        parts += _parts(run, work, name, recipe, rates, needs=(split, *begun_with))
    yield from parts
    for name in ENSEMBLES:
        there = (run.ensemble(work.task, name) / MANIFEST).is_file() and all(job.done for job in parts)
        needs = tuple(job.name for job in parts)
        yield _stage(f"{name} {work.task}", work.n_train, rates, done=there, needs=needs)


def _pretraining(
    run: RunFolder,
    settings: RunSettings,
    work: Workload,
    sources: Sequence[Workload],
    recipes: Mapping[str, Recipe],
    rates: Rates,
) -> dict[str, PlannedJob]:
    """Base learner -> the job that makes the weights it begins with from all training rows of the other task.

    Rows that will be left out because they share a query with this task are counted: nobody has compared them yet.
    """
    found: dict[str, PlannedJob] = {}
    for learner, recipe in recipes.items():
        weights = weights_to_make(run, work.task, recipe, n_tasks=1 + len(sources), recipes=settings.recipes)
        maker = None if weights is None else maker_of(weights, settings.recipes)
        if weights is None or maker is None:
            continue
        cost = cost_of(learner_name(maker), load_recipe(maker, settings.overrides), sources[0].as_one_training(), rates)
        name = f"pretrain {work.task}/{weights}"
        done = weights_manifest(run, work.task, weights).is_file()
        found[learner] = _costed(cost, name, name, done=done, needs=(f"split {work.task}",))
    return found


def _fitting(recipes: Mapping[str, Recipe], task: Task) -> dict[str, Recipe]:
    """The recipes that can serve a task."""
    from pipelines.backbones import applies

    return {name: recipe for name, recipe in recipes.items() if applies(recipe, task)}


def _parts(
    run: RunFolder, work: Workload, learner: str, recipe: Recipe, rates: Rates, *, needs: tuple[str, ...]
) -> list[PlannedJob]:
    cost = cost_of(learner, recipe, work, rates)
    keys = [PartKey(work.task, learner, fold) for fold in range(work.folds)]
    done = [run.parts.is_finished(key) for key in keys]
    first = None if any(done) else keys[0]
    dearer = replace(cost, seconds=cost.seconds + cost.first_seconds)
    group = f"train {work.task}/{learner}"
    return [
        _costed(dearer if key == first else cost, f"train {key}", group, done=there, needs=needs)
        for key, there in zip(keys, done, strict=True)
    ]


def _costed(cost: Cost, name: str, group: str, *, done: bool, needs: tuple[str, ...]) -> PlannedJob:
    return PlannedJob(
        name=name,
        group=group,
        done=done,
        needs=needs,
        seconds=cost.seconds,
        basis=cost.basis,
        gpus=cost.gpus,
        memory_gib=cost.memory_gib,
        gpu_gib=cost.gpu_gib,
        kept_bytes=cost.kept_bytes,
        passing_bytes=cost.passing_bytes,
    )


def _stage(
    stage: str, size: float, rates: Rates, *, done: bool, needs: tuple[str, ...] = (), name: str = ""
) -> PlannedJob:
    seconds, basis = stage_seconds(stage, size, rates)
    return PlannedJob(name or stage, stage, done, needs, seconds, basis)


def expected(run: RunFolder, settings: RunSettings, jobs: Sequence[Job]) -> dict[str, PlannedJob]:
    """What is planned of jobs, by name; empty where nobody can estimate."""
    try:
        plan = {job.name: job for job in plan_run(run, settings)}
    except CompetitionError as error:
        log.info("nobody knows how long jobs take, nor how much memory: %s", error)
        return {}
    names = {job.name: planned_name(job) for job in jobs}
    return {name: plan[planned] for name, planned in names.items() if planned in plan}


def planned_name(job: Job) -> str:
    """What a job of the run's graph is called in the plan."""
    if job.kind == ENSEMBLE:
        return f"{job.learner} {job.task}"
    fold = "" if job.fold is None else f"/fold-{job.fold}"
    return f"{job.kind} {job.task}/{job.learner}{fold}"


def schedule_of(plan: Sequence[PlannedJob], slots: Slots) -> Schedule:
    """The simulated schedule of the jobs that are to do; with several workers each job starts a process."""
    todo = [job for job in plan if not job.done]
    names = {job.name for job in todo}
    start = shipped().start_seconds if slots.workers > 1 else 0.0
    return simulate(
        [
            SimulatedJob(
                name=job.name,
                seconds=job.seconds + start,
                gpus=job.gpus,
                needs=tuple(name for name in job.needs if name in names),
                checkpoint_seconds=max(job.seconds * STEPS_KEPT, 1.0),
            )
            for job in todo
        ],
        slots.nodes,
    )


def plan_table(plan: Sequence[PlannedJob]) -> pd.DataFrame:
    """A line per job: job, state (done or to do), and of those to do hours, GPU-hours, memory, disk and basis."""
    return pd.DataFrame(
        [
            {
                "job": job.name,
                "state": "done" if job.done else "to do",
                **({} if job.done else _figures([job])),
                "memory_gib": None if job.done else round(job.memory_gib, 2),
                "gpu_gib": None if job.done or job.gpu_gib is None else round(job.gpu_gib, 1),
                "basis": None if job.done else job.basis,
            }
            for job in plan
        ],
        columns=["job", "state", "hours", "gpu_hours", "disk_gb", "memory_gib", "gpu_gib", "basis"],
    )


def group_table(plan: Sequence[PlannedJob]) -> pd.DataFrame:
    """A line per group of jobs (a task's base learner, or a stage), and one for all: folds, hours, disk and basis."""
    groups: dict[str, list[PlannedJob]] = {}
    for job in plan:
        groups.setdefault(job.group, []).append(job)
    lines = [_group_line(name, jobs) for name, jobs in groups.items()]
    return pd.DataFrame([*lines, _group_line("all", list(plan))])


def _group_line(name: str, jobs: Sequence[PlannedJob]) -> dict[str, object]:
    todo = [job for job in jobs if not job.done]
    bases = dict.fromkeys(job.basis for job in todo)
    return {
        "jobs": name,
        "done": len(jobs) - len(todo),
        "to_do": len(todo),
        **_figures(todo),
        "passing_gb": round(max((job.passing_bytes for job in todo), default=0.0) / GB, 3),
        "basis": ", ".join(bases) or None,
    }


def _figures(jobs: Sequence[PlannedJob]) -> dict[str, float]:
    return {
        "hours": round(sum(job.seconds for job in jobs) / HOUR, 4),
        "gpu_hours": round(sum(job.seconds * job.gpus for job in jobs) / HOUR, 4),
        "disk_gb": round(sum(job.kept_bytes for job in jobs) / GB, 4),
    }


def other_runs(roots: Sequence[Path]) -> list[RunFolder]:
    """The runs that rates are taken from; a folder that is no run is refused."""
    runs = [RunFolder(root) for root in roots]
    for run in runs:
        run.settings()
    return runs
