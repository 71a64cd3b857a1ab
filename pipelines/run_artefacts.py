"""The finished artefacts of a run folder, and the command that makes each of them again."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from competition.artefacts import LEFTOVERS, MANIFEST, beside, is_finished
from oof.store import PartKey, train_command
from pipelines.run_folder import RunFolder

# Folders and files that are artefacts, in the order of the work.
PATTERNS = (
    "rows/*/",
    "translations.parquet",
    "folds/*/*.parquet",
    "pretrained/*/*/*/",
    "augmented/*/*.parquet",
    "studies/*/*/",
    "parts/*/*/*/",
    "pseudo/*/*/",
    "students/*/*/",
    "ensembles/*/*/",
    "leaderboard.csv",
    "submissions/*/",
)
ORDER = tuple(pattern.partition("/")[0] for pattern in PATTERNS)
ONCE_WITHOUT_MANIFEST = ("rows", "studies")  # folders that have none in runs of older versions
RECIPE = "RECIPE"


@dataclass(frozen=True)
class Artefact:
    """One finished artefact.

    Attributes
    ----------
    name
        The path in the run of its folder or file: what people call it.
    manifest
        Where its manifest is, or would be.
    """

    name: str
    manifest: Path

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, not a file with a manifest beside it."""
        return self.manifest.name == MANIFEST

    @property
    def path(self) -> Path:
        """Its folder or file: what is deleted before it is made again."""
        return self.manifest.parent if self.is_folder else self.manifest.with_name(Path(self.name).name)

    @property
    def manifest_name(self) -> str:
        """The path of its manifest in the run."""
        return f"{self.name}/{MANIFEST}" if self.is_folder else beside(Path(self.name)).as_posix()


def artefacts(run: RunFolder) -> list[Artefact]:
    """All finished artefacts of the run, rows first and submissions last."""
    paths = ((pattern, path) for pattern in PATTERNS for path in run.root.glob(pattern) if _counts(pattern, path))
    return in_order(_artefact(run, pattern, path.relative_to(run.root).as_posix()) for pattern, path in paths)


def in_order(found: Iterable[Artefact]) -> list[Artefact]:
    """Artefacts in the order of the work: each after those that it was made of."""
    return sorted(found, key=lambda artefact: (ORDER.index(artefact.name.partition("/")[0]), artefact.name))


def artefact_of(run: RunFolder, manifest_name: str) -> Artefact | None:
    """The artefact whose manifest has this path in a run; None if it is no manifest of an artefact."""
    path = PurePosixPath(manifest_name)
    for pattern in PATTERNS:
        is_folder = pattern.endswith("/")
        name = path.parent if is_folder else path.with_suffix(PurePosixPath(pattern).suffix)
        same_length = len(name.parts) == len(PurePosixPath(pattern).parts)
        artefact = _artefact(run, pattern, name.as_posix())
        if same_length and name.match(pattern) and name.suffix not in LEFTOVERS and artefact.manifest_name == str(path):
            return artefact
    return None


def _artefact(run: RunFolder, pattern: str, name: str) -> Artefact:
    path = run.root / name
    return Artefact(name, path / MANIFEST if pattern.endswith("/") else beside(path))


def _counts(pattern: str, path: Path) -> bool:
    """Whether what a pattern found is a finished artefact, no leftover of a kill."""
    if path.suffix in LEFTOVERS or path.name.startswith("."):
        return False
    if pattern.startswith("folds/"):  # no version wrote them without: a kill came before the manifest
        return beside(path).is_file()
    return path.is_file() or is_finished(path) or pattern.startswith(ONCE_WITHOUT_MANIFEST)


def command(run: RunFolder, name: str) -> str:
    """The command that makes an artefact again, once what is left of it is deleted."""
    kind, *rest = name.split("/")
    where = f"--run {shlex.quote(str(run.root))}"
    if kind == "parts":
        task, learner, fold = rest
        return f"{train_command(PartKey(task, learner, int(fold.removeprefix('fold-'))))} {where}"
    if kind == "submissions":
        return f"relstack submit {where} --name {rest[0]}"
    if kind == "leaderboard.csv":
        return f"relstack leaderboard {where}"
    if kind not in _COMMANDS:
        return split_command(run)
    task, artefact = rest[0], Path(rest[1]).stem if kind == "augmented" else rest[1]
    return f"relstack {_COMMANDS[kind]} {where} --task {task} --{'study' if kind == 'studies' else 'name'} {artefact}"


def split_command(run: RunFolder) -> str:
    """The command that made the rows and folds, its options those of ``run.toml`` that are not the default."""
    settings = run.settings()
    options = ["--data", settings.data, "--tasks", ",".join(settings.tasks)]
    for key in ("competition", "plan", "folds", "depth", "seed", "cleaning", "translations", "limit"):
        value = getattr(settings, key)
        if value != type(settings).model_fields[key].default:
            options += [f"--{key}", str(value)]
    if settings.relabel_unknown:
        options.append("--relabel-unknown")
    return shlex.join(("relstack", "split", "--run", str(run.root), *options))


_COMMANDS = {
    "pretrained": f"pretrain --model {RECIPE}",
    "studies": f"tune --model {RECIPE} --vary KEY=VALUES",
    "augmented": f"augment --recipe {RECIPE}",
    "pseudo": "pseudo",
    "students": f"distil --student {RECIPE}",
    "ensembles": "ensemble make",
}
