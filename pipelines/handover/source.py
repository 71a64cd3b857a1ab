"""relstack itself in a package: the source of its four packages, and what they need, in exact versions."""

import importlib.metadata
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from competition.errors import CompetitionError, Fault

ROOT = Path(__file__).parents[2]
PACKAGES = ("competition", "oof", "submissions", "pipelines")
BESIDES = ("LICENSE", "pyproject.toml")
LEFT_OUT = ("__pycache__", ".pyc")


def source_files() -> dict[str, Path]:
    """Path in the package -> our own file."""
    found = [file for name in PACKAGES for file in sorted((ROOT / name).rglob("*")) if file.is_file()]
    found += [ROOT / name for name in BESIDES if (ROOT / name).is_file()]
    kept = [file for file in found if not any(part.endswith(LEFT_OUT) for part in file.parts)]
    return {file.relative_to(ROOT).as_posix(): file for file in kept}


def copy_source(folder: Path) -> None:
    """Write our source below `folder`."""
    for name, file in source_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)


def requirements(besides: Iterable[str] = ()) -> list[str]:
    """``name==version`` of all that relstack needs here, with what that needs, and `besides`; sorted.

    A local part of a version (``+cpu``) is left out: no index has it.

    Raises
    ------
    CompetitionError
        Something that is needed is not installed.
    """
    wanted, found, missing = [*_direct(), *map(Requirement, besides)], dict[str, str](), list[str]()
    while wanted:
        need = wanted.pop()
        name = canonicalize_name(need.name)
        if name in found or not _applies(need):
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        found[name] = distribution.version.partition("+")[0]
        wanted += [each for each in map(Requirement, distribution.requires or ()) if _applies(each, need.extras)]
    if missing:
        raise CompetitionError(
            "a package's requirements cannot be told",
            faults=[Fault(name, "is not installed") for name in sorted(missing)],
            advice="install relstack with what it needs: pip install -e .",
        )
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _direct() -> Iterator[Requirement]:
    """What relstack itself needs, without extras: from its project file, or as it was installed."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        words = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        words = [each for each in importlib.metadata.requires("relstack") or () if not re.search(r"extra\s*==", each)]
    yield from map(Requirement, words)


def _applies(need: Requirement, extras: Iterable[str] = ()) -> bool:
    """Whether a requirement holds here, for any of the extras that were asked for."""
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
