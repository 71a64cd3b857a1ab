"""The distillation stage: one small base learner trained on what an ensemble thinks of every row.

It is trained on all training rows, so it has no out-of-fold scores, and must have none: see `oof.teacher` for the trap.
How good it is, only rows can tell that had no part in any training: the labelled rows of dev.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import MANIFEST, PROVENANCE, finish, finished, heal, is_finished, partial
from competition.damage import refuse_damage
from competition.errors import CompetitionError, Fault, MismatchError
from competition.json_files import Shape, read_json
from competition.metrics import f1, paired_difference
from competition.parquet_files import read_frame
from oof.store import SCORES, PartKey, align, check_scores
from oof.teacher import soft_labels, taught_threshold
from oof.threshold import decide
from pipelines.config import TRANSFORMERS, Recipe, WeightsSection, learner_name, load_recipe, recipe_values
from pipelines.ensembling import part_manifests
from pipelines.freeing import refuse_freed_weights
from pipelines.locks import alone
from pipelines.progress import available_threads
from pipelines.provenance import now, provenance
from pipelines.pseudo import unseen_splits
from pipelines.run_folder import RunFolder, digest_model_rows, without_labels
from pipelines.scratch import scratch_of
from pipelines.targets import with_targets
from pipelines.teachers import Taught, taught_by
from pipelines.weights import cache_dir, named_weights

log = logging.getLogger(__name__)

WEIGHTS = "weights"
MAKE_AGAIN = "delete the student's folder, and run the same `relstack distil` again"
SHAPE: dict[str, Shape] = {
    "ensemble": str,
    "thresholds": dict[str, float],
    "n_rows": int,
    "fit_seconds": float,
    "rows_per_second": float,
}


@dataclass(frozen=True)
class Distillation:
    """What is asked for.

    Attributes
    ----------
    student
        Name or path of the student's recipe.
    ensemble
        The teacher: a finished ensemble's name, or a base learner's.
    mix
        Share of the teacher's score in a training row's soft label; the rest is its label.
    splits
        Whose rows are learnt from besides train, with the teacher's score as soft label; all there are if left out.
    """

    task: str
    student: str
    name: str
    ensemble: str = "stack"
    mix: float = 0.5
    splits: tuple[str, ...] | None = None


def distil(run: RunFolder, asked: Distillation, *, overrides: tuple[str, ...] = ()) -> Path:
    """The folder of a finished student: weights, scores of dev and test, a manifest with its thresholds.

    The student learns ``mix * OOF score + (1 - mix) * label`` of every training row, and the teacher's scores of dev
    and test rows; their labels are not looked at. Its threshold for either is the cut with the best F1 there if rows
    are positive as often as the teacher says; one for each, because scores of rows that it has learnt lie further apart
    (without such rows, the cut for train). A student that was made in the same way is left as it is.

    Raises
    ------
    CompetitionError
        No such teacher or split, or a recipe that learns from other rows as well.
    MismatchError
        A student of that name was made from something else.
    """
    recipe = load_recipe(asked.student, (*run.settings().overrides, *overrides))
    _refuse_unfit(run, asked, recipe)
    splits = unseen_splits(run, asked.task, asked.splits or ()) if asked.splits != () else ()
    taught = taught_by(run, asked.task, asked.ensemble)
    made_of = {
        "task": asked.task,
        "ensemble": asked.ensemble,
        "mix": asked.mix,
        "splits": list(splits),
        "recipe": recipe_values(recipe),
        "taught": taught.digest,
        "sources": dict(taught.sources),
        "rows": {split: digest_model_rows(frame) for split, frame in run.rows(asked.task).items()},
        "folds": run.folds(asked.task).digest,
        "seed": run.settings().seed,
    }
    folder = run.student(asked.task, asked.name)
    with alone(folder):
        heal(folder)
        if is_finished(folder):
            _refuse_other(folder, made_of)
            log.info("%s: student %s is there already", asked.task, asked.name)
            return folder
        train = _training_rows(run, asked, splits, taught)
        return _make(run, folder, recipe, train=train, taught=taught, made_of=made_of)


def distilled_table(run: RunFolder, task: str, name: str) -> pd.DataFrame:
    """Teacher and student, a line each.

    Columns: `name`, `train_rows` (of one model), `seconds` of training (all models), `size_mb` of all weights that
    scoring needs (frozen encoders included, each once), `rows_per_second` scored (the teacher's rows go through every
    fold's models), `positive` share of the dev and test rows; where dev is labelled `dev_f1`, and the student's
    `difference` to the teacher with its 95 % interval over queries. If the student learnt the teacher's scores of dev
    itself, these figures say how well it repeats them; what it makes of new rows is seen with ``--splits test``.
    """
    folder = run.student(task, name)
    manifest = read_manifest(folder)
    taught = taught_by(run, task, manifest["ensemble"])
    keys = [PartKey(task, one, k) for one in taught.sources for k in range(run.folds(task).plan.n_splits)]
    refuse_freed_weights(run, keys)
    parts = [run.parts.manifest(key) for key in keys]
    n_folds = len(keys) // len(taught.sources)
    lines: list[dict[str, Any]] = [
        {
            "name": manifest["ensemble"],
            "train_rows": round(sum(len(run.rows(task)["train"]) - part.n_oof for part in parts) / len(parts)),
            "seconds": sum(part.fit_seconds for part in parts),
            "size_mb": _size_mb([run.parts.folder(key) / WEIGHTS for key in keys]),
            "rows_per_second": 1 / (n_folds * sum(1 / rate for rate in taught.rates.values())),
        },
        {
            "name": name,
            "train_rows": manifest["n_rows"],
            "seconds": manifest["fit_seconds"],
            "size_mb": _size_mb([folder / WEIGHTS]),
            "rows_per_second": manifest["rows_per_second"],
        },
    ]
    decisions = {split: (taught.decisions[split], student_decisions(run, task, name, split))
                 for split in run.splits(task) if split != "train"}  # fmt: skip
    if decisions:
        for line, both in zip(lines, zip(*decisions.values(), strict=True), strict=True):
            line["positive"] = float(np.concatenate(both).mean())
    if "dev" in decisions:
        _add_dev(lines, run.rows(task)["dev"], *decisions["dev"])
    return pd.DataFrame(lines)


def students(run: RunFolder, task: str) -> list[str]:
    """Names of the finished students of a task."""
    return [folder.name for folder in finished(run.root / "students" / task)]


def student_folder(run: RunFolder, task: str, name: str) -> Path:
    """The folder of a finished student; a CompetitionError names those that there are, if it is none of them."""
    if name not in (there := students(run, task)):
        raise CompetitionError(
            f"{task} has no student called {name!r}",
            faults=[Fault(str(run.student(task, name)), "no finished student", ", ".join(there) or "one of any name")],
            advice=f"make one: relstack distil --run {run.root} --task {task} --student RECIPE",
        )
    return run.student(task, name)


def student_decisions(run: RunFolder, task: str, name: str, split: str) -> np.ndarray:
    """The student's 0/1 decisions for dev or test, ``(n_rows,)``."""
    scores = student_scores(run, task, name, split, run.rows(task)[split]["id"])
    return decide(scores, student_threshold(run, task, name, split))


def student_scores(run: RunFolder, task: str, name: str, split: str, ids: pd.Series) -> np.ndarray:
    """The student's scores of dev or test, ``(n_ids,)``."""
    folder = run.student(task, name)
    refuse_damage(folder, what=f"student {name}", advice=MAKE_AGAIN)
    where = f"student {task}/{name}/{split}"
    scores = read_frame(folder / f"{split}.parquet", SCORES, what=f"the scores of {where}", advice=MAKE_AGAIN)
    check_scores(scores, where=where)
    return np.asarray(align(scores.set_index("id")["score"], ids, where=where), dtype=np.float64)


def student_threshold(run: RunFolder, task: str, name: str, split: str) -> float:
    """Where the student cuts its scores of dev or test."""
    thresholds = read_manifest(run.student(task, name))["thresholds"]
    if split not in thresholds:
        where = f"student {task}/{name}/{split}"
        fault = Fault(where, "no threshold", f"one beside those of {', '.join(thresholds)[:80] or 'nothing'}")
        raise CompetitionError("a student cannot decide", faults=[fault], advice=MAKE_AGAIN)
    return float(thresholds[split])


def new_row_threshold(run: RunFolder, task: str, name: str) -> float:
    """Where the student cuts scores of rows that it has not learnt: as of a split that it has not learnt, if any is."""
    manifest = read_manifest(run.student(task, name))
    cuts: dict[str, float] = manifest["thresholds"]
    learnt = {"train", *manifest.get("splits", ())}
    preferred = sorted(cuts, key=lambda split: (split in learnt, split != "test"))
    return float(cuts[preferred[0]])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the student in `folder` was made from, and its thresholds; a CompetitionError if it is damaged."""
    refuse_damage(folder, what=f"student {folder.name}", advice=MAKE_AGAIN)
    return read_json(folder / MANIFEST, SHAPE, what=f"the manifest of student {folder.name}", advice=MAKE_AGAIN)


def _add_dev(lines: list[dict[str, Any]], rows: pd.DataFrame, taught: np.ndarray, learnt: np.ndarray) -> None:
    labelled = rows["label"].notna().to_numpy()
    if not labelled.any():
        return
    labels = rows["label"][labelled].to_numpy(dtype=np.int8)
    for line, decisions in zip(lines, (taught, learnt), strict=True):
        line["dev_f1"] = f1(labels, decisions[labelled])
    groups = (rows["language"] + " " + rows["query"])[labelled]
    gap = paired_difference(labels, learnt[labelled], taught[labelled], groups)
    lines[1] |= {"difference": gap.estimate, "low": gap.low, "high": gap.high}


def _training_rows(run: RunFolder, asked: Distillation, splits: tuple[str, ...], taught: Taught) -> pd.DataFrame:
    rows = run.rows(asked.task)
    train = run.folds(asked.task).with_groups(rows["train"])
    mixed = soft_labels(train["label"].to_numpy(dtype=np.int8), taught.scores["train"], mix=asked.mix)
    parts = [with_targets(train, mixed, weight=1.0, extra=False)]
    parts += [with_targets(without_labels(rows[s]), taught.scores[s], weight=1.0, extra=True) for s in splits]
    return pd.concat(parts, ignore_index=True)


def _make(
    run: RunFolder, folder: Path, recipe: Recipe, *, train: pd.DataFrame, taught: Taught, made_of: Mapping[str, Any]
) -> Path:
    from pipelines.backbones.protocol import Corpus, Workspace
    from pipelines.launch import fit_and_score

    task, rows = run.task(made_of["task"]), {s: without_labels(frame) for s, frame in run.rows(made_of["task"]).items()}
    work, started = partial(folder), now()
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=scratch_of(work, made_of),
        corpus=Corpus.of(rows.values()),
        seed=run.settings().seed,
        threads=available_threads(),
    )
    unseen = {split: frame for split, frame in rows.items() if split != "train"} or rows
    fitted = fit_and_score(recipe, task, space, train=train, unseen=unseen)
    fitted.save(work / WEIGHTS)
    scores = {split: fitted.scores[split].astype(np.float64) for split in unseen}
    for split, frame in unseen.items():
        if split != "train":  # the student has seen the labels of these
            scored = pd.DataFrame({"id": frame["id"], "score": scores[split]})
            scored.to_parquet(work / f"{split}.parquet", index=False)
    manifest = {
        **made_of,
        "thresholds": {split: taught_threshold(scores[split], taught.scores[split]) for split in unseen},
        "n_rows": len(train),
        "fit_seconds": round(fitted.fit_seconds, 3),
        "rows_per_second": sum(map(len, scores.values())) / max(fitted.predict_seconds, 1e-9),
        "details": dict(fitted.details),
        "inputs": part_manifests(run, task.name, taught.sources),
        PROVENANCE: provenance(seed=space.seed, started=started),
    }
    finish(work, folder, manifest)
    log.info(
        "%s: student %s fitted on %s rows in %.1f s", task.name, folder.name, f"{len(train):,}", fitted.fit_seconds
    )
    return folder


def _size_mb(folders: list[Path]) -> float:
    """Megabytes of saved weights, and of the frozen encoders that they need, each once."""
    from pipelines.backbones.protocol import read_details

    encoders = set()
    for folder in folders:
        values = read_details(folder)["recipe"]
        if values["kind"] in ("bi_encoder", "category_tree"):
            encoders.add(named_weights(WeightsSection.model_validate(values["weights"])).folder)
    files = (file for folder in (*folders, *encoders) for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def _refuse_unfit(run: RunFolder, asked: Distillation, recipe: Recipe) -> None:
    from pipelines.backbones import applies

    used = ["extra"] if recipe.extra is not None else []
    if isinstance(recipe, TRANSFORMERS):
        used += [key for key in ("init_from", "joint") if getattr(recipe, key)]
    if not applies(recipe, run.task(asked.task)):
        raise CompetitionError(
            f"recipe {asked.student} needs a category path as target; {asked.task} has none",
            advice="take another student: --student e5-student",
        )
    if used:
        raise CompetitionError(
            f"recipe {learner_name(asked.student)} cannot be a student",
            faults=[
                Fault(key, "set", "left out: a student learns from its teacher and one task's rows") for key in used
            ],
            advice="copy the recipe without these keys, and name the copy: --student FILE.toml",
        )


def _refuse_other(folder: Path, made_of: Mapping[str, Any]) -> None:
    had = read_manifest(folder)
    faults = [
        Fault(key, f"asked for {value!r}", f"{had.get(key)!r}, as it was made")
        for key, value in made_of.items()
        if json.loads(json.dumps(value)) != had.get(key)
    ]
    if faults:
        advice = "give this one another --name, or delete that folder"
        raise MismatchError(f"student {folder.name} was made differently", faults=faults, advice=advice)
