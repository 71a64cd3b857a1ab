"""The code package of a competition: weights, scripts, requirements and our own source, in one folder or zip."""

import os
import platform
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from competition.errors import CompetitionError, Fault
from pipelines.config import recipe_values
from pipelines.failures import readable
from pipelines.handover.again import Wanted, by_hand, commands, learners_of, write_ingredients
from pipelines.handover.packing import Contents, contents, write_model
from pipelines.handover.source import copy_source, requirements, source_files
from pipelines.handover.templates import filled, write_script
from pipelines.handover.traces import refuse_traces
from pipelines.packaged import PACKAGED
from pipelines.provenance import versions
from pipelines.run_folder import RunFolder

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
CODE, MODEL, TRAIN = "code", "model", "train"


@dataclass(frozen=True)
class Exported:
    """A package on the disk.

    Attributes
    ----------
    n_bytes
        Of all files, unpacked.
    """

    path: Path
    n_files: int
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.path}: {self.n_files:,} files, {readable(self.n_bytes)} unpacked"


def export(run: RunFolder, out: Path, *, choice: str = "best", max_bytes: int | None = None) -> Exported:
    """The package at `out`, a new folder, or a zip if the name ends so; there whole or not at all.

    Parameters
    ----------
    choice
        An ensemble's or base learner's name, or ``best``, as `pipelines.submitting.submit` takes it.
    max_bytes
        What the contest allows, unpacked.

    Raises
    ------
    CompetitionError
        `out` is there, the package is too large, weights were freed, or a text in it holds a secret or a path of this
        machine.
    """
    if os.path.lexists(out):
        raise CompetitionError(f"{out} is there already", advice="name a new folder or zip file")
    what = contents(run, choice)
    _refuse_size(what.n_bytes + sum(file.stat().st_size for file in source_files().values()), max_bytes)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        _write(work, what, choice)
        refuse_traces(work, run, besides=[CODE])
        found = _measured(work, out)
        _refuse_size(found.n_bytes, max_bytes)
        if out.suffix == ".zip":
            _zip(work, work.with_suffix(".zip"), top=out.stem)
            work.with_suffix(".zip").rename(out)
        else:
            work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        work.with_suffix(".zip").unlink(missing_ok=True)
    return found


def _write(work: Path, what: Contents, choice: str) -> None:
    run, wanted = what.run, Wanted(choice)
    work.mkdir()
    write_model(what, work / MODEL)
    in_train = {source: f"../{MODEL}/{name}" for source, name in what.base.items()}
    write_ingredients(run, work / TRAIN, base=in_train)
    copy_source(work / CODE)
    write_script(work / "scripts" / "predict.sh", filled("predict.sh.j2"))
    title = "Trains everything again and writes the submission."
    train = filled("again.sh.j2", title=title, code=True, by_hand=by_hand(run), folders=(),
                   commands=commands(run, wanted), name=wanted.name)  # fmt: skip
    write_script(work / "scripts" / "train.sh", train)
    lines = requirements(sorted(packages_of(run)))
    (work / "requirements.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    (work / "README.md").write_text(_readme(work, what), encoding="utf-8")


def _readme(work: Path, what: Contents) -> str:
    found, used = _measured(work, work), versions()
    return filled(
        "package.md.j2",
        title=f"Code package of {', '.join(what.chosen)}",
        version=used.get("relstack", ""),
        python=platform.python_version(),
        cpu_torch=used.get("torch", "").endswith("+cpu"),
        translations=what.run.translations_file.is_file(),
        chosen=what.chosen,
        pretrained=pretrained_of(what),
        size=readable(found.n_bytes),
        n_files=f"{found.n_files:,}",
    )


def pretrained_of(what: Contents) -> dict[str, str]:
    """The pretrained weights that the chosen base learners begin with and the package does not hold: where they are."""
    found = {}
    for name in what.learners:
        weights = recipe_values(what.run.recipe(name)).get("weights")
        if weights is not None and weights["name"] not in what.base:
            packaged = PACKAGED.get(weights["name"])
            found[weights["name"]] = f"package {packaged.package}" if packaged else "the Hugging Face hub"
    return found


def packages_of(run: RunFolder) -> set[str]:
    """Distributions that carry pretrained weights which recipes of the run name, as far as they are installed."""
    named = [recipe_values(run.recipe(name)).get("weights") or {} for name in learners_of(run)]
    carried = [PACKAGED[each["name"]] for each in named if each.get("name") in PACKAGED]
    return {package for each in carried if not each.missing() for package in (each.package, *each.tools)}


def _measured(work: Path, path: Path) -> Exported:
    sizes = [file.stat().st_size for file in work.rglob("*") if file.is_file()]
    return Exported(path, len(sizes), sum(sizes))


def _refuse_size(n_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and n_bytes > max_bytes:
        raise CompetitionError(
            "the package would be too large; nothing was written",
            faults=[Fault("all files", readable(n_bytes), f"at most {readable(max_bytes)}")],
            advice="export an ensemble of fewer base learners: relstack ensemble make --models A,B --name small",
        )


def _zip(folder: Path, path: Path, *, top: str) -> None:
    """All files of `folder` in a zip, below one folder called `top`; the same files give the same bytes."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = zipfile.ZipInfo(f"{top}/{file.relative_to(folder).as_posix()}", date_time=ZIP_TIME)
            member.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
            member.create_system = 3
            member.compress_type = zipfile.ZIP_DEFLATED
            with file.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
