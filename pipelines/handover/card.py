"""A model card and a folder of what gives the same submission again."""

import importlib.metadata
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from competition.artefacts import MANIFEST, finish, is_finished, partial, read_manifest
from competition.damage import refuse_damage
from competition.errors import CompetitionError, Fault
from competition.languages import UNKNOWN, iso_code
from pipelines.handover.again import Wanted, by_hand, commands, wanted_of, write_ingredients
from pipelines.handover.exporting import packages_of
from pipelines.handover.facts import TaskFacts, facts_of, part_manifests_of, weights_of
from pipelines.handover.licences import HUB_IDS, licence_of_all
from pipelines.handover.packing import base_names, chosen_of, portable
from pipelines.handover.source import requirements
from pipelines.handover.templates import filled, write_script
from pipelines.handover.traces import copy_clean, refuse_traces
from pipelines.run_artefacts import artefacts
from pipelines.run_folder import RunFolder
from pipelines.scoreboard import leaderboard
from submissions.leaderboard import Leaderboard

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

LANGUAGE = re.compile(r"[a-z]{2,3}")
TAGS = ("relstack", "search-relevance", "ensemble")
HUB_METRICS = {"macro_f1": "f1", "auc": "roc_auc"}
"""What the hub calls a metric that it names otherwise."""
EXPECTED = "expected.sha256"


def card(run: RunFolder, *, submission: str = "final", out: Path | None = None, datasets: Sequence[str] = ()) -> Path:
    """The folder with the card ``README.md`` of a submission, and what makes the submission again.

    Parameters
    ----------
    out
        A new folder, or a card to be replaced; ``RUN/cards/SUBMISSION`` if None.
    datasets
        Names of data sets on the hub, for the card's metadata.

    Raises
    ------
    CompetitionError
        There is no such submission, `out` is something else, or a text would hold a secret or a path of this machine.
    """
    manifest = _submission(run, submission)
    folder = run.card(submission) if out is None else out
    if folder.exists() and not (is_finished(folder) and (folder / EXPECTED).is_file()):
        raise CompetitionError(f"{folder} is there and is no card", advice="name a new folder with --out")
    facts = _facts(run, leaderboard(run), manifest)
    work = partial(folder)
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        write_reproduction(run, work, wanted_of(submission, manifest), manifest)
        content = _content(run, facts, manifest, metadata(run, facts, datasets), name=submission)
        (work / "README.md").write_text(content, encoding="utf-8")
        refuse_traces(work, run)
        return finish(work, folder, {"run": run.root.name, "submission": submission})
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_reproduction(run: RunFolder, folder: Path, wanted: Wanted, manifest: Mapping[str, Any]) -> None:
    """Recipes, folds, translations, settings, manifests, versions, and ``reproduce.sh`` that uses them."""
    learners = [name for each in run.settings().recipes for name in [Path(each).stem]]
    base = base_names([run.recipe(name).model_dump(mode="json") for name in learners])
    write_ingredients(run, folder, base=base)
    RunFolder(folder).write_settings(portable(run.settings(), learners, tasks=run.settings().tasks))
    for artefact in artefacts(run):
        if artefact.manifest.is_file() and not artefact.name.startswith("studies"):
            copy_clean(artefact.manifest, folder / "manifests" / artefact.manifest_name, run)
    sums = [f"{entry['sha256']}  {name}\n" for name, entry in manifest["files"].items() if not name.endswith(".zip")]
    (folder / EXPECTED).write_text("".join(sums), encoding="utf-8")
    lines = [*requirements(sorted(packages_of(run))), ""]
    (folder / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    script = filled(
        "again.sh.j2",
        title="Makes the run again, and compares the submission with the original by SHA-256.",
        code=False,
        by_hand=by_hand(run),
        folders=sorted(base.values()),
        commands=commands(run, wanted),
        name=wanted.name,
    )
    write_script(folder / "reproduce.sh", script)


def metadata(run: RunFolder, facts: Sequence[TaskFacts], datasets: Sequence[str]) -> "ModelCardData":
    """What stands in the card's head, for the hub to read.

    Raises
    ------
    CompetitionError
        The hub would refuse it.
    """
    from huggingface_hub import ModelCardData

    used = sorted({name for each in facts for learner in each.chosen.learners if (name := weights_of(run, learner))})
    codes = {code for each in facts for code in run.rows(each.task.name)["train"]["language"].unique()}
    spoken = sorted({iso_code(str(code)) for code in codes if code != UNKNOWN})
    licence, spelt = licence_of_all(used)
    bases = [name for name in used if _is_hub_name(name)]
    data = ModelCardData(
        language=spoken,
        license=licence,
        license_name=spelt and re.sub(r"[^a-z0-9.-]+", "-", spelt.lower()),
        library_name="relstack",
        pipeline_tag="text-classification",
        tags=[*TAGS, *(["multilingual"] if len(spoken) > 1 else [])],
        metrics=list(dict.fromkeys(_hub_metric(each.task.metric) for each in facts)),
        base_model=bases or None,
        datasets=list(datasets) or None,
        model_name=run.root.resolve().name,
        eval_results=[result for each in facts for result in _results(each)],
    )
    _refuse_metadata(data)
    return data


def _results(facts: TaskFacts) -> list[Any]:
    from huggingface_hub import EvalResult

    entry, task = facts.entry, facts.task.name
    found = [
        ("F1, out of fold, nested", "f1", entry.f1, "train"),
        ("AUC, out of fold", "roc_auc", entry.auc, "train"),
        ("F1 on dev", "f1", entry.dev_f1, "dev"),
        (f"{facts.task.metric} on dev", _hub_metric(facts.task.metric), entry.dev_metric, "dev"),
    ]
    if facts.task.metric != "auc":  # it stands there already
        words = f"{facts.task.metric}, out of fold"
        found.append((words, _hub_metric(facts.task.metric), entry.metric, "train"))
    return [
        EvalResult(
            task_type="text-classification",
            task_name="query relevance",
            dataset_type=task.lower(),
            dataset_name=task,
            dataset_split=split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 6),
            metric_args={"low": entry.f1_low, "high": entry.f1_high} if name.startswith("F1, out") else None,
        )
        for name, kind, value, split in found
        if value is not None
    ]


def _hub_metric(name: str) -> str:
    return HUB_METRICS.get(name, name)


def _refuse_metadata(data: "ModelCardData") -> None:
    """What the hub's validator looks at, as far as that can be told without a network."""
    values = _values(data)
    faults = [
        Fault("language", repr(code), "a code of two or three letters")
        for code in values.get("language", [])
        if not LANGUAGE.fullmatch(code)
    ]
    if values["license"] not in HUB_IDS:
        faults.append(Fault("license", values["license"], f"one of {', '.join(HUB_IDS)}"))
    faults += [
        Fault(key, repr(name), "the name of a repository on the hub")
        for key in ("base_model", "datasets")
        for name in values.get(key, [])
        if not _is_hub_name(name)
    ]
    if faults:
        raise CompetitionError(
            "the hub would refuse this card", faults=faults, advice="name hub repositories: --dataset OWNER/NAME"
        )


def _values(data: Any) -> dict[str, Any]:
    return dict(data.to_dict())


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith("relstack/") and not Path(name).exists()


def _content(
    run: RunFolder, facts: Sequence[TaskFacts], manifest: Mapping[str, Any], data: "ModelCardData", *, name: str
) -> str:
    """The text of the card; it reads back as a card."""
    from huggingface_hub import ModelCard

    parts = [part for each in facts for learner in each.chosen.learners
             for part in part_manifests_of(run, each.task.name, learner, each.chosen.n_folds)]  # fmt: skip
    hardware = [part.provenance.get("hardware") or {} for part in parts]
    body = filled(
        "card.md.j2",
        title=run.root.resolve().name,
        languages=data.language,
        name=name,
        facts=facts,
        seed=run.settings().seed,
        cleaning=run.settings().cleaning,
        translated=run.translations_file.is_file(),
        spent=duration(sum(part.fit_seconds + part.predict_seconds for part in parts)),
        cpus=sorted({str(each["cpu"]) for each in hardware if each.get("cpu")}),
        gpus=sorted({str(gpu) for each in hardware for gpu in each.get("gpus") or []}),
        versions=manifest["provenance"]["versions"],
        commit=(manifest["provenance"].get("git") or {}).get("commit"),
        sums={file: entry["sha256"] for file, entry in manifest["files"].items()},
        relstack=importlib.metadata.version("relstack"),
    )
    content = f"---\n{data.to_yaml()}\n---\n\n{body}"
    assert _values(ModelCard(content).data) == _values(data), "a card reads back as it was written"
    return content


def duration(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> duration(42.4), duration(9000)
    ('42 seconds', '2.5 hours')
    """
    return f"{seconds:,.0f} seconds" if seconds < 3600 else f"{seconds / 3600:,.1f} hours"


def _submission(run: RunFolder, name: str) -> dict[str, Any]:
    folder = run.submission(name)
    if not is_finished(folder):
        raise CompetitionError(
            f"{run.root} has no submission called {name}",
            advice=f"make it first: relstack submit --run {run.root} --name {name}",
        )
    refuse_damage(
        folder, what="the submission", advice=f"make it again: relstack submit --run {run.root} --name {name}"
    )
    return read_manifest(folder / MANIFEST)


def _facts(run: RunFolder, board: Leaderboard, manifest: Mapping[str, Any]) -> list[TaskFacts]:
    found = []
    for task, told in manifest["chosen"].items():
        entries = [each for each in board.entries if (each.task, each.name) == (task, told["ensemble"])]
        if not entries:
            fault = Fault(f"{task}/{told['ensemble']}", "is gone", "what the submission was made of")
            raise CompetitionError("the submission cannot be described", faults=[fault], advice="submit again")
        chosen = chosen_of(run, entries[0])
        found.append(facts_of(run, run.task(task), chosen=chosen, board=board, manifest=manifest))
    return found
