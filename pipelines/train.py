"""The training stage: one base learner, one fold, one part; and the list of all parts of a run."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from competition.artefacts import heal
from competition.errors import CompetitionError, MismatchError
from competition.fold_store import Folds
from competition.metrics import auc
from competition.tasks import Task
from oof.store import Origin, PartKey, PartManifest
from oof.threshold import best_threshold
from pipelines.augmenting import augmented, neighbour_space
from pipelines.config import TRANSFORMERS, Recipe, learner_name, load_recipe, recipe_values
from pipelines.extra_rows import with_extra_rows
from pipelines.locks import alone
from pipelines.pretraining import begin_from, origin_values, other_tasks
from pipelines.progress import available_threads
from pipelines.provenance import now, provenance, versions
from pipelines.run_folder import RunFolder, without_labels
from pipelines.scratch import scratch_of
from pipelines.trackers import is_tracked, log_metrics, tracked
from pipelines.weights import cache_dir

if TYPE_CHECKING:
    from pipelines.backbones.protocol import Corpus, Workspace

log = logging.getLogger(__name__)


def part_keys(run: RunFolder, tasks: Sequence[str], recipes: Sequence[str]) -> list[PartKey]:
    """The parts to make: every task, base learner and fold; recipes that cannot serve a task are left out."""
    from pipelines.backbones import applies

    wanted: list[PartKey] = []
    for task in tasks:
        folds = range(run.folds(task).plan.n_splits)
        for name in recipes:
            learner = learner_name(name)
            if not applies(run.recipe(learner), run.task(task)):
                log.info("%s: recipe %s needs a category path as target and is left out", task, learner)
                continue
            wanted += [PartKey(task, learner, fold) for fold in folds]
    return wanted


def job_table(run: RunFolder) -> pd.DataFrame:
    """One line per task and base learner of the run: folds done, folds to do, rows per second."""
    lines = []
    for task in run.tasks():
        recipes = run.settings().recipes
        for learner in dict.fromkeys([*map(learner_name, recipes), *run.parts.learners(task.name)]):
            keys = part_keys(run, [task.name], [learner])
            done = [key for key in keys if run.parts.is_finished(key)]
            rates = [run.parts.manifest(key).rows_per_second for key in done]
            missing = [str(key.fold) for key in keys if key not in done]
            lines.append(
                {
                    "task": task.name,
                    "model": learner,
                    "folds_done": len(done),
                    "folds_to_do": ",".join(missing),
                    "rows_per_second": float(np.mean(rates)) if rates else None,
                }
            )
    return pd.DataFrame(lines)


def train(run: RunFolder, key: PartKey) -> Path:
    """The finished part: a base learner fitted without fold `key.fold`, its scores of that fold, dev and test.

    A finished part is left as it is. The backbone never receives the held-out rows, nor labels of dev or test.

    Raises
    ------
    MismatchError
        The part is there but was made from other rows, folds or another recipe; the differences are named.
    """
    from pipelines.backbones import applies

    task, recipe = run.task(key.task), run.recipe(key.learner)
    check_part(run, key)
    if run.parts.is_finished(key):
        log.info("part %s is there already", key)
        return run.parts.folder(key)
    origin = run.origin(key.task, origin_values(run, recipe, key))
    if not applies(recipe, task):
        raise CompetitionError(
            f"recipe {key.learner} needs a category path as target; {key.task} has none",
            advice="train it for a task with category paths, or another recipe: --model lexical",
        )
    rows, folds = run.rows(key.task), run.folds(key.task)
    folds.training_rows(key.fold, rows["train"])  # refuses other rows and absent folds before work begins
    with alone(run.parts.folder(key)):
        heal(run.parts.folder(key))
        if run.parts.is_finished(key):
            _refuse_other_origin(run, key, origin)
            return run.parts.folder(key)
        with tracked(run, str(key), {"recipe": recipe_values(recipe), "fold": key.fold, "seed": origin.seed}):
            folder = _make(run, key, task, recipe, rows=rows, folds=folds, origin=origin)
            if is_tracked():
                log_metrics(part_metrics(run, key, rows["train"]))
        return folder


def part_metrics(run: RunFolder, key: PartKey, rows: pd.DataFrame) -> dict[str, float]:
    """What trackers are told of a part: seconds, rows per second, and how well its fold is scored.

    ``fold_f1`` is the F1 at the fold's own best cut, which flatters; the leaderboard's is not.
    """
    manifest, scores = run.parts.manifest(key), run.parts.read(key, "oof")
    labels = rows.set_index("id")["label"].reindex(scores.index)
    return {
        "fit_seconds": manifest.fit_seconds,
        "predict_seconds": manifest.predict_seconds,
        "rows_per_second": manifest.rows_per_second,
        "fold_f1": best_threshold(labels, scores).f1,
        "fold_auc": auc(labels, scores),
    }


def check_part(run: RunFolder, key: PartKey) -> None:
    """Refuse a finished part that was made differently, and one to make whose ingredients are not there.

    Raises
    ------
    MismatchError
        See `train`.
    CompetitionError
        Pretrained weights or extra rows that the recipe names are missing.
    """
    values = origin_values(run, run.recipe(key.learner), key)
    if run.parts.is_finished(key):
        _refuse_other_origin(run, key, run.origin(key.task, values))


def record_recipes(run: RunFolder, names: Sequence[str], overrides: Sequence[str]) -> None:
    """Record base learners and overrides in the run, unless finished parts were made by other recipes of their name.

    Raises
    ------
    MismatchError
        A part, of whatever task and fold, was made differently; nothing is recorded then.
    """
    settings = run.settings()
    if set(names) <= set(settings.recipes) and set(overrides) <= set(settings.overrides):
        return
    recipes = {learner_name(name): run.recipe(learner_name(name), overrides) for name in settings.recipes}
    recipes |= {learner_name(name): load_recipe(name, (*settings.overrides, *overrides)) for name in names}
    for learner, recipe in recipes.items():
        for task in run.tasks():
            for fold in range(run.folds(task.name).plan.n_splits if learner in run.parts.learners(task.name) else 0):
                key = PartKey(task.name, learner, fold)
                if run.parts.is_finished(key):
                    _refuse_other_origin(run, key, run.origin(task.name, origin_values(run, recipe, key)))
    run.add_recipes(names, overrides)


def _make(
    run: RunFolder,
    key: PartKey,
    task: Task,
    recipe: Recipe,
    *,
    rows: dict[str, pd.DataFrame],
    folds: Folds,
    origin: Origin,
) -> Path:
    from pipelines.backbones.protocol import Workspace
    from pipelines.launch import fit_and_score

    started = now()
    scratch = scratch_of(run.parts.workdir(key), asdict(origin))
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=scratch,
        corpus=_corpus(run, task.name, origin.rows.values()),
        seed=run.settings().seed,
        threads=available_threads(),
        tables=run.tables(task.name),
    )
    held_out = rows["train"][(folds.align(rows["train"]) == key.fold).to_numpy()]
    space, prior = _with_prior(space, run, recipe, key=key, held_out=held_out)
    own = folds.with_groups(rows["train"])[folds.training_rows(key.fold, rows["train"])]
    train = augmented(own, recipe.augment, task, seed=space.seed, space=neighbour_space(recipe.augment, space))
    if train is not own:
        prior["augment"] = {"rows": len(own), "became": len(train)}
    if recipe.extra is not None:
        train, prior["extra"] = with_extra_rows(run, train, recipe.extra, key)
    unseen = {"oof": held_out, **{name: frame for name, frame in rows.items() if name != "train"}}
    fitted = fit_and_score(
        recipe,
        task,
        space,
        train=train,
        unseen={name: without_labels(frame) for name, frame in unseen.items()},
    )
    scores = {name: _scored(fitted.scores[name], frame) for name, frame in unseen.items()}
    manifest = PartManifest(
        task=key.task,
        learner=key.learner,
        fold=key.fold,
        origin=origin,
        n_oof=len(held_out),
        n_scored=sum(len(frame) for frame in scores.values()),
        fit_seconds=round(fitted.fit_seconds, 3),
        predict_seconds=round(fitted.predict_seconds, 3),
        device=str(fitted.details.get("device", "cpu")),
        versions=versions(),
        details={**fitted.details, **prior, "rows_withheld": folds.n_withheld(key.fold)},
        provenance=provenance(seed=space.seed, started=started),
    )
    folder = run.parts.write(manifest, scores, save_weights=fitted.save)
    log.info("part %s: fitted in %.1f s, scored %s rows in %.1f s",
             key, manifest.fit_seconds, f"{manifest.n_scored:,}", manifest.predict_seconds)  # fmt: skip
    return folder


def _with_prior(
    space: "Workspace", run: RunFolder, recipe: Recipe, *, key: PartKey, held_out: pd.DataFrame
) -> tuple["Workspace", dict[str, Any]]:
    """The workspace with what the recipe learns from besides the fold's rows, and what the manifest says of it."""
    prior: dict[str, Any] = {}
    if not isinstance(recipe, TRANSFORMERS):
        return space, prior
    if recipe.init_from:
        found = begin_from(run, recipe.init_from, task=key.task, fold=key.fold, held_out=held_out)
        space = replace(space, init=found.weights)
        prior["init"] = {"name": recipe.init_from, "digest": found.digest, "rows_seen": len(found.trail)}
    if recipe.joint:
        others, dropped = other_tasks(run, key.task, held_out)
        space = replace(space, others=others)
        prior["joint"] = {
            other.name: {"rows": len(frame), **asdict(dropped[other.name])} for other, frame in others.items()
        }
    return space, prior


def _corpus(run: RunFolder, task: str, digests: Iterable[str]) -> "Corpus":
    return _corpus_of(run, task, tuple(digests))


@lru_cache(maxsize=2)
def _corpus_of(run: RunFolder, task: str, digests: tuple[str, ...]) -> "Corpus":
    """One corpus for all jobs of a process on the same rows: what is computed from it is kept by its identity."""
    from pipelines.backbones.protocol import Corpus

    return Corpus.of(without_labels(frame) for frame in run.rows(task).values())


def _scored(scores: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
    assert scores.shape == (len(rows),), "a backbone gives one score per row"
    return pd.DataFrame({"id": rows["id"].to_numpy(), "score": scores.astype(np.float32)})


def _refuse_other_origin(run: RunFolder, key: PartKey, origin: Origin) -> None:
    faults = run.parts.manifest(key).origin.differences(origin)
    if faults:
        raise MismatchError(
            f"part {key} is there, but was made differently",
            faults=faults,
            advice="give a changed recipe a name of its own (a copied .toml file), or delete that part's folder",
        )
