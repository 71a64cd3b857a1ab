"""The jobs of a run: what each one calls, needs and leaves behind. Where they run is the matter of `pipelines.engines`.

A job is a call of the command line and the one file whose presence is its success. Jobs know each other by name.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oof.store import MANIFEST, PartKey
from pipelines.config import TRANSFORMERS, Recipe, learner_name, recipe_names
from pipelines.ensembling import DEFAULTS
from pipelines.footprint import gpus_of
from pipelines.pretraining import ALL_FOLDS
from pipelines.run_folder import RunFolder
from pipelines.train import part_keys

PRETRAIN, TRAIN, ENSEMBLE = "pretrain", "train", "ensemble"
MADE_BY_DEFAULT = "-tapt"  # `relstack pretrain --model MODEL` calls its weights MODEL-tapt


@dataclass(frozen=True)
class Resources:
    """What a job takes of a machine.

    Attributes
    ----------
    cpus
        Threads that it computes with.
    gpus
        GPUs that it takes, all of one machine; where there are none, it works on CPUs.
    memory_gib
        Main memory that is kept free for it; None keeps none.
    """

    cpus: int = 1
    gpus: int = 0
    memory_gib: float | None = None


@dataclass(frozen=True)
class Job:
    """One piece of work of a run.

    Attributes
    ----------
    name
        Its name in the run, and that of its files below ``logs/``.
    argv
        Arguments of ``relstack``.
    manifest
        The file whose presence is the only success.
    needs
        Names of the jobs that must be done before.
    kind
        ``pretrain``, ``train`` or ``ensemble``.
    learner
        The base learner, the ensemble or the pretrained weights that it makes.
    """

    name: str
    argv: tuple[str, ...]
    manifest: Path
    needs: tuple[str, ...]
    resources: Resources
    kind: str
    task: str
    learner: str
    fold: int | None = None

    @property
    def done(self) -> bool:
        """Whether its manifest is there."""
        return self.manifest.is_file()

    @property
    def part(self) -> PartKey:
        """The part that a job of kind ``train`` makes."""
        assert self.fold is not None, "other kinds make no part"
        return PartKey(self.task, self.learner, self.fold)

    @property
    def command(self) -> str:
        """The command that does it."""
        return shlex.join(("relstack", *self.argv))


def job_name(kind: str, task: str, learner: str, fold: int | None = None) -> str:
    """The name of a job, which is a file name too.

    Examples
    --------
    >>> job_name("train", "QC", "e5-bi", 2)
    'train.QC.e5-bi.fold-2'
    >>> job_name("ensemble", "QC", "stack")
    'ensemble.QC.stack'
    """
    return ".".join([kind, task, learner, *([] if fold is None else [f"fold-{fold}"])])


def job_graph(run: RunFolder, tasks: Sequence[str], recipes: Sequence[str], *, cpus: int = 1) -> list[Job]:
    """All jobs of a run that is prepared and split, each after those that it needs; done ones are among them.

    `recipes` are recorded in the run. Each job computes with `cpus` threads.
    """
    graph: list[Job] = []
    for task in tasks:
        keys = part_keys(run, [task], recipes)
        train = [job for recipe in recipes for job in _train_jobs(run, recipe, keys, cpus=cpus)]
        graph += [*_pretrain_jobs(run, task, train), *train]
        if train:
            graph += [_ensemble_job(run, task, name, train, cpus=cpus) for name in DEFAULTS]
    return graph


def _train_jobs(run: RunFolder, recipe: str, keys: Sequence[PartKey], *, cpus: int) -> list[Job]:
    """The jobs of those parts that the recipe's base learner makes."""
    learner = learner_name(recipe)
    mine = [key for key in keys if key.learner == learner]
    if not mine:
        return []
    task, resources = mine[0].task, Resources(cpus, gpus_of(run.recipe(learner)))
    weights = made_weights(run, task, learner)
    needs = () if weights is None else (job_name(PRETRAIN, task, weights),)
    return [
        Job(
            name=job_name(TRAIN, task, learner, key.fold),
            argv=(TRAIN, "--run", str(run.root), "--task", task, "--model", recipe, "--fold", str(key.fold)),
            manifest=run.parts.folder(key) / MANIFEST,
            needs=needs,
            resources=resources,
            kind=TRAIN,
            task=task,
            learner=learner,
            fold=key.fold,
        )
        for key in mine
    ]


def made_weights(run: RunFolder, task: str, learner: str) -> str | None:
    """The pretrained weights that a base learner of the run begins with, if a job of the run can make them."""
    return weights_to_make(run, task, run.recipe(learner), n_tasks=len(run.tasks()), recipes=run.settings().recipes)


def weights_to_make(run: RunFolder, task: str, recipe: Recipe, *, n_tasks: int, recipes: Sequence[str]) -> str | None:
    """The pretrained weights that a recipe begins with, if a job can make them in a run of `n_tasks` and `recipes`.

    That is so where they are called as ``relstack pretrain`` calls them, after a recipe that there is, and the run has
    exactly one other task to learn from. Weights that were made by hand are nobody's job.
    """
    name = recipe.init_from if isinstance(recipe, TRANSFORMERS) else None
    if name is None or not name.endswith(MADE_BY_DEFAULT) or n_tasks != 2:
        return None
    by_hand = [path for path in run.pretrained(task, name).glob(f"*/{MANIFEST}") if path.parent.name != ALL_FOLDS]
    return None if by_hand or maker_of(name, recipes) is None else name


def maker_of(weights: str, recipes: Sequence[str]) -> str | None:
    """The recipe that weights are called after: one of `recipes`, or one that comes with relstack."""
    known = {**{name: name for name in recipe_names()}, **{learner_name(name): name for name in recipes}}
    return known.get(weights.removesuffix(MADE_BY_DEFAULT))


def weights_manifest(run: RunFolder, task: str, weights: str) -> Path:
    """The file whose presence says that a job has made the weights."""
    return run.pretrained(task, weights) / ALL_FOLDS / MANIFEST


def _pretrain_jobs(run: RunFolder, task: str, train: Sequence[Job]) -> list[Job]:
    """A job for each of the pretrained weights that `train` begins with; it takes what those jobs take."""
    learners = {job.learner: job.resources for job in train if job.needs}
    wanted = {made_weights(run, task, learner): resources for learner, resources in learners.items()}
    return [_pretrain_job(run, task, name, resources) for name, resources in wanted.items() if name is not None]


def _pretrain_job(run: RunFolder, task: str, weights: str, resources: Resources) -> Job:
    recipe = maker_of(weights, run.settings().recipes)
    assert recipe is not None, "other weights are nobody's job"
    return Job(
        name=job_name(PRETRAIN, task, weights),
        argv=(PRETRAIN, "--run", str(run.root), "--task", task, "--model", recipe, "--name", weights),
        manifest=weights_manifest(run, task, weights),
        needs=(),
        resources=resources,
        kind=PRETRAIN,
        task=task,
        learner=weights,
    )


def _ensemble_job(run: RunFolder, task: str, name: str, train: Sequence[Job], *, cpus: int) -> Job:
    learners = ",".join(dict.fromkeys(job.learner for job in train))
    return Job(
        name=job_name(ENSEMBLE, task, name),
        argv=(ENSEMBLE, "make", "--run", str(run.root), "--task", task, "--name", name, "--models", learners),
        manifest=run.ensemble(task, name) / MANIFEST,
        needs=tuple(job.name for job in train),
        resources=Resources(cpus),
        kind=ENSEMBLE,
        task=task,
        learner=name,
    )
