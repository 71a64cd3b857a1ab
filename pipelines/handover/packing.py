"""Writing an exported model: the chosen parts' weights and combiners of a run, and nothing that names its rows."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd

from competition.artefacts import finish, partial, write_text
from competition.contest import FILE_NAME
from competition.errors import CompetitionError, Fault
from oof.store import PartKey
from pipelines.config import recipe_values
from pipelines.ensembling import ensemble_cuts, part_manifests, read_manifest
from pipelines.freeing import refuse_freed_weights
from pipelines.handover.model import BASE, TEXTS, Chosen, chosen_file, texts_file
from pipelines.provenance import versions
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scoreboard import STUDENT, leaderboard
from pipelines.submitting import choose
from submissions.leaderboard import Entry

DETAILS = "backbone.json"
NOT_SCORES = ("oof.parquet", "dev.parquet", "test.parquet", "manifest.json")  # what an ensemble keeps besides its model
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt")
PLACES = ("_name_or_path", "base_model_name_or_path", "name_or_path")  # where libraries note the folder of a model
RECIPES = "recipes"


@dataclass(frozen=True)
class Contents:
    """What of a run goes into its model.

    Attributes
    ----------
    chosen
        By task name.
    files
        Path in the model -> the run's own file.
    base
        Local folders of pretrained weights -> what they are called in the model.
    """

    run: RunFolder
    chosen: Mapping[str, Chosen]
    files: Mapping[str, Path]
    base: Mapping[str, str]

    @property
    def n_bytes(self) -> int:
        """The size of all files, those of pretrained weights included; texts and settings come on top."""
        copied = [file for folder in self.base for file in Path(folder).rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in (*self.files.values(), *copied))

    @property
    def learners(self) -> list[str]:
        """The base learners of all tasks, each once."""
        return list(dict.fromkeys(name for chosen in self.chosen.values() for name in chosen.learners))


def contents(run: RunFolder, choice: str = "best") -> Contents:
    """What scores new rows as the run's submission of this `choice` does; nothing is written but the leaderboard.

    Raises
    ------
    CompetitionError
        Nothing is called so, it is a student, weights were freed, or a file of theirs is a pickle.
    """
    board = leaderboard(run)
    tasks = [task.name for task in run.tasks() if {"dev", "test"} & set(run.splits(task.name))]
    chosen = {task: chosen_of(run, choose(board, task, choice)) for task in tasks}
    files: dict[str, Path] = {}
    for task, each in chosen.items():
        keys = [PartKey(task, name, fold) for name in each.learners for fold in range(each.n_folds)]
        refuse_freed_weights(run, keys)
        run.parts.refuse_damaged(keys)
        files |= _below(run, [run.parts.folder(key) / "weights" for key in keys])
        if each.kind != "base":
            files |= _model_of(run, task, each.name)
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        words = [Fault(name, "could run code when it is read", "safetensors, JSON or text") for name in pickles]
        raise CompetitionError("a package must not hold pickles", faults=words, advice="train these parts again")
    recipes = [recipe_values(run.recipe(name)) for each in chosen.values() for name in each.learners]
    return Contents(run, chosen, files, base_names(recipes))


def chosen_of(run: RunFolder, entry: Entry) -> Chosen:
    """A leaderboard entry as what scores its task; a CompetitionError if it is a student, which is no combination."""
    if entry.kind == STUDENT:
        fault = Fault(f"{entry.task}: {entry.name}", "a student", "an ensemble or base learner")
        advice = "name one of them: relstack export --ensemble NAME; for a card, relstack submit --ensemble NAME first"
        raise CompetitionError("a student cannot be handed over", faults=[fault], advice=advice)
    assert entry.threshold is not None, "every entry of a run has its threshold"
    n_folds = run.folds(entry.task).plan.n_splits
    rate = float(run.rows(entry.task)["train"]["label"].mean())
    if entry.kind == "base":
        return Chosen(entry.name, "base", (entry.name,), n_folds, entry.threshold, {}, rate)
    cuts = ensemble_cuts(run, entry.task, entry.name)
    learners = tuple(read_manifest(run.ensemble(entry.task, entry.name))["learners"])
    return Chosen(entry.name, entry.kind, learners, n_folds, cuts.overall, dict(cuts.by_segment), rate)


def write_model(what: Contents, folder: Path) -> Path:
    """The exported model in the new `folder`."""
    run, work = what.run, partial(folder)
    shutil.rmtree(work, ignore_errors=True)
    for name, file in what.files.items():
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if target.suffix == ".json":
            _without_places(target, what)
    for source, name in what.base.items():
        shutil.copytree(source, work / name)
    for task, each in what.chosen.items():
        each.write(chosen_file(work, task))
        texts_file(work, task).parent.mkdir(parents=True, exist_ok=True)
        texts_of(run.rows(task)).to_parquet(texts_file(work, task), index=False)
    if run.translations_file.is_file():
        shutil.copyfile(run.translations_file, RunFolder(work).translations_file)
    if run.contest_file.is_file():
        shutil.copyfile(run.contest_file, RunFolder(work).contest_file)
    RunFolder(work).write_settings(portable(run.settings(), what.learners, tasks=tuple(what.chosen)))
    made_of = [part_manifests(run, task, each.learners) for task, each in what.chosen.items()]
    record = {
        "inputs": {name: digest for each in made_of for name, digest in each.items()},
        "versions": versions(),
    }
    return finish(work, folder, record)


def texts_of(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The distinct pairs of all splits, sorted, and whether train has them; no ids, no labels."""
    pair = [name for name in TEXTS if name != "in_train"]
    frames = [frame[pair].assign(in_train=split == "train") for split, frame in rows.items()]
    return pd.concat(frames).groupby(pair, sort=True)["in_train"].any().reset_index()


def portable(settings: RunSettings, learners: Sequence[str], *, tasks: tuple[str, ...]) -> RunSettings:
    """The settings with no path of this machine: base learners by the names of their files in `RECIPES`."""
    return settings.model_copy(
        update={
            "data": "data",
            "competition": settings.competition and FILE_NAME,
            "tasks": tasks,
            "recipes": tuple(f"{RECIPES}/{name}.toml" for name in learners),
            "overrides": (),
            "translations": settings.translations and "translations.csv",
        }
    )


def relocated(values: Any, base: Mapping[str, str]) -> Any:
    """A recipe's plain values with the names that weights have in the model."""
    if isinstance(values, Mapping):
        return {key: base.get(value, value) if key == "name" and isinstance(value, str) else relocated(value, base)
                for key, value in values.items()}  # fmt: skip
    return values


def _below(run: RunFolder, folders: Sequence[Path]) -> dict[str, Path]:
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return {file.relative_to(run.root).as_posix(): file for file in files}


def _model_of(run: RunFolder, task: str, name: str) -> dict[str, Path]:
    """The files of an ensemble's fitted combiner."""
    folder = run.ensemble(task, name)
    return {key: file for key, file in _below(run, [folder]).items() if file.name not in NOT_SCORES}


def base_names(recipes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Local folders that recipes name -> their place in the model; two of one name are told apart."""
    names: dict[str, str] = {}
    for name in dict.fromkeys(_weights_named(recipes)):
        folder = Path(name).expanduser()
        if folder.is_dir():
            called = f"{BASE}/{folder.resolve().name}"
            apart = (f"{called}-{number}" for number in count(1))
            names[name] = next(each for each in chain([called], apart) if each not in names.values())
    return names


def _weights_named(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key == "name" and isinstance(value, str):
                yield value
            yield from _weights_named(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _weights_named(value)


def _without_places(path: Path, what: Contents) -> None:
    """Rewrite a JSON file of a model where it names a folder of this machine; a hub's commit is pinned."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        return
    changed = {key: Path(each).name if key in PLACES and isinstance(each, str) and Path(each).is_absolute() else each
               for key, each in values.items()}  # fmt: skip
    if path.name == DETAILS:
        changed["recipe"] = _pinned(relocated(values["recipe"], what.base), _details(what.run, path))
    if changed != values:
        write_text(path, json.dumps(changed, indent=1, ensure_ascii=False))


def _details(run: RunFolder, path: Path) -> Mapping[str, Any]:
    """What the run's part remembers of the weights in a copied ``parts/<task>/<learner>/fold-<k>/weights/``."""
    task, learner, fold = path.parts[-5:-2]
    return run.parts.manifest(PartKey(task, learner, int(fold.removeprefix("fold-")))).details


def _pinned(recipe: dict[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    if details.get("source") != "hub" or "weights" not in recipe:
        return recipe
    return {**recipe, "weights": {**recipe["weights"], "revision": details["digest"]}}
