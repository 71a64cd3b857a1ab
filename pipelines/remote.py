"""Artefacts of a run to and from a store, for machines that share no file system.

A cluster works so: where the data is, ``relstack split`` and ``relstack push RUN s3://bucket/run``; in each job
``relstack pull s3://bucket/run RUN --only rows,folds``, ``relstack train --run RUN ...`` and ``relstack push RUN
s3://bucket/run``; at the end ``relstack pull s3://bucket/run RUN`` where the ensembles are made. (A recipe that begins
from pretrained weights or learns from extra rows needs ``--only rows,folds,pretrained/QC/NAME`` and so on.)

Files go first and each manifest last, so that nobody who reads the store sees an artefact before it is whole. What is
there with the same manifest is skipped, so the same call after a kill goes on with the artefact where it was. What is
fetched is hashed before it counts.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pandas as pd
from filelock import FileLock
from pydantic import ValidationError

from competition.artefacts import FREED, file_names, heal, inspect, lock_of, partial, publish, sync, write_text
from competition.contest import BUILT_IN_CONTEST, FILE_NAME, load_contest
from competition.errors import CompetitionError, Fault, MismatchError
from competition.tasks import Task
from competition.toml_files import parse_toml
from pipelines.locks import alone
from pipelines.remote_store import Store
from pipelines.run_artefacts import Artefact, artefact_of, artefacts, in_order
from pipelines.run_folder import RunFolder, RunSettings, refuse_other_settings, settings_text

log = logging.getLogger(__name__)

SETTINGS, THERE = "run.toml", "there already"
OWN_RECIPES = "recipes/*.toml"
MADE_ANEW = ("leaderboard.csv",)  # says what is there: the last one counts


@dataclass(frozen=True)
class Moved:
    """What became of one artefact: ``sent``, ``fetched``, or ``there already``."""

    artefact: str
    state: str
    files: int = 0
    bytes: int = 0


def push(run: RunFolder, url: str, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """Send the finished artefacts of a run, all or those below the names `only`; one line each: what became of it.

    Raises
    ------
    MismatchError
        The store has another artefact of the same name, or the run there has other settings or is for another
        competition; nothing is sent then.
    """
    store = Store.open(url)
    names = set(store.names())
    _to_be_kept(run, store)
    listed = _chosen([each for each in artefacts(run) if each.manifest.is_file()], only, where=str(run.root))
    _refuse_conflicts(run, store, [each for each in listed if each.manifest_name in names])
    _keep_settings(run, store)
    moved = _table(listed, lambda each: _send(run, store, each, is_there=each.manifest_name in names))
    _keep_settings(run, store)  # another job that pushed meanwhile may have overwritten ours
    return moved


def pull(url: str, run: RunFolder, *, only: Sequence[str] = ()) -> pd.DataFrame:
    """Fetch the finished artefacts of a store into a run folder, new or not; `only` and the table as for `push`.

    Raises
    ------
    CompetitionError
        There is no run at the address, names in it lead elsewhere, or a file is not what its manifest says.
    MismatchError
        The run folder has another artefact of the same name, other settings, or is for another competition; nothing is
        fetched then.
    """
    store = Store.open(url)
    names = store.names()
    settings = _settings(store)
    if settings is None:
        raise CompetitionError(f"there is no run at {url}", advice=f"make one: relstack push RUN {url}")
    tasks = _tasks(store, settings)
    _refuse_other_run(run, settings, tasks)
    found = (artefact_of(run, name) for name in names)
    listed = _chosen(in_order(each for each in found if each is not None), only, where=url)
    _refuse_conflicts(run, store, [each for each in listed if each.manifest.is_file()])
    with alone(run.settings_file):
        _refuse_other_run(run, settings, tasks)
        if run.settings_file.is_file():
            settings = _agreed(run.settings(), settings)
        elif settings.competition is not None:
            write_text(run.contest_file, store.read(FILE_NAME).decode("utf-8-sig"))
        for name in (name for name in names if PurePosixPath(name).match(OWN_RECIPES)):
            if not (run.root / name).is_file():
                write_text(run.root / name, store.read(name).decode("utf-8"))
        run.write_settings(settings)
    return _table(listed, lambda each: _fetch(run, store, each, names))


def _table(listed: Sequence[Artefact], move: Callable[[Artefact], Moved]) -> pd.DataFrame:
    moved = []
    for each in listed:
        moved.append(move(each))
        log.info("%s: %s", each.name, moved[-1].state)
    return pd.DataFrame(moved, columns=["artefact", "state", "files", "bytes"])


def _send(run: RunFolder, store: Store, each: Artefact, *, is_there: bool) -> Moved:
    if faults := inspect(each.manifest).faults:
        advice = f"relstack verify {run.root} names the command that makes it again"
        raise CompetitionError(f"{each.name} is damaged and is not sent", faults=faults, advice=advice)
    manifest = each.manifest.read_bytes()
    if is_there and store.read(each.manifest_name) == manifest:
        return Moved(each.name, THERE)
    if is_there:  # one of MADE_ANEW: while its files change it is unfinished
        store.delete(each.manifest_name)
    files = _own_files(each)
    for path in files:
        store.put(path, path.relative_to(run.root).as_posix())
    store.write(each.manifest_name, manifest)
    return Moved(each.name, "sent", len(files) + 1, sum(path.stat().st_size for path in (*files, each.manifest)))


def _own_files(each: Artefact) -> list[Path]:
    """The files of an artefact, but for its manifest."""
    if not each.is_folder:
        return [each.path]
    note = each.path / FREED
    return [*(each.path / name for name in file_names(each.path)), *([note] if note.is_file() else [])]


def _fetch(run: RunFolder, store: Store, each: Artefact, names: Sequence[str]) -> Moved:
    each.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_of(each.path)):
        if each.is_folder:
            heal(each.path)
        if each.manifest.is_file():
            _refuse_conflicts(run, store, [each])
            if each.name not in MADE_ANEW:
                return Moved(each.name, THERE)
        work, folder = partial(each.path), each.manifest_name.rpartition("/")[0]
        shutil.rmtree(work, ignore_errors=True)
        wanted = [name for name in names if name.startswith(f"{each.name}/")] if each.is_folder else [each.name]
        for name in dict.fromkeys((*wanted, each.manifest_name)):
            store.get(name, work / name.removeprefix(f"{folder}/"))
        moved = _hashed(store, each, work)
        if each.is_folder:
            publish(work, each.path)
        else:
            _put_in_place(work, each)
        return moved


def _put_in_place(work: Path, each: Artefact) -> None:
    """Move a single file and then its manifest to where they belong."""
    each.manifest.unlink(missing_ok=True)
    for path in (each.path, each.manifest):
        sync(work / path.name)
        (work / path.name).replace(path)
    sync(each.path.parent)
    work.rmdir()


def _hashed(store: Store, each: Artefact, work: Path) -> Moved:
    """What was fetched, if it is what its manifest says."""
    found = inspect(work / each.manifest.name)
    if found.faults:
        shutil.rmtree(work)
        raise CompetitionError(
            f"{each.name} in the store is damaged",
            faults=[Fault(store.url, str(fault)) for fault in found.faults],
            advice=f"delete {each.manifest_name} in the store, and push it again from where it was made",
        )
    return Moved(each.name, "fetched", found.n_files, found.n_bytes)


def _refuse_conflicts(run: RunFolder, store: Store, both: Sequence[Artefact]) -> None:
    """Refuse artefacts that are here and there and not the same."""
    faults = [
        Fault(each.name, f"manifest {there} in {store.url}", f"{here}, as in {run.root}")
        for each in both
        if each.name not in MADE_ANEW
        for there, here in [(_digest(store.read(each.manifest_name)), _digest(each.manifest.read_bytes()))]
        if there != here
    ]
    if faults:
        raise MismatchError(
            "store and run folder have different artefacts of the same name",
            faults=faults,
            advice="delete the one that is not wanted, or use another address",
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _keep_settings(run: RunFolder, store: Store) -> None:
    """Have the store hold own recipes, a new one the contest too; its settings name the recipes and overrides."""
    saved, kept = _to_be_kept(run, store)
    if saved is None and kept.competition is not None:
        store.write(FILE_NAME, run.contest_file.read_bytes())
    for copy in sorted(run.root.glob(OWN_RECIPES)):
        store.put(copy, copy.relative_to(run.root).as_posix())
    if kept != saved:
        store.write(SETTINGS, settings_text(kept).encode())


def _to_be_kept(run: RunFolder, store: Store) -> tuple[RunSettings | None, RunSettings]:
    """The settings that the store has, None if it is new, and those that it should have; another run's are refused."""
    saved = _settings(store)
    if saved is None:
        return None, run.settings()
    _refuse_other_run(run, saved, _tasks(store, saved))
    return saved, _agreed(saved, run.settings())


def _refuse_other_run(run: RunFolder, settings: RunSettings, tasks: tuple[Task, ...]) -> None:
    """Refuse settings and tasks of a store that are not those of a run folder, if that holds a run."""
    if not run.settings_file.is_file():
        return
    refuse_other_settings(run.settings(), settings)
    if run.contest().tasks != tasks:
        fault = Fault(settings.competition or BUILT_IN_CONTEST.name, "other tasks", f"those of {run.root}")
        advice = "use another run folder, or another address"
        raise MismatchError("store and run folder are for different competitions", faults=[fault], advice=advice)


def _tasks(store: Store, settings: RunSettings) -> tuple[Task, ...]:
    """The tasks of the contest of the run in the store."""
    if settings.competition is None:
        return BUILT_IN_CONTEST.tasks
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / FILE_NAME
        try:
            store.get(FILE_NAME, copy)
        except FileNotFoundError as error:
            faults = [Fault(f"{store.url}/{FILE_NAME}", "is not there")]
            advice = "copy it there from the run folder that was pushed, or push that one to another address"
            raise CompetitionError("the run in the store is not usable", faults=faults, advice=advice) from error
        return load_contest(copy).tasks


def _settings(store: Store) -> RunSettings | None:
    """The settings of the run in the store; None if there is no run."""
    try:
        return RunSettings.model_validate(parse_toml(store.read(SETTINGS).decode()))
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        faults = [Fault(f"{store.url}/{SETTINGS}", str(error))]
        raise CompetitionError(
            "the run in the store is not usable",
            faults=faults,
            advice="push it again from where it was made: relstack push RUN URL",
        ) from error


def _agreed(old: RunSettings, new: RunSettings) -> RunSettings:
    """The settings of `old` with the recipes and overrides of both; others that differ are refused."""
    refuse_other_settings(old, new)
    both = {key: tuple(dict.fromkeys((*getattr(old, key), *getattr(new, key)))) for key in ("recipes", "overrides")}
    return old.model_copy(update=both)


def _chosen(listed: Sequence[Artefact], only: Sequence[str], *, where: str) -> list[Artefact]:
    """The artefacts below the names asked for; the run's translations are part of its ``rows``."""
    found = {each.name: each for each in listed}
    if not only:
        return list(found.values())
    wanted = {name.rstrip("/") for name in only}
    wanted |= {"translations.parquet"} if "rows" in wanted else set()
    matching = {name: {each for each in found if each == name or each.startswith(f"{name}/")} for name in wanted}
    if missing := [name for name, below in matching.items() if not below and name != "translations.parquet"]:
        faults = [Fault(f"--only {name}", f"nothing of that name in {where}") for name in missing]
        raise CompetitionError("this cannot be moved", faults=faults, advice=f"there are: {', '.join(found) or 'none'}")
    chosen = set().union(*matching.values())
    return [each for name, each in found.items() if name in chosen]
