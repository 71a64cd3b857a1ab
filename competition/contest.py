"""A contest: its tasks as a ``competition.toml`` describes them; unknown keys are refused, all faults told at once.

Shipped are the files of ``competition/contests``. `BUILT_IN_CONTEST`, the one that relstack was made for, is
``cikm-2025.toml`` there, and a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from competition.errors import CompetitionError, Fault
from competition.judging import METRICS
from competition.layout import ZERO_OR_ONE, Encoding, Join, LabelRule, Layout, Value
from competition.regular_files import is_file
from competition.tasks import BUILT_IN, SPLITS, MetricName, SubmissionFormat, Task
from competition.toml_files import read_toml

CONTESTS = Path(__file__).parent / "contests"
FILE_NAME = "competition.toml"
FORM = "mend the keys named; docs/new-competition.md explains them all"

QUERY_GROUP, CATEGORY_GROUP, COLUMN_GROUP = "query-group", "category-group", "column-group"
WORDS = {"unexpected_keyword_argument": "there is no such key", "missing": "the key is missing"}


@dataclass(frozen=True)
class Columns:
    """``[tasks.NAME.columns]``: what the columns of the files are called.

    Without `id` a row's id is its line. `target` is one column, or several that are joined with `separator` between
    them; `category_separator` says that it is a category path. The language is a column, perhaps with other codes
    (`languages`), or `language_is` for all rows.
    """

    query: str
    target: str | tuple[str, ...]
    id: str = ""
    task: str = ""
    label: str = "label"
    language: str = ""
    language_is: str = ""
    languages: Mapping[str, str] = field(default_factory=dict)
    separator: str = " "
    category_separator: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target names no column")
        if bool(self.language) == bool(self.language_is):
            raise ValueError('name the language column (language = "...") or one for all rows (language_is = "en")')
        if self.languages and not self.language:
            raise ValueError("languages are the codes of a language column, and there is none")
        if self.category_separator and not isinstance(self.target, str):
            raise ValueError("a category path is one column")


@dataclass(frozen=True)
class TaskTable:
    """``[tasks.NAME]`` of a ``competition.toml``."""

    columns: Columns
    files: str | Mapping[str, str]
    submission: SubmissionFormat
    encoding: Encoding = "utf-8"
    delimiter: str = ""
    joins: tuple[Join, ...] = ()
    filters: Mapping[str, Mapping[str, Value | tuple[Value, ...]]] = field(default_factory=dict)
    labels: LabelRule = ZERO_OR_ONE
    folds: str = QUERY_GROUP
    metric: MetricName = "f1"

    def __post_init__(self) -> None:
        if isinstance(self.files, Mapping) and (strange := [key for key in self.files if key not in SPLITS]):
            raise ValueError(f"files of {', '.join(strange)}: there are {', '.join(SPLITS)}")
        if isinstance(self.files, Mapping) and not self.files.get("train"):
            raise ValueError("there must be a file of train")
        if strange := [key for key in self.filters if key not in ("all", *SPLITS)]:
            raise ValueError(f"filters of {', '.join(strange)}: there are all, {', '.join(SPLITS)}")
        if outside := [name for name in self._names() if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise ValueError(f"{', '.join(outside)}: a file must lie in the folder of the competition")
        of_scores = METRICS[self.metric].of_scores
        if of_scores != (self.submission.value == "score"):
            wanted = "score" if of_scores else "label"
            raise ValueError(f'{self.metric} judges what submission.value = "{wanted}" gives')
        self._check_folds()

    def _names(self) -> list[str]:
        names = [self.files] if isinstance(self.files, str) else list(self.files.values())
        return [*names, *(join.file for join in self.joins)]

    def _check_folds(self) -> None:
        kinds = (QUERY_GROUP, CATEGORY_GROUP, COLUMN_GROUP)
        if self.folds not in kinds:
            raise ValueError(f"folds is {self.folds!r}, and can be {', '.join(kinds)}")
        if self.folds == CATEGORY_GROUP and not self.columns.category_separator:
            raise ValueError("category-group needs a target that is a category path: columns.category_separator")
        if (self.folds == COLUMN_GROUP) != bool(self.columns.group):
            raise ValueError("folds = column-group and columns.group belong together")

    def task(self, name: str) -> Task:
        """The task that this table describes."""
        columns, several = self.columns, not isinstance(self.columns.target, str)
        return Task(
            name=name,
            target="target" if several else str(columns.target),
            target_is_category=bool(columns.category_separator),
            default_plan=self.folds,
            id=columns.id or "id",
            task=columns.task,
            language=columns.language or "language",
            query=columns.query,
            label=columns.label,
            metric=self.metric,
            layout=Layout(
                files=self.files,
                encoding=self.encoding,
                delimiter=self.delimiter,
                id_from_line=not columns.id,
                targets=tuple(columns.target) if several else (),
                separator=columns.separator,
                category_separator=columns.category_separator or ",",
                language_is=columns.language_is,
                languages=columns.languages,
                labels=self.labels,
                group=columns.group,
                joins=self.joins,
                filters=self.filters,
            ),
            submission=self.submission,
        )


@dataclass(frozen=True)
class ContestFile:
    """A whole ``competition.toml``."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    tasks: Mapping[str, TaskTable]
    about: str = ""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("a competition has one task or more: [tasks.NAME]")
        if odd := [name for name in self.tasks if not name.replace("-", "").replace("_", "").isalnum()]:
            raise ValueError(f"task {', '.join(odd)}: letters, digits, - and _ make a name")
        written = [file.replace("{task}", name) for name, each in self.tasks.items() for file in _outputs(each)]
        if twice := sorted({file for file in written if written.count(file) > 1}):
            raise ValueError(f"two tasks write {', '.join(twice)}: put {{task}} into the name")


def _outputs(table: TaskTable) -> list[str]:
    return [name for name in (table.submission.csv, table.submission.text) if name]


@dataclass(frozen=True)
class Contest:
    """The tasks of a contest, and what it is called."""

    name: str
    tasks: tuple[Task, ...]
    about: str = ""

    def task(self, name: str) -> Task:
        """The task of this name.

        Raises
        ------
        CompetitionError
            The contest has none of that name.
        """
        known = {task.name: task for task in self.tasks}
        if name not in known:
            advice = f"name one of {', '.join(known)}"
            raise CompetitionError(f"no task is called {name!r}", advice=advice)
        return known[name]


BUILT_IN_CONTEST = Contest("cikm-2025", tuple(BUILT_IN.values()))


def contest_names() -> list[str]:
    """The contests that come with relstack."""
    return sorted(path.stem for path in CONTESTS.glob("*.toml"))


def contest_path(name: str) -> Path:
    """The file of a shipped contest, or the file itself.

    Raises
    ------
    CompetitionError
        There is neither.
    """
    path = Path(name) if name.endswith(".toml") else CONTESTS / f"{name}.toml"
    if not is_file(path):
        advice = f"name a file, or one of {', '.join(contest_names())}"
        raise CompetitionError(f"there is no competition {name!r}", advice=advice)
    return path


def load_contest(name: str | Path) -> Contest:
    """The contest of a shipped name, or of a ``.toml`` file.

    Raises
    ------
    CompetitionError
        There is none, or it is not usable: every fault with file and key.
    """
    path = contest_path(str(name))
    values = read_toml(path, advice=FORM)
    try:
        found = _adapter().validate_python(values)
    except ValidationError as error:
        faults = [_fault(path.name, item) for item in error.errors(include_url=False)]
        raise CompetitionError(f"{path.name} describes no competition", faults=faults, advice=FORM) from error
    return Contest(found.name, tuple(table.task(name) for name, table in found.tasks.items()), found.about)


@cache
def _adapter() -> TypeAdapter[ContestFile]:
    return TypeAdapter(ContestFile)


def _fault(file: str, item: Any) -> Fault:
    key = ".".join(str(part) for part in item["loc"]) or "the file"
    words = WORDS.get(item["type"], "") or str(item["msg"]).removeprefix("Value error, ")[:300]
    if key.endswith(".metric"):
        words += "; grades are learnt as yes or no, so there is no regression (rmse, mae)"
    return Fault(f"{file}: {key[:80]}", words)
