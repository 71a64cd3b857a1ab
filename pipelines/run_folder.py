"""What a run leaves behind: every file of a run folder has its name here, and nowhere else."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from competition.artefacts import MANIFEST, sha256, write_text
from competition.contest import BUILT_IN_CONTEST, FILE_NAME, Contest, load_contest
from competition.errors import CompetitionError, Fault, MismatchError
from competition.fold_store import Folds, load_folds
from competition.languages import relabel_unknown
from competition.parquet_files import Kind, read_frame
from competition.rows import digest_rows
from competition.tasks import SPLITS, Task
from oof.store import Origin, PartStore
from pipelines.config import Recipe, Section, learner_name, load_recipe, read_toml, shown
from pipelines.locks import alone
from pipelines.secrets import refuse_secrets

ROWS: dict[str, Kind] = {
    "id": "id",
    "language": "text",
    "query": "text",
    "target": "text",
    "label": "label",
    "raw_query": "text",
    "raw_target": "text or null",
}
TRANSLATIONS: dict[str, Kind] = {"language": "text", "query": "text", "query_en": "text"}
MAKE_AGAIN = "delete that folder of rows (or the translations) and give the command that made the run again: parts stay"
NAME = re.compile(r"[\w-][\w.-]{0,99}")
FREE_TO_CHANGE = ("recipes", "overrides", "data", "translations", "competition")


class RunSettings(Section):
    """``run.toml``: all that was asked for when the run was made.

    `competition` is the name of a contest or of its file; without one it is the built-in contest. The run keeps a copy.
    """

    data: str
    competition: str | None = None
    tasks: tuple[str, ...] = Field(min_length=1)
    recipes: tuple[str, ...] = ()
    plan: str = "auto"
    folds: int = Field(5, ge=3, le=100)
    depth: int = Field(3, ge=1)
    seed: int = Field(0, ge=0)
    cleaning: str = "winner"
    translations: str | None = None
    relabel_unknown: bool = False
    limit: int | None = Field(None, ge=10)
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """``run.toml``."""
        return self.root / "run.toml"

    @property
    def contest_file(self) -> Path:
        """``competition.toml``, the run's own copy; runs of the built-in contest have none."""
        return self.root / FILE_NAME

    @property
    def parts(self) -> PartStore:
        """The OOF store."""
        return PartStore(self.root / "parts")

    @property
    def translations_file(self) -> Path:
        """English by (language, normalised query)."""
        return self.root / "translations.parquet"

    @property
    def leaderboard_file(self) -> Path:
        """``leaderboard.csv``."""
        return self.root / "leaderboard.csv"

    @property
    def timings_file(self) -> Path:
        """Seconds and peak memory of every stage that worked."""
        return self.root / "timings.csv"

    @property
    def logs(self) -> Path:
        """What the jobs of the run said, and how they stand: ``<job>.log`` and ``<job>.json``."""
        return self.root / "logs"

    def job_log(self, name: str) -> Path:
        """What a job said, attempt after attempt."""
        return self.logs / f"{name}.log"

    def job_state(self, name: str) -> Path:
        """How a job stands, see `pipelines.job_state`."""
        return self.logs / f"{name}.json"

    @property
    def trackers_folder(self) -> Path:
        """What experiment trackers keep on this disk."""
        return self.root / "trackers"

    @property
    def report_file(self) -> Path:
        """The page that `relstack report` writes."""
        return self.root / "report.html"

    def recipe_copy(self, learner: str) -> Path:
        """The run's copy of a recipe that does not come with relstack."""
        return self.root / "recipes" / f"{learner}.toml"

    def rows_file(self, task: str, split: str) -> Path:
        """Cleaned rows of one split."""
        return self.root / "rows" / task / f"{split}.parquet"

    def folds_folder(self, task: str) -> Path:
        """Where the task's fold files stand."""
        return self.root / "folds" / task

    def tables(self, task: str) -> Path:
        """Folder of features that are the same in every fold; they are made again where they are missing."""
        return self.root / "tables" / task

    def ensemble(self, task: str, name: str) -> Path:
        """Folder of one ensemble."""
        return self.root / "ensembles" / task / plain_name(name)

    def submission(self, name: str) -> Path:
        """Folder of one submission."""
        return self.root / "submissions" / plain_name(name)

    @property
    def uploads_file(self) -> Path:
        """What was uploaded to contests' hosts."""
        return self.root / "uploads.json"

    def card(self, submission: str) -> Path:
        """Folder of the model card of one submission."""
        return self.root / "cards" / plain_name(submission)

    def pretrained(self, task: str, name: str) -> Path:
        """Folder of the pretrained weights of one name, for fold training of a task."""
        return self.root / "pretrained" / task / plain_name(name)

    def pseudo(self, task: str, name: str) -> Path:
        """Folder of one set of pseudo-labels."""
        return self.root / "pseudo" / task / plain_name(name)

    def student(self, task: str, name: str) -> Path:
        """Folder of one distilled student."""
        return self.root / "students" / task / plain_name(name)

    def study(self, task: str, name: str) -> Path:
        """Folder of one study of a base learner's recipe."""
        return self.root / "studies" / task / plain_name(name)

    def augmented(self, task: str, name: str) -> Path:
        """Extra training rows that were made by translation."""
        return self.root / "augmented" / task / f"{plain_name(name)}.parquet"

    def manifests(self, folders: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of the manifests of finished artefacts, by their path in the run."""
        files = [folder / MANIFEST for folder in folders]
        return {file.relative_to(self.root).as_posix(): sha256(file) for file in files}

    def settings(self) -> RunSettings:
        """The settings of the run.

        Raises
        ------
        CompetitionError
            There is no run here, or ``run.toml`` was broken by hand.
        """
        if not self.settings_file.is_file():
            raise CompetitionError(
                f"{self.root} is not a run folder: it has no run.toml",
                advice="make one with `relstack split --data DIR --run DIR`, or `relstack run`",
            )
        try:
            return RunSettings.model_validate(read_toml(self.settings_file))
        except ValidationError as error:
            faults = [Fault(f"run.toml: {'.'.join(map(str, e['loc']))[:80]}", e["msg"][:300]) for e in error.errors()]
            advice = "mend the keys named, or make the run again in another --run folder"
            raise CompetitionError("run.toml is not usable", faults=faults, advice=advice) from error

    def write_settings(self, settings: RunSettings) -> None:
        """Keep the settings of a new run, or new recipes and overrides of an old one."""
        refuse_secrets(settings.model_dump(mode="json", exclude_none=True), "run.toml")
        self.root.mkdir(parents=True, exist_ok=True)
        write_text(self.settings_file, settings_text(settings))

    def agree_on(self, settings: RunSettings) -> None:
        """Keep the settings of a new run; an old run that was made with others is refused, the differences named."""
        with alone(self.settings_file):
            if not self.settings_file.is_file():
                self.write_settings(settings)
                return
            refuse_other_settings(self.settings(), settings)
            if not is_sealed(self.settings_file.read_bytes()):
                self.write_settings(self.settings())

    def add_recipes(self, names: Sequence[str], overrides: Sequence[str]) -> None:
        """Record base learners of the run and the recipe keys that were overridden for them.

        Of several processes that do so at once, none loses what another one recorded.

        Raises
        ------
        CompetitionError
            There is no run here, or a recipe cannot be so; nothing is recorded then.
        """
        before = self.settings()  # refuses a folder that is no run, before a lock is left in it
        for name in names:
            load_recipe(name, (*before.overrides, *overrides))
        _refuse_namesakes((*before.recipes, *names))
        with alone(self.settings_file):
            settings = self.settings()
            values = {
                "recipes": tuple(dict.fromkeys((*settings.recipes, *names))),
                "overrides": tuple(dict.fromkeys((*settings.overrides, *overrides))),
            }
            if settings.model_copy(update=values) != settings:
                self.write_settings(settings.model_copy(update=values))
            for path in (Path(name) for name in names if name.endswith(".toml")):
                copy, text = self.recipe_copy(path.stem), path.read_text("utf-8")
                if not copy.is_file() or copy.read_text("utf-8") != text:
                    copy.parent.mkdir(exist_ok=True)
                    write_text(copy, text)

    def tasks(self) -> list[Task]:
        """The tasks of the run that have rows."""
        contest = self.contest()
        return [contest.task(name) for name in self.settings().tasks if self.rows_file(name, "train").is_file()]

    def tasks_named(self, name: str | None) -> list[Task]:
        """All tasks of the run, or the one of this name.

        Raises
        ------
        CompetitionError
            The run has no rows of a task of this name.
        """
        tasks = self.tasks()
        chosen = [task for task in tasks if name in (None, task.name)]
        if name is not None and not chosen:
            fault = Fault(shown(name), "no such task", " or ".join(task.name for task in tasks))
            raise CompetitionError(f"{self.root} has no such task", faults=[fault], advice="name one of its tasks")
        return chosen

    def contest(self) -> Contest:
        """The contest that the run was made for.

        Raises
        ------
        CompetitionError
            There is no run here, or its copy of the contest is missing or was broken by hand.
        """
        return BUILT_IN_CONTEST if self.settings().competition is None else load_contest(self.contest_file)

    def task(self, name: str) -> Task:
        """The task of this name; a CompetitionError if the run's contest has none."""
        return self.contest().task(name)

    def splits(self, task: str) -> list[str]:
        """Which of train, dev and test the task has."""
        return [split for split in SPLITS if self.rows_file(task, split).is_file()]

    def rows(self, task: str) -> dict[str, pd.DataFrame]:
        """Split -> rows with `query_en`, as every later stage sees them."""
        if not self.rows_file(task, "train").is_file():
            raise CompetitionError(
                f"{self.root} has no rows of task {task}",
                advice="name a task of this run, or make a run with `relstack split --data DIR --run DIR`",
            )
        return read_rows_of_run(self, task, _stamp(self, task))

    def with_english(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Cleaned rows with `query_en` from the run's translations, "" where it has none.

        Where the run relabels, queries that say English and are not get the language ``unk``; `raw_language` is what
        the file says.
        """
        known = read_translations_of(self) if self.translations_file.is_file() else None
        rows = rows.assign(query_en=english_of(rows, known))
        if not self.settings().relabel_unknown:
            return rows
        return rows.assign(raw_language=rows["language"], language=relabel_unknown(rows))

    def folds(self, task: str) -> Folds:
        """The task's saved folds."""
        files = sorted(self.folds_folder(task).glob("*.json"))
        if len(files) != 1:
            raise CompetitionError(
                f"{task}: {len(files)} fold files in {self.folds_folder(task)}, one is expected",
                advice="make the folds with `relstack split --data DIR --run DIR`",
            )
        return load_folds(self.folds_folder(task), files[0].stem)

    def recipe(self, learner: str, more: Sequence[str] = ()) -> Recipe:
        """The recipe of a base learner of this run, its overrides and `more` applied.

        Of a recipe file that is not where it was, or on another machine, the run's copy is read.
        """
        settings = self.settings()
        name = {learner_name(name): name for name in settings.recipes}.get(learner, learner)
        if name.endswith(".toml") and not Path(name).is_file() and self.recipe_copy(learner).is_file():
            name = str(self.recipe_copy(learner))
        return load_recipe(name, (*settings.overrides, *more))

    def origin(self, task: str, recipe: Mapping[str, Any]) -> Origin:
        """What a part made now would be made from."""
        rows = self.rows(task)
        digests = {split: digest_model_rows(frame) for split, frame in rows.items()}
        return Origin(digests, self.folds(task).digest, recipe, self.settings().seed)


def plain_name(name: str) -> str:
    """The name of an artefact, which becomes one of a folder or file, if it is one and leads nowhere else.

    Raises
    ------
    CompetitionError
        It is empty, long, begins with a dot or holds other characters than letters, digits, dot, hyphen, underscore.

    Examples
    --------
    >>> plain_name("second-try")
    'second-try'
    """
    if not NAME.fullmatch(name):
        fault = Fault(shown(name), "a name with other characters", "letters, digits, . - _ and no dot first")
        raise CompetitionError("this name cannot be", faults=[fault], advice="give another name")
    return name


def settings_text(settings: RunSettings) -> str:
    """The text of ``run.toml``, its seal last."""
    values = settings.model_dump(mode="json", exclude_none=True)
    text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return text + seal_line(text)


def seal_line(text: str) -> str:
    """The last line of ``run.toml``: what `is_sealed` compares the others with."""
    return f"# sha256 {hashlib.sha256(text.encode()).hexdigest()}\n"


def is_sealed(data: bytes) -> bool | None:
    """Whether a ``run.toml`` is as it was written; None for those of older versions, which have no seal."""
    lines = data.splitlines(keepends=True)
    if all(b" = " in line for line in lines):
        return None
    return lines[-1] == seal_line(b"".join(lines[:-1]).decode(errors="replace")).encode()


def _refuse_namesakes(names: Sequence[str]) -> None:
    """Refuse two recipes that would make parts under one name."""
    files: dict[str, str] = {}
    for name in names:
        first = files.setdefault(learner_name(name), name)
        if first != name and (not first.endswith(".toml") or Path(first).resolve() != Path(name).resolve()):
            fault = Fault(name, f"its base learner would be called {learner_name(name)}, as that of {first}")
            raise CompetitionError(
                "two recipes have one name", faults=[fault], advice="give the recipe's file another name"
            )


def refuse_other_settings(old: RunSettings, new: RunSettings) -> None:
    """A run keeps its settings, but for recipes, overrides, and where the input files lie."""
    faults = [
        Fault(
            f"run.toml: {key}",
            f"asked for {getattr(new, key)!r}",
            f"{getattr(old, key)!r}, as the run was made",
        )
        for key in type(old).model_fields
        if key not in FREE_TO_CHANGE and getattr(old, key) != getattr(new, key)
    ]
    if faults:
        raise MismatchError(
            "this run folder was made with other settings", faults=faults, advice="use another --run folder"
        )


@lru_cache(maxsize=8)
def read_rows_of_run(run: RunFolder, task: str, stamp: tuple[tuple[int, int, int], ...]) -> dict[str, pd.DataFrame]:
    """Split -> rows of the run with translations joined; `stamp` (of the files) keeps the memory honest."""
    return {split: run.with_english(read_split(run, task, split)) for split in run.splits(task)}


def read_split(run: RunFolder, task: str, split: str) -> pd.DataFrame:
    """The cleaned rows of one split, as `relstack split` wrote them; a CompetitionError if the file is damaged."""
    rows = read_frame(run.rows_file(task, split), ROWS, what=f"the {split} rows of {task}", advice=MAKE_AGAIN)
    if rows["id"].duplicated().any():
        fault = Fault(str(run.rows_file(task, split)), "repeated ids", "each id once")
        raise CompetitionError(f"the {split} rows of {task} are damaged", faults=[fault], advice=MAKE_AGAIN)
    return rows


def read_translations_of(run: RunFolder) -> pd.DataFrame:
    """The run's translations: language, query, query_en; a CompetitionError if the file is damaged."""
    table = read_frame(run.translations_file, TRANSLATIONS, what="the translations of the run", advice=MAKE_AGAIN)
    if table.duplicated(["language", "query"]).any():
        fault = Fault(str(run.translations_file), "a query of a language stands there twice", "each once")
        raise CompetitionError("the translations of the run are damaged", faults=[fault], advice=MAKE_AGAIN)
    return table


def _stamp(run: RunFolder, task: str) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file does: clocks are set back, and in a clock's tick two files may be written."""
    files = [run.translations_file, *(run.rows_file(task, split) for split in SPLITS)]
    stats = [file.stat() if file.is_file() else None for file in files]
    return tuple((0, 0, 0) if each is None else (each.st_mtime_ns, each.st_size, each.st_ino) for each in stats)


def english_of(rows: pd.DataFrame, translations: pd.DataFrame | None) -> pd.Series:
    from competition.cleaning import map_distinct, normalise_query

    if translations is None:
        return pd.Series("", index=rows.index, dtype="str")
    table = translations.set_index(["language", "query"])["query_en"]
    keys = pd.MultiIndex.from_arrays([rows["language"], map_distinct(rows["query"], normalise_query)])
    return pd.Series(table.reindex(keys).to_numpy(), index=rows.index, dtype="str").fillna("")


def digest_model_rows(rows: pd.DataFrame) -> str:
    """Digest of what a model sees of the rows, translations included."""
    english = hashlib.sha256("\n".join(rows["query_en"]).encode()).hexdigest()
    return hashlib.sha256(f"{digest_rows(rows)} {english}".encode()).hexdigest()[:16]


def without_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as `predict` gets them: no label to look at."""
    return rows.drop(columns="label")
