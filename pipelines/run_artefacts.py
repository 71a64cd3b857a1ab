"""The finished artefacts of a run folder, and the command that makes each of them again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from competition.artefacts import MANIFEST, beside, finished
from oof.store import PartKey, train_command
from pipelines.run_folder import RunFolder

# Folders whose sub-folders are artefacts, and files that are one, in the order of the work.
GROUPS = ("rows", "pretrained/*/*", "studies/*", "parts/*/*", "pseudo/*", "students/*", "ensembles/*", "submissions")
SINGLE_FILES = ("translations.parquet", "folds/*/*.parquet", "augmented/*/*.parquet", "leaderboard.csv")
ONCE_WITHOUT_MANIFEST = ("rows/*", "studies/*/*")  # such folders have none in runs of older versions
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
    def path(self) -> Path:
        """Its folder or file: what is deleted before it is made again."""
        return self.manifest.parent if self.manifest.name == MANIFEST else self.manifest.parent / Path(self.name).name


def artefacts(run: RunFolder) -> list[Artefact]:
    """All finished artefacts of the run, rows first and submissions last."""
    found = {*_folders(run), *_files(run)}
    order = [pattern.partition("/")[0] for pattern in ("rows", *SINGLE_FILES[:3], *GROUPS, *SINGLE_FILES[3:])]
    return sorted(found, key=lambda artefact: (order.index(artefact.name.partition("/")[0]), artefact.name))


def command(run: RunFolder, name: str) -> str:
    """The command that makes an artefact again, once what is left of it is deleted."""
    kind, *rest = name.split("/")
    where = f"--run {run.root}"
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
    options = [f"--data {settings.data}", f"--tasks {','.join(settings.tasks)}"]
    for key in ("plan", "folds", "depth", "seed", "cleaning", "translations", "limit"):
        value = getattr(settings, key)
        if value != type(settings).model_fields[key].default:
            options.append(f"--{key} {value}")
    if settings.relabel_unknown:
        options.append("--relabel-unknown")
    return f"relstack split --run {run.root} {' '.join(options)}"


_COMMANDS = {
    "pretrained": f"pretrain --model {RECIPE}",
    "studies": f"tune --model {RECIPE} --vary KEY=VALUES",
    "augmented": f"augment --recipe {RECIPE}",
    "pseudo": "pseudo",
    "students": f"distil --student {RECIPE}",
    "ensembles": "ensemble make",
}


def _folders(run: RunFolder) -> Iterator[Artefact]:
    groups = [folder for pattern in GROUPS for folder in run.root.glob(pattern)]
    known = {path for group in groups for path in finished(group)}
    known |= {path for pattern in ONCE_WITHOUT_MANIFEST for path in run.root.glob(pattern) if path.is_dir()}
    for folder in known:
        yield Artefact(folder.relative_to(run.root).as_posix(), folder / MANIFEST)


def _files(run: RunFolder) -> Iterator[Artefact]:
    for pattern in SINGLE_FILES:
        for path in run.root.glob(pattern):
            if not path.name.startswith("."):
                yield Artefact(path.relative_to(run.root).as_posix(), beside(path))
