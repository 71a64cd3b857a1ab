"""Which contest a run is for: asked for by name or file, described in the data folder, or the built-in one."""

from pathlib import Path

from competition.artefacts import write_text
from competition.contest import BUILT_IN_CONTEST, FILE_NAME, Contest, contest_path, load_contest
from competition.errors import Fault, MismatchError
from pipelines.run_folder import RunFolder, RunSettings


def asked_contest(competition: str | None, data: Path | None) -> str | None:
    """The contest asked for, else the ``competition.toml`` of the data folder; None: the built-in one.

    A file is named by its whole path, so that another working directory finds it too.
    """
    if competition is None and data is not None and (data / FILE_NAME).is_file():
        competition = str(data / FILE_NAME)
    if competition is None or competition == BUILT_IN_CONTEST.name:
        return None
    return str(Path(competition).resolve()) if competition.endswith(".toml") else competition


def contest_of(settings: RunSettings) -> Contest:
    """The contest that settings ask for."""
    return named_contest(settings.competition)


def named_contest(competition: str | None) -> Contest:
    """The contest of a name or file; without one the built-in one."""
    return BUILT_IN_CONTEST if competition is None else load_contest(competition)


def tasks_of(competition: str | None, tasks: str | None) -> tuple[str, ...]:
    """The names of a comma-separated list, or without one those of all tasks of a contest."""
    if tasks is None:
        return tuple(task.name for task in named_contest(competition).tasks)
    return tuple(name.strip() for name in tasks.split(",") if name.strip())


def keep_contest(run: RunFolder, settings: RunSettings) -> None:
    """Copy the contest into a new run, from where every later stage reads it.

    Raises
    ------
    MismatchError
        The run was made for another contest, or the contest's file was changed since.
    """
    if run.settings_file.is_file():
        if run.contest().tasks != contest_of(settings).tasks:
            found, own = settings.competition or BUILT_IN_CONTEST.name, run.contest_file
            fault = Fault(found, "not what the run was made for", f"the tasks that {own.name} of the run describes")
            advice = "use another --run folder"
            raise MismatchError("this run was made for another competition", faults=[fault], advice=advice)
    elif settings.competition is not None:
        run.root.mkdir(parents=True, exist_ok=True)
        write_text(run.contest_file, contest_path(settings.competition).read_text(encoding="utf-8-sig"))
