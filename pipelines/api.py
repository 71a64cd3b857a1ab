"""The Python interface, which `relstack` re-exports: runs, ensembles and students as objects that notebooks show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from competition.errors import CompetitionError, Fault
from competition.sample import write_sample
from competition.sample_contests import write_contest_sample
from pipelines import prepare
from pipelines.audit import fold_tables
from pipelines.check import Page
from pipelines.check import check as make_page
from pipelines.comparing import compare_submissions, validate_submission
from pipelines.contests import asked_contest, named_contest, tasks_of
from pipelines.distilling import Distillation, distil
from pipelines.engine import run_all
from pipelines.notebook import Tables
from pipelines.pair_scorer import BEST, PairScorer, load_ensemble, load_student
from pipelines.prepare import read_translations
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scoreboard import leaderboard
from pipelines.status import job_lines, status_table
from pipelines.steps import combine, train_folds
from pipelines.submitting import submit
from pipelines.timing import timed
from pipelines.trust import refuse_links
from submissions.leaderboard import Leaderboard
from submissions.validate import Validation
from submissions.write import SubmissionFiles

if TYPE_CHECKING:
    from pipelines.handover.exporting import Exported
    from pipelines.translation.work import Translating
    from pipelines.verifying import Verification

Files = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Run:
    """A run folder: rows, folds, base learners, ensembles and submissions of one competition.

    Everything that is finished is left as it is, whoever asks again.
    """

    folder: RunFolder

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """The run in `folder`; a CompetitionError if there is none."""
        found = RunFolder(Path(folder))
        refuse_links(found.root, besides=found.trackers_folder / "wandb")
        found.settings()
        return cls(found)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        data: str | Path,
        competition: str | None = None,
        tasks: Sequence[str] | None = None,
        folds: int = 5,
        plan: str = "auto",
        depth: int = 3,
        seed: int = 0,
        cleaning: str = "winner",
        translations: str | Path | None = None,
        relabel_unknown: bool = False,
        limit: int | None = None,
    ) -> "Run":
        """A run of the competition's files in the folder `data`: its rows, cleaned; see `RunSettings` for the rest.

        Made again with the same settings it is the same run.

        Parameters
        ----------
        competition
            The contest: one that comes with relstack, or its .toml file; ``competition.toml`` of `data` if None.
        tasks
            All tasks of the contest if None.

        Raises
        ------
        CompetitionError
            With every fault of the files, or a run in `folder` that was made otherwise.
        """
        contest = asked_contest(competition, Path(data))
        values = {
            "data": str(Path(data).resolve()),
            "competition": contest,
            "tasks": tasks_of(contest, None) if tasks is None else tuple(tasks),
            "folds": folds,
            "plan": plan,
            "depth": depth,
            "seed": seed,
            "cleaning": cleaning,
            "translations": None if translations is None else str(Path(translations).resolve()),
            "relabel_unknown": relabel_unknown,
            "limit": limit,
        }
        run = RunFolder(Path(folder))
        settings = _settings(values)
        with timed(run, "prepare"):
            prepare.prepare(run, settings)
        return cls.open(folder)

    def split(self) -> Tables:
        """Tables by title about the folds, which are dealt now if they were not yet."""
        with timed(self.folder, "split"):
            prepare.split(self.folder)
        return Tables(fold_tables(self.folder))

    def train(self, task: str, model: str, *, fold: int | None = None, overrides: Sequence[str] = ()) -> list[Path]:
        """The parts of a base learner, trained now if they were not yet: of one fold, or of all.

        `model` is the name or path of a recipe, `overrides` are ``key=value`` of it.
        """
        return list(train_folds(self.folder, task, model, fold=fold, overrides=overrides))

    def ensemble(self, task: str, name: str = "stack", *, models: Sequence[str] | None = None) -> Path:
        """The folder of a finished ensemble, such as ``stack`` or ``blend``, of all base learners or of `models`."""
        (folder,) = combine(self.folder, [task], name, models=models)
        return folder

    def distil(self, task: str, student: str, *, name: str, ensemble: str = "stack", mix: float = 0.5) -> Path:
        """The folder of a finished student: the recipe `student`, trained on what the ensemble thinks of every row."""
        with timed(self.folder, f"distil {task}/{name}"):
            return distil(self.folder, Distillation(task, student, name, ensemble, mix))

    def run(self, recipes: Sequence[str], *, overrides: Sequence[str] = ()) -> Leaderboard:
        """Everything up to the leaderboard with these base learners: folds, training, stack and blend."""
        settings = self.folder.settings()
        values = {"recipes": tuple(recipes), "overrides": tuple(overrides)}
        return run_all(self.folder, settings.model_copy(update=values))

    def leaderboard(self) -> Leaderboard:
        """Every base learner, ensemble and student with its F1."""
        return leaderboard(self.folder)

    def submit(self, choice: str = BEST, *, split: str | None = None, name: str = "final") -> SubmissionFiles:
        """The files of a validated submission by the best ensemble of each task, or by an entry of the leaderboard."""
        with timed(self.folder, "submit"):
            return submit(self.folder, choice=choice, split=split, name=name)

    def validate(self, path: str | Path, *, split: str | None = None, task: str | None = None) -> Validation:
        """What was checked of a submission's folder, zip or file; a CompetitionError with all that is wrong with it."""
        return validate_submission(self.folder, Path(path), split=split, task=task)

    def compare(
        self, first: str | Path, second: str | Path, *, split: str | None = None, task: str | None = None
    ) -> pd.DataFrame:
        """Where two submissions differ, in total and per language."""
        return compare_submissions(self.folder, Path(first), Path(second), split=split, task=task)

    def verify(self) -> "Verification":
        """Every artefact hashed again and followed back to the files; its `faults` say what is not as it was made."""
        from pipelines.verifying import verify

        return verify(self.folder)

    def card(self, submission: str = "final", *, out: str | Path | None = None, datasets: Sequence[str] = ()) -> Path:
        """The folder with the model card of a submission and what makes it again; see `pipelines.handover.card`."""
        from pipelines.handover.card import card

        return card(self.folder, submission=submission, out=None if out is None else Path(out), datasets=datasets)

    def export(self, out: str | Path, *, ensemble: str = BEST, max_bytes: int | None = None) -> "Exported":
        """The contest's code package, written to a new folder or zip: weights, scripts, the source."""
        from pipelines.handover.exporting import export

        return export(self.folder, Path(out), choice=ensemble, max_bytes=max_bytes)

    def status(self) -> pd.DataFrame:
        """How every job of the run stands."""
        return status_table(job_lines(self.folder))

    def report(self, out: str | Path | None = None) -> Path:
        """One HTML file with all there is to see of the run."""
        from pipelines.report.writing import report

        with timed(self.folder, "report"):
            return report(self.folder, out=None if out is None else Path(out))

    def tasks(self) -> list[str]:
        """The names of the tasks that the run has rows of."""
        return [task.name for task in self.folder.tasks()]

    def __repr__(self) -> str:
        return f"<Run {self.folder.root}>"

    def _repr_html_(self) -> str:
        return self.status().to_html(index=False, na_rep="")


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(PairScorer):
    """A finished ensemble in memory, or a base learner; see `pipelines.pair_scorer` for what a score depends on."""

    @classmethod
    def load(
        cls,
        run: Run | str | Path,
        task: str | None = None,
        name: str = BEST,
        *,
        translate: str | None = None,
        glossary: Files = (),
        table: Files = (),
    ) -> "Ensemble":
        """An ensemble or base learner of a run by its name, or the best of its leaderboard.

        Parameters
        ----------
        task
            May be left out where the run has one.
        translate
            A translation recipe for queries that the run has no English of.
        glossary, table
            Files for that recipe: of a dictionary (TSV, a column per language), and translations (CSV).

        Raises
        ------
        CompetitionError
            There is none of that name, weights were freed, or pretrained weights are not to be had.
        """
        folder, chosen = _of_run(run, task)
        translating = _translating(translate, glossary=glossary, table=table)
        return cls(**vars(load_ensemble(folder, chosen, name, translating=translating)))


@dataclass(frozen=True, eq=False, repr=False)
class Student(PairScorer):
    """A distilled student in memory."""

    @classmethod
    def load(
        cls,
        run: Run | str | Path,
        task: str | None = None,
        *,
        name: str,
        translate: str | None = None,
        glossary: Files = (),
        table: Files = (),
    ) -> "Student":
        """A student of a run by its name; see `Ensemble.load`."""
        folder, chosen = _of_run(run, task)
        translating = _translating(translate, glossary=glossary, table=table)
        return cls(**vars(load_student(folder, chosen, name, translating=translating)))


def check(
    data: str | Path,
    *,
    competition: str | None = None,
    tasks: Sequence[str] | None = None,
    translations: str | Path | None = None,
) -> Page:
    """One page on a competition's files: a verdict per point, every fault with its line, the tables behind them.

    `competition` and `tasks` are as for `Run.create`.
    """
    english = None if translations is None else read_translations(Path(translations))
    asked = asked_contest(competition, Path(data))
    names = tasks_of(asked, None) if tasks is None else tuple(tasks)
    return make_page(Path(data), names, translations=english, contest=named_contest(asked))


def sample(
    folder: str | Path,
    *,
    train_rows: int = 6000,
    dev_rows: int = 1500,
    test_rows: int = 1500,
    seed: int = 0,
    competition: str | None = None,
    tasks: Sequence[str] = ("QC", "QI"),
) -> pd.DataFrame:
    """The files of a made-up competition, written to `folder`: one line each.

    Of another `competition` (amazon-esci, home-depot, wdc-products) there are all tasks, train and test.
    """
    if asked_contest(competition, None) is not None:
        assert competition is not None, "asked for by name"
        paths = write_contest_sample(competition, Path(folder), n_train=train_rows, n_test=test_rows, seed=seed)
        return pd.DataFrame({"path": list(map(str, paths)), "bytes": [path.stat().st_size for path in paths]})
    made = write_sample(folder, n_train=train_rows, n_dev=dev_rows, n_test=test_rows, seed=seed, tasks=tasks)
    return pd.DataFrame([{**vars(file), "path": str(file.path)} for file in made.files])


def _of_run(run: Run | str | Path, task: str | None) -> tuple[RunFolder, str]:
    opened = run if isinstance(run, Run) else Run.open(run)
    there = opened.tasks()
    if task is None and len(there) != 1:
        raise CompetitionError("this run has several tasks", advice=f"name one of {', '.join(there)}")
    return opened.folder, task or there[0]


def _translating(recipe: str | None, *, glossary: Files, table: Files) -> "Translating | None":
    from pipelines.translation.work import Translating, own_resources

    if recipe is None:
        if glossary or table:
            advice = "name one that uses the files: translate='offline', or translate='table'"
            raise CompetitionError("glossary and table are for a translation recipe", advice=advice)
        return None
    return Translating(recipe, resources=own_resources(tables=_paths(table), glossaries=_paths(glossary)))


def _paths(files: Files) -> list[Path]:
    return [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]


def _settings(values: dict[str, Any]) -> RunSettings:
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        faults = [Fault(".".join(map(str, e["loc"])), f"{e['msg']}, not {e['input']!r}") for e in error.errors()]
        raise CompetitionError("these settings cannot be", faults=faults) from error
