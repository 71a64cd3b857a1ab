"""The pre-training stage: a network trained on other rows first, and kept with a trail of what it has seen."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from competition.artefacts import MANIFEST, PROVENANCE, finish, heal, is_finished, partial
from competition.errors import CompetitionError, Fault, MismatchError
from competition.json_files import read_json
from competition.leaks import Dropped, refuse_leak, trail_of, without_held_out
from competition.parquet_files import Kind, read_frame
from competition.tasks import Task
from oof.store import PartKey
from pipelines.config import (
    TRANSFORMERS,
    CrossEncoderRecipe,
    Recipe,
    digest_values,
    learner_name,
    load_recipe,
    recipe_values,
)
from pipelines.extra_rows import extra_digests
from pipelines.locks import alone
from pipelines.progress import available_threads
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder, digest_model_rows, without_labels
from pipelines.scratch import scratch_of
from pipelines.weights import cache_dir

log = logging.getLogger(__name__)

WEIGHTS, TRAIL = "weights", "trail.parquet"
TRAIL_COLUMNS: dict[str, Kind] = {"task": "text", "id": "id", "query": "text", "query_en": "text"}
MAKE_AGAIN = "delete the folder, and run the same `relstack pretrain` again"
ALL_FOLDS = "all"
SUPERVISED, MASKED = "supervised", "masked-lm"


@dataclass(frozen=True)
class Pretraining:
    """What is asked for: weights for fold training of `task`, trained on the rows of another one.

    Attributes
    ----------
    name
        The artefact's name, for recipes' ``init_from`` and for `parent`.
    task
        The task whose held-out rows must stay unseen.
    on
        The task whose training rows are learned from (``masked-lm``: its texts and those of dev and test).
    recipe
        Name or path of the recipe.
    objective
        ``supervised`` or ``masked-lm`` (Devlin et al. 2019).
    fold
        For this fold of `task` only: rows that share a query with its held-out rows are dropped. Without a fold, rows
        that share one with any training row of `task` are, and one artefact serves all folds.
    parent
        The artefact to begin with: a chain.
    """

    name: str
    task: str
    on: str
    recipe: str
    objective: str = SUPERVISED
    fold: int | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """A finished artefact.

    Attributes
    ----------
    digest
        Of what it was made from, the same for all folds of one name.
    """

    folder: Path
    digest: str

    @property
    def weights(self) -> Path:
        """What `Workspace.init` takes."""
        return self.folder / WEIGHTS

    @property
    def trail(self) -> pd.DataFrame:
        """Every row that any training of the chain has seen."""
        return read_frame(self.folder / TRAIL, TRAIL_COLUMNS, what="the trail of pretrained weights", advice=MAKE_AGAIN)


def find_pretrained(run: RunFolder, name: str, *, task: str, fold: int | None) -> Pretrained:
    """The artefact of this name that serves a fold of a task, or all of them.

    Raises
    ------
    CompetitionError
        There is none; the command that makes it is named.
    """
    parts = [ALL_FOLDS] if fold is None else [f"fold-{fold}", ALL_FOLDS]
    tried = [run.pretrained(task, name) / part for part in parts]
    for folder in tried:
        if is_finished(folder):
            return Pretrained(folder, _read_manifest(folder)["digest"])
    raise CompetitionError(
        f"no pretrained weights for {task} are called {name!r}",
        faults=[Fault(str(folder), f"no finished {MANIFEST}") for folder in tried],
        advice=f"make them: relstack pretrain --run {run.root} --task {task} --model RECIPE --name {name}",
    )


def pretrain(run: RunFolder, asked: Pretraining, *, overrides: Sequence[str] = ()) -> Path:
    """The folder of a finished artefact: weights, the trail of rows seen, a manifest; one that is there is left alone.

    Raises
    ------
    CompetitionError
        The recipe is of a kind that cannot be continued, or nothing is left to learn from.
    MismatchError
        An artefact of that name was made from something else.
    """
    recipe = load_recipe(asked.recipe, (*run.settings().overrides, *overrides))
    _refuse_unfit(run, asked, recipe)
    made_of = _made_of(run, asked, recipe)
    folder = run.pretrained(asked.task, asked.name) / (ALL_FOLDS if asked.fold is None else f"fold-{asked.fold}")
    with alone(folder):
        heal(folder)
        if is_finished(folder):
            _refuse_other(folder, made_of)
            log.info("pretrained weights %s are there already", folder)
            return folder
        return _make(run, asked, recipe, folder=folder, made_of=made_of)


def source_task(run: RunFolder, task: str, on: str | None) -> str:
    """The task to learn from: the one named, or the run's only other one.

    Raises
    ------
    CompetitionError
        None is named and there is not exactly one other.
    """
    others = [other.name for other in run.tasks() if other.name != task]
    if on is None and len(others) != 1:
        raise CompetitionError(
            f"besides {task} the run has {', '.join(others) or 'no task'}", advice="name the task to learn from: --on"
        )
    return on or others[0]


def held_out_rows(run: RunFolder, task: str, fold: int | None) -> pd.DataFrame:
    """The training rows of a task that a fold holds out; all of them without a fold."""
    train = run.rows(task)["train"]
    if fold is None:
        return train
    folds = run.folds(task).align(train)
    if fold not in set(folds):
        raise CompetitionError(f"{task} has no fold {fold}", advice=f"name one of 0 to {int(folds.max())}")
    return train[(folds == fold).to_numpy()]


def origin_values(run: RunFolder, recipe: Recipe, key: PartKey) -> dict[str, Any]:
    """The recipe as a part's origin keeps it, with the digests of what it names besides the fold's rows.

    That is pretrained weights, other tasks' rows, pseudo-labels. What is not there is refused.
    """
    values = recipe_values(recipe)
    if values.get("init_from"):
        values["init_digest"] = find_pretrained(run, values["init_from"], task=key.task, fold=key.fold).digest
    if recipe.extra is not None:
        values["extra_digests"] = extra_digests(run, key.task, recipe.extra)
    if values.get("joint"):
        others = [task.name for task in run.tasks() if task.name != key.task]
        values["joint_rows"] = {name: digest_model_rows(run.rows(name)["train"]) for name in others}
    return values


def begin_from(run: RunFolder, init_from: str, *, task: str, fold: int, held_out: pd.DataFrame) -> Pretrained:
    """The artefact that a fold's training begins with, proven not to have seen the held-out rows."""
    found = find_pretrained(run, init_from, task=task, fold=fold)
    refuse_leak(found.trail, held_out, task=task, what=f"{init_from}/{found.folder.name}")
    return found


def other_tasks(
    run: RunFolder, task: str, held_out: pd.DataFrame
) -> tuple[dict[Task, pd.DataFrame], dict[str, Dropped]]:
    """Training rows of the run's other tasks that share no query with the held-out rows, and what was dropped."""
    rows, dropped = {}, {}
    for other in run.tasks():
        if other.name != task:
            train = run.rows(other.name)["train"]
            rows[other], dropped[other.name] = without_held_out(train, held_out, same_task=False)
            tell_dropped(other.name, dropped[other.name], len(train))
    if not rows:
        raise CompetitionError("a recipe with `joint` needs another task in the run", advice="leave joint out")
    return rows, dropped


def tell_dropped(task: str, dropped: Dropped, n_rows: int) -> None:
    """Log what the leak check left out of a task's rows."""
    log.info(
        "%s: of %s rows, %s held-out rows and %s rows with a query of theirs are left out",
        task, f"{n_rows:,}", f"{dropped.by_id:,}", f"{dropped.by_query:,}",
    )  # fmt: skip


def _make(run: RunFolder, asked: Pretraining, recipe: Recipe, *, folder: Path, made_of: Mapping[str, Any]) -> Path:
    from pipelines.backbones.masked_lm import pretrain_masked
    from pipelines.backbones.protocol import Corpus, Workspace
    from pipelines.launch import fit_and_score

    started, began = now(), time.perf_counter()
    rows, held_out = run.rows(asked.on), held_out_rows(run, asked.task, asked.fold)
    kept, dropped = without_held_out(rows["train"], held_out, same_task=asked.on == asked.task)
    if asked.on == asked.task and asked.fold is not None:  # no more than the fold's own training
        trained = run.folds(asked.task).training_rows(asked.fold, rows["train"])
        kept = kept[kept["id"].isin(rows["train"]["id"][trained])]
    tell_dropped(asked.on, dropped, len(rows["train"]))
    if kept["label"].nunique() < 2:
        raise CompetitionError(
            f"{asked.on}: {len(kept):,} rows are left to learn from, not of both labels",
            advice=f"leave fewer out: --every-fold, or --fold K; or train on another task than {asked.task}",
        )
    trail, init = trail_of(kept, asked.on).assign(step=asked.name), None
    if asked.parent is not None:
        parent = find_pretrained(run, asked.parent, task=asked.task, fold=asked.fold)
        refuse_leak(parent.trail, held_out, task=asked.task, what=asked.parent)
        trail, init = pd.concat([parent.trail, trail], ignore_index=True), parent.weights
    work = partial(folder)
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=scratch_of(work, made_of),
        corpus=Corpus.of(without_labels(frame) for frame in (kept, *(rows[s] for s in rows if s != "train"))),
        seed=run.settings().seed,
        threads=available_threads(),
        init=init,
    )
    if asked.objective == MASKED:
        assert isinstance(recipe, CrossEncoderRecipe), "other kinds were refused"
        pretrain_masked(recipe, space, run.task(asked.on), work / WEIGHTS)
    else:
        fit_and_score(recipe, run.task(asked.on), space, train=kept, unseen={}).save(work / WEIGHTS)
    trail.to_parquet(work / TRAIL, index=False)
    counts = {"n_rows": len(kept), "dropped": asdict(dropped), "seconds": round(time.perf_counter() - began, 1)}
    return finish(work, folder, {**made_of, **counts, PROVENANCE: provenance(seed=space.seed, started=started)})


def _made_of(run: RunFolder, asked: Pretraining, recipe: Recipe) -> dict[str, Any]:
    """All that decides over the weights; the fold is not part of the digest, so that a name's folds agree."""
    parent = None
    if asked.parent is not None:
        parent = find_pretrained(run, asked.parent, task=asked.task, fold=asked.fold).digest
    values = {
        "task": asked.task,
        "on": asked.on,
        "objective": asked.objective,
        "per_fold": asked.fold is not None,
        "recipe": recipe_values(recipe),
        "parent": parent,
        "rows": {split: digest_model_rows(frame) for split, frame in run.rows(asked.on).items()},
        "folds": run.folds(asked.task).digest,
        "seed": run.settings().seed,
    }
    return {**values, "fold": asked.fold, "step": asked.name, "digest": digest_values(values)}


def _refuse_unfit(run: RunFolder, asked: Pretraining, recipe: Recipe) -> None:
    faults = []
    if not isinstance(recipe, TRANSFORMERS):
        faults.append(Fault(learner_name(asked.recipe), f"kind {recipe.kind}", "a transformer that is trained"))
    elif recipe.extra is not None:
        faults.append(Fault(learner_name(asked.recipe), "extra", "no extra rows: they are made for fold training"))
    elif asked.objective == MASKED and (recipe.kind != "cross_encoder" or recipe.training.lora):
        faults.append(Fault(learner_name(asked.recipe), "not an encoder trained as a whole", "kind cross_encoder"))
    known = {task.name for task in run.tasks()}
    faults += [
        Fault(what, f"no task {name!r} in this run", f"one of {', '.join(sorted(known))}")
        for what, name in (("--task", asked.task), ("--on", asked.on))
        if name not in known
    ]
    other = run.pretrained(asked.task, asked.name)
    clash = [path.parent.name for path in other.glob(f"*/{MANIFEST}")]
    if asked.fold is None and any(part != ALL_FOLDS for part in clash):
        faults.append(Fault(asked.name, "has weights for single folds", "another --name"))
    if asked.fold is not None and ALL_FOLDS in clash:
        faults.append(Fault(asked.name, "has weights for all folds", "another --name"))
    if faults:
        raise CompetitionError("this pre-training cannot be", faults=faults)


def _read_manifest(folder: Path) -> dict[str, Any]:
    what = f"the manifest of pretrained weights {folder.parent.name}"
    return read_json(folder / MANIFEST, {"digest": str}, what=what, advice=MAKE_AGAIN)


def _refuse_other(folder: Path, made_of: Mapping[str, Any]) -> None:
    had = _read_manifest(folder)
    faults = [Fault(key, f"{value!r}", f"{had.get(key)!r}, as it was made") for key, value in made_of.items()
              if json.loads(json.dumps(value)) != had.get(key)]  # fmt: skip
    if faults:
        raise MismatchError(
            f"pretrained weights {folder.parent.name} were made differently",
            faults=faults,
            advice="give these another --name",
        )
