"""What a run will take, before it begins: its jobs with hours, memory and disk, and the wall time of them all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from competition.cleaning import get_preset
from competition.errors import CompetitionError
from competition.tasks import Task
from oof.store import PartKey
from pipelines.config import Recipe, learner_name, load_recipe
from pipelines.contests import contest_of
from pipelines.estimates import Rates, cost_of, gather_rates, peak_of, stage_seconds
from pipelines.rates import ENSEMBLES, shipped
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.simulation import Node, Schedule, SimulatedJob, simulate
from pipelines.workload import Workload, workloads

GPUS_OF_A_NODE = 8
HOUR, GB = 3600.0, 1e9
STEPS_KEPT = 0.5  # of a training: a checkpoint after each of two epochs


@dataclass(frozen=True)
class Slots:
    """Where the jobs would run: so many at a time, on so many GPUs of one kind."""

    workers: int = 1
    card: str | None = None
    n_gpus: int = 0

    @property
    def nodes(self) -> list[Node]:
        """Machines of up to `GPUS_OF_A_NODE` GPUs, which share the workers."""
        if not self.n_gpus:
            return [Node(cpus=self.workers)]
        counts = [min(GPUS_OF_A_NODE, self.n_gpus - i) for i in range(0, self.n_gpus, GPUS_OF_A_NODE)]
        return [Node(cpus=max(1, self.workers // len(counts)), gpus=count) for count in counts]


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
        plan += _task_jobs(run, one, _fitting(recipes, contest.task(one.task)), rates)
    ensembles = tuple(job.name for job in plan if job.name.startswith(ENSEMBLES))
    plan.append(_stage("leaderboard", n_rows, rates, done=run.leaderboard_file.is_file(), needs=ensembles))
    plan.append(_stage("submit", n_rows, rates, done=run.submission("final").is_dir(), needs=ensembles))
    return plan


def _task_jobs(run: RunFolder, work: Workload, recipes: Mapping[str, Recipe], rates: Rates) -> Iterator[PlannedJob]:
    split = f"split {work.task}"
    done = any(run.folds_folder(work.task).glob("*.json"))
    yield _stage("split", work.n_rows, rates, done=done, name=split, needs=("prepare",))
    parts = [job for name, recipe in recipes.items() for job in _parts(run, work, name, recipe, rates, needs=(split,))]
    yield from parts
    for name in ENSEMBLES:
        there = (run.ensemble(work.task, name) / "manifest.json").is_file()
        needs = tuple(job.name for job in parts)
        yield _stage(f"{name} {work.task}", work.n_train, rates, done=there, needs=needs)


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
    return [
        PlannedJob(
            name=f"train {key}",
            group=f"train {work.task}/{learner}",
            done=there,
            needs=needs,
            seconds=cost.seconds + cost.first_seconds * (key == first),
            basis=cost.basis,
            gpus=cost.gpus,
            memory_gib=cost.memory_gib,
            gpu_gib=cost.gpu_gib,
            kept_bytes=cost.kept_bytes,
            passing_bytes=cost.passing_bytes,
        )
        for key, there in zip(keys, done, strict=True)
    ]


def _stage(
    stage: str, size: float, rates: Rates, *, done: bool, needs: tuple[str, ...] = (), name: str = ""
) -> PlannedJob:
    seconds, basis = stage_seconds(stage, size, rates)
    return PlannedJob(name or stage, stage, done, needs, seconds, basis)


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


def slots_here(workers: int, gpus: str | None) -> Slots:
    """The slots that options ask for: ``NAME:COUNT`` of GPUs, or those of this machine."""
    from pipelines.cards import gpu_names

    if gpus:
        name, _, number = gpus.partition(":")
        if not name or (number and not number.isdecimal()) or number == "0":
            raise CompetitionError(f"--gpus {gpus!r} is not NAME:COUNT", advice="write for example --gpus H100:8")
        return Slots(max(workers, int(number or 1)), name, int(number or 1))
    found = gpu_names()
    return Slots(workers, found[0] if found else None, len(found))


def other_runs(roots: Sequence[Path]) -> list[RunFolder]:
    """The runs that rates are taken from; a folder that is no run is refused."""
    runs = [RunFolder(root) for root in roots]
    for run in runs:
        run.settings()
    return runs
