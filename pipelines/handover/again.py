"""Doing a run again: its recipes, folds and translations in files, and the commands that make its submission."""

import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.artefacts import file_names
from pipelines.config import TRANSFORMERS, learner_name
from pipelines.ensembling import DEFAULTS, ensembles, read_manifest
from pipelines.handover.packing import RECIPES, relocated
from pipelines.jobs import made_weights
from pipelines.recipe_file import recipe_toml
from pipelines.run_folder import RunFolder, read_translations_of

FOLDS, TRANSLATIONS = "folds", "translations.csv"
DATA, RUN = '"$data"', '"$run"'  # variables of the scripts that the commands stand in
HERE = '"$here"'


@dataclass(frozen=True)
class Wanted:
    """A submission to be made again.

    Attributes
    ----------
    choice
        What `relstack submit --ensemble` is told.
    split
        None for the one that `relstack submit` takes by itself.
    prior_matched
        Whether the cut is that for the share of positives which the split's own scores tell of.
    """

    choice: str = "best"
    split: str | None = None
    name: str = "final"
    prior_matched: bool = False


def wanted_of(name: str, manifest: Mapping[str, Any]) -> Wanted:
    """The options that a finished submission was made with, told from its manifest."""
    chosen = list(manifest["chosen"].values())
    names, splits = {each["ensemble"] for each in chosen}, {each["split"] for each in chosen}
    return Wanted(
        choice=names.pop() if len(names) == 1 else "best",
        split=splits.pop() if splits == {"dev"} else None,
        name=name,
        prior_matched=any(each["cut"] == "prior-matched" for each in chosen),
    )


def write_ingredients(run: RunFolder, folder: Path, *, base: Mapping[str, str]) -> None:
    """Recipes with all overrides in them, fold files and translations, below `folder`."""
    (folder / RECIPES).mkdir(parents=True, exist_ok=True)
    for name in learners_of(run):
        recipe = run.recipe(name)
        moved = type(recipe).model_validate(relocated(recipe.model_dump(mode="json"), base))
        (folder / RECIPES / f"{name}.toml").write_text(recipe_toml(moved), encoding="utf-8")
    for task in run.tasks():
        source = run.folds_folder(task.name)
        target = folder / FOLDS / task.name
        target.mkdir(parents=True, exist_ok=True)
        for file in file_names(source):
            shutil.copyfile(source / file, target / file)
    if run.contest_file.is_file():
        shutil.copyfile(run.contest_file, folder / run.contest_file.name)
    if run.translations_file.is_file():
        write_translations(run, folder / TRANSLATIONS)


def write_translations(run: RunFolder, path: Path) -> None:
    """The run's translations as the CSV that ``--translations`` takes."""
    table = read_translations_of(run)
    table.columns = ["language", "origin_query", "translated_query"]
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def learners_of(run: RunFolder) -> list[str]:
    """The base learners that the run has recipes for, in their order."""
    return list(dict.fromkeys(map(learner_name, run.settings().recipes)))


def commands(run: RunFolder, wanted: Wanted) -> list[str]:
    """Lines for a shell, in order: the run, further ensembles, the submission.

    ``$data`` and ``$run`` are folders, ``$here`` is where the ingredients lie.
    """
    return [_run_command(run), *_ensemble_commands(run), _submit_command(wanted)]


def by_hand(run: RunFolder) -> list[str]:
    """What recipes of the run name and no job of it makes, as paths in a run: it was made by commands of its own."""
    found: dict[str, None] = {}
    for task in run.tasks():
        for name in learners_of(run):
            found |= dict.fromkeys(_by_hand(run, task.name, name))
    return list(found)


def _by_hand(run: RunFolder, task: str, name: str) -> Iterable[str]:
    recipe = run.recipe(name)
    if isinstance(recipe, TRANSFORMERS) and recipe.init_from and made_weights(run, task, name) is None:
        yield run.pretrained(task, recipe.init_from).relative_to(run.root).as_posix()
    if recipe.extra is not None and recipe.extra.pseudo:
        yield run.pseudo(task, recipe.extra.pseudo).relative_to(run.root).as_posix()
    if recipe.extra is not None and recipe.extra.augmented:
        yield run.augmented(task, recipe.extra.augmented).relative_to(run.root).as_posix()


def _run_command(run: RunFolder) -> str:
    settings = run.settings()
    words = ["relstack run", f"--data {DATA}", f"--run {RUN}", f"--tasks {','.join(t.name for t in run.tasks())}"]
    for key in ("plan", "folds", "depth", "seed", "cleaning", "limit"):
        value = getattr(settings, key)
        if value is not None:
            words.append(f"--{key} {shlex.quote(str(value))}")
    if run.contest_file.is_file():
        words.append(f"--competition {HERE}/{run.contest_file.name}")
    if settings.relabel_unknown:
        words.append("--relabel-unknown")
    if run.translations_file.is_file() and settings.translations:
        words.append(f"--translations {HERE}/{TRANSLATIONS}")
    recipes = ",".join(f"{RECIPES}/{name}.toml" for name in learners_of(run))
    return _lines([*words, f"--recipes {shlex.quote(recipes)}"])


def _ensemble_commands(run: RunFolder) -> list[str]:
    """Commands for those ensembles that ``relstack run`` does not make as they are."""
    found, everything = [], set(learners_of(run))
    for task in run.tasks():
        for name in ensembles(run, task.name):
            members = read_manifest(run.ensemble(task.name, name))["learners"]
            missing = everything - set(members)
            if name not in DEFAULTS or any(name in run.parts.learners(task.name) for name in missing):
                words = [f"--run {RUN}", f"--task {task.name}", f"--name {name}", f"--models {','.join(members)}"]
                found.append(_lines(["relstack ensemble make", *words]))
    return found


def _submit_command(wanted: Wanted) -> str:
    words = ["relstack submit", f"--run {RUN}", f"--ensemble {shlex.quote(wanted.choice)}"]
    words += [f"--split {wanted.split}"] if wanted.split else []
    words += ["--prior-matched"] if wanted.prior_matched else []
    return _lines([*words, f"--name {shlex.quote(wanted.name)}"])


def _lines(words: Iterable[str]) -> str:
    return " \\\n  ".join(words)
