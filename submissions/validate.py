"""Check what leaves the building: a submission in memory, and its files as they stand on disk.

Every fault is gathered before the error is raised. Only a `Validation`, which exists only when there is no
fault, says "passed"; what is merely suspicious is a warning and is counted as one.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from competition.errors import CompetitionError, Fault
from competition.tasks import Task
from submissions.build import (
    ABSENT,
    MANIFEST_NAME,
    READERS,
    ZIP_NAME,
    Fields,
    Record,
    RowId,
    Submission,
    csv_name,
    raw_fields,
    row_ids,
    shown,
    text_name,
)

RATE_GAP = 0.15  # another threshold or new languages move the positive rate by less than this
EXCERPT = 60
UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Validation:
    """What was checked and found without fault.

    Attributes
    ----------
    files
        Names of the files (a zip's members as ``submit.zip/submit_QC.txt``).
    rows, positive_rates
        By task name: number of rows, share of 1 in [0, 1].
    warnings
        What is allowed but suspicious.
    """

    files: tuple[str, ...]
    rows: Mapping[str, int]
    positive_rates: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.warnings)
        head = "passed" if not count else f"passed with {count} warning{'s' if count > 1 else ''}"
        lines = [f"{head}: {', '.join(self.files)}"]
        lines += [
            f"  {task}: {n_rows:,} rows, {self.positive_rates[task]:.2%} positive"
            for task, n_rows in self.rows.items()
        ]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


# --- in memory


def validate(submission: Submission, expected_rows: pd.DataFrame) -> None:
    """Nothing if the submission predicts 0 or 1 for every row of `expected_rows` once.

    Raises
    ------
    CompetitionError
        With a fault for every id that is missing, extra or repeated, or whose prediction is not an
        integer 0 or 1.
    """
    raise_faults(f"the {submission.task.name} submission", submission_faults(submission, expected_rows))


def raise_faults(what: str, faults: Sequence[Fault]) -> None:
    """Nothing if there are no `faults`, else one error with all of them."""
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise CompetitionError(
            f"{what} has {len(faults):,} fault{plural}",
            faults=faults,
            advice="predict 0 or 1 for every input row once, then write the files with `relstack submit`",
        )


def submission_faults(submission: Submission, expected_rows: pd.DataFrame) -> list[Fault]:
    """Every fault of the submission, each naming the id."""
    name, predictions = submission.task.name, submission.predictions
    wanted, found = expected_ids(expected_rows), predictions.index.tolist()
    kind = id_kind(wanted)
    known = [type(row_id) is kind and row_id in wanted for row_id in found]
    extra = [row_id for row_id, is_known in zip(found, known, strict=True) if not is_known]
    repeated = predictions.index[predictions.index.duplicated()].unique().tolist()
    missing = wanted.keys() - {row_id for row_id, is_known in zip(found, known, strict=True) if is_known}
    faults = [_extra(f"{name}, id {row_id!r}", wanted) for row_id in dict.fromkeys(extra)]
    faults += [Fault(f"{name}, id {row_id!r}", "is repeated", "each id once") for row_id in repeated]
    faults += [_missing(name, row_id) for row_id in wanted if row_id in missing]
    return (
        faults
        + _value_faults(name, predictions)
        + ([] if wanted else [Fault(name, "there are no input rows")])
    )


def _value_faults(name: str, predictions: pd.Series) -> list[Fault]:
    values = predictions.astype(object).tolist()
    return [
        Fault(f"{name}, id {row_id!r}", f"prediction is {value!r}", "an integer, 0 or 1")
        for row_id, value in zip(predictions.index.tolist(), values, strict=True)
        if not (isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value <= 1)
    ]


def expected_ids(rows: pd.DataFrame) -> dict[RowId, Fields | None]:
    """The ids of `rows`, in order, without the fields."""
    return dict.fromkeys(row_ids(rows))


def expected_fields(rows: pd.DataFrame) -> dict[RowId, Fields | None]:
    """What the submission must repeat, by row id, in the order of `rows`."""
    wanted: dict[RowId, Fields | None] = dict(zip(row_ids(rows), raw_fields(rows), strict=True))
    assert len(wanted) == len(rows), "ids of the input rows are unique: competition.rows refuses others"
    return wanted


def id_kind(ids: Iterable[RowId]) -> type[int] | type[str]:
    """Whether the ids are integers or text: all are of one kind, the first tells."""
    return int if isinstance(next(iter(ids), ""), int) else str


def _extra(where: str, wanted: Mapping[RowId, Any]) -> Fault:
    kind = "integers" if id_kind(wanted) is int else "text"
    return Fault(
        where, "is not an id of the input", f"one of the input's {len(wanted):,} ids, which are {kind}"
    )


def _missing(where: str, row_id: RowId) -> Fault:
    return Fault(f"{where}, id {row_id!r}", "is missing", "a prediction for every row of the input")


def rate_warnings(task: Task, predictions: Iterable[int], train_rate: float | None) -> list[str]:
    """Warnings about the share of 1: all alike, or further from `train_rate` than `RATE_GAP` plus noise.

    Examples
    --------
    >>> from competition.tasks import QC
    >>> rate_warnings(QC, [1, 1, 1], None)
    ['QC: every prediction is 1']
    """
    values = np.fromiter(predictions, dtype=np.int8)
    rate = float(values.mean())
    if rate in (0.0, 1.0):
        return [f"{task.name}: every prediction is {int(rate)}"]
    if train_rate is None:
        return []
    noise = 3 * float(np.sqrt(train_rate * (1 - train_rate) / len(values)))  # three standard errors
    if abs(rate - train_rate) <= RATE_GAP + noise:
        return []
    return [f"{task.name}: {rate:.1%} of the predictions are 1, but {train_rate:.1%} of the training labels"]


# --- the contents of a file


@dataclass(frozen=True, eq=False)
class Contents:
    """A file's predictions by row id, in the order of the file, and all that is wrong with the file."""

    by_id: Mapping[RowId, int]
    faults: Sequence[Fault]


def collect(
    records: Iterable[Record], name: str, wanted: Mapping[RowId, Fields | None] | None, task: Task
) -> Contents:
    """The contents of a file; each id must stand there once and, if `wanted` is given, be one of its ids.

    Where both the record and `wanted` hold fields they must be equal.
    """
    faults: list[Fault] = []
    first: dict[RowId, int] = {}
    by_id: dict[RowId, int] = {}
    for line, row_id, prediction, fields, line_faults in records:
        faults += line_faults
        if row_id is None:
            continue
        if first.setdefault(row_id, line) != line:
            found = f"is repeated, it stands on line {first[row_id]}"
            faults.append(Fault(f"{name}:{line}, id {row_id!r}", found, "each id once"))
            continue
        if prediction is not None:
            by_id[row_id] = prediction
        if wanted is not None and row_id not in wanted:
            faults.append(_extra(f"{name}:{line}, id {row_id!r}", wanted))
        elif wanted is not None and fields != wanted[row_id]:
            faults += _field_faults(fields, wanted[row_id], f"{name}:{line}, id {row_id!r}", task)
    faults += [_missing(name, row_id) for row_id in wanted or () if row_id not in first]
    return Contents(by_id, faults)


def _field_faults(
    found: tuple[Any, ...] | None, wanted: Fields | None, where: str, task: Task
) -> list[Fault]:
    if found is None or wanted is None:
        return []
    faults = []
    for key, value, right in zip(task.text_columns, found, wanted, strict=True):
        if value is not ABSENT and value != right:  # an absent key has its own fault
            shown, expected = _excerpts(value, right)
            faults.append(Fault(where, f"{key} is {shown}", expected))
    return faults


def _excerpts(found: object, wanted: object) -> tuple[str, str]:
    """Both values for a message, long texts cut to the place where they begin to differ.

    Examples
    --------
    >>> _excerpts("cap", None)
    ("'cap'", 'None')
    """
    start = 0
    if isinstance(found, str) and isinstance(wanted, str):
        same = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), None)
        differs = min(len(found), len(wanted)) if same is None else same
        start = max(0, differs - EXCERPT // 2)
    return _excerpt(found, start), _excerpt(wanted, start)


def _excerpt(value: object, start: int) -> str:
    if not isinstance(value, str):
        return shown(value)
    end = start + EXCERPT
    return f"{'...' if start else ''}{value[start:end]!r}{'...' if end < len(value) else ''}"


# --- on disk


@dataclass(frozen=True, eq=False)
class Source:
    """The bytes of one file, or of one member of a zip, that holds a task's predictions."""

    name: str
    task: Task
    data: bytes

    def records(self) -> Iterator[Record]:
        """The records, read as the file's suffix says."""
        return READERS[Path(self.name).suffix](self.data, self.name, self.task)

    def contents(self, fields: Mapping[RowId, Fields | None] | None = None) -> Contents:
        """The contents, checked against `fields` by row id where given."""
        if fields is None or Path(self.name).suffix != ".csv":
            return collect(self.records(), self.name, fields, self.task)
        by_text: dict[str, RowId] = {str(row_id): row_id for row_id in fields}
        found = collect(self.records(), self.name, dict.fromkeys(by_text), self.task)
        return Contents(
            {by_text.get(str(key), key): value for key, value in found.by_id.items()}, found.faults
        )


def validate_files(
    path: Path | str,
    expected: Mapping[str, pd.DataFrame],
    tasks: Sequence[Task],
    *,
    train_rates: Mapping[str, float] | None = None,
) -> Validation:
    """What stands at `path`, if it is a submission for all rows of all `tasks`.

    Parameters
    ----------
    path
        A folder as `write_submission` leaves it, a zip for upload, or one task's file: JSON Lines (``.txt``,
        ``.jsonl``) or CSV (``.csv``). A single file belongs to the only task, or to the one in its name.
    expected
        The input rows by task name.
    train_rates
        The share of 1 among the training labels by task name, for the warnings.

    Raises
    ------
    CompetitionError
        With all faults of all files, each with file, line and id.
    """
    path = Path(path)
    sources, faults = find_sources(path, tasks)
    fields = {name: expected_fields(expected[name]) for name in {source.task.name for source in sources}}
    checked: list[Source] = []
    predictions: dict[str, tuple[str, Mapping[RowId, int]]] = {}
    for source in sources:
        if any(twin.task is source.task and twin.data == source.data for twin in checked):
            continue  # a zip's member is the same bytes as the file beside it: nothing new to find
        checked.append(source)
        contents = source.contents(fields[source.task.name])
        earlier = predictions.setdefault(source.task.name, (source.name, contents.by_id))
        faults += [*contents.faults, *_disagreements(source.name, contents.by_id, *earlier)]
    faults += [Fault(name, "there are no input rows") for name in predictions if not fields[name]]
    raise_faults(str(path), faults)
    rates = train_rates or {}
    found = [(task, predictions[task.name][1].values()) for task in tasks if task.name in predictions]
    return Validation(
        files=tuple(source.name for source in sources),
        rows={task.name: len(values) for task, values in found},
        positive_rates={task.name: sum(values) / len(values) for task, values in found},
        warnings=tuple(
            w for task, values in found for w in rate_warnings(task, values, rates.get(task.name))
        ),
    )


def _disagreements(
    name: str, found: Mapping[RowId, int], earlier_name: str, earlier: Mapping[RowId, int]
) -> list[Fault]:
    return [
        Fault(f"{name}, id {row_id!r}", f"prediction is {value}", f"{earlier[row_id]}, as in {earlier_name}")
        for row_id, value in found.items()
        if earlier.get(row_id, value) != value
    ]


def find_sources(path: Path, tasks: Sequence[Task]) -> tuple[list[Source], list[Fault]]:
    """The files at `path` that hold predictions of `tasks`, and what is wrong with the folder or the zip.

    Raises
    ------
    CompetitionError
        There is nothing at `path`, or no telling which task or format it is.
    """
    if path.is_dir():
        return _folder_sources(path, tasks)
    if not path.is_file():
        raise CompetitionError(
            f"there is no file or folder {path}", advice="name a folder, .txt, .csv or .zip"
        )
    if path.suffix == ".zip":
        return zip_sources(path, tasks)
    if path.suffix not in READERS:
        raise CompetitionError(
            f"{path}: no telling the format by the suffix {path.suffix!r}",
            advice=f"name a folder or a file that ends in {', '.join(READERS)} or .zip",
        )
    named = list(tasks) if len(tasks) == 1 else [task for task in tasks if path.stem == f"submit_{task.name}"]
    if not named:
        raise CompetitionError(f"{path}: no telling which task it is for", advice="name one task")
    return [Source(path.name, named[0], path.read_bytes())], []


def _folder_sources(folder: Path, tasks: Sequence[Task]) -> tuple[list[Source], list[Fault]]:
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    # A folder of CSV files alone is a submission too: other contests want no JSON Lines.
    csv_only = ZIP_NAME not in files and not any(text_name(task) in files for task in tasks)
    required = [csv_name(task) if csv_only else text_name(task) for task in tasks]
    allowed = {text_name(task): task for task in tasks} | {csv_name(task): task for task in tasks}
    faults = [Fault(name, "is not there", "a file for every task") for name in required if name not in files]
    faults += [
        Fault(name, "belongs to no task", f"one of {', '.join(allowed)}")
        for name in files
        if name.startswith("submit_") and name not in allowed
    ]
    sources = [
        Source(name, task, files[name].read_bytes()) for name, task in allowed.items() if name in files
    ]
    if ZIP_NAME in files:
        members, zip_faults = zip_sources(files[ZIP_NAME], tasks)
        sources, faults = sources + members, faults + zip_faults
    return sources, faults + (_digest_faults(files) if MANIFEST_NAME in files else [])


def _digest_faults(files: Mapping[str, Path]) -> list[Fault]:
    try:
        listed = orjson.loads(files[MANIFEST_NAME].read_bytes())["files"]
        digests = {name: entry["sha256"] for name, entry in listed.items()}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        return [Fault(MANIFEST_NAME, f"lists no files: {error!r}", "the sha256 of every file")]
    faults = [
        Fault(name, "is not there", f"listed in {MANIFEST_NAME}") for name in digests if name not in files
    ]
    return faults + [
        Fault(name, "is not the file that was written", f"sha256 {digest}, as in {MANIFEST_NAME}")
        for name, digest in digests.items()
        if name in files and hashlib.sha256(files[name].read_bytes()).hexdigest() != digest
    ]


def zip_sources(path: Path, tasks: Sequence[Task]) -> tuple[list[Source], list[Fault]]:
    """The members of a zip for upload, and what is wrong with it: flat, one file per task, nothing else."""
    names = {text_name(task): task for task in tasks}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info.orig_filename for info in archive.infolist()]
            found = {name: _read_member(archive, name, path.name) for name in names if name in members}
    except zipfile.BadZipFile as error:
        return [], [Fault(path.name, f"unreadable: {error}", "a zip")]
    faults = [fault for name in members if name not in names for fault in [_stranger(path.name, name, names)]]
    faults += [
        Fault(f"{path.name}/{name}", f"stands there {members.count(name)} times", "once for every task")
        for name in names
        if members.count(name) != 1
    ]
    faults += [data for data in found.values() if isinstance(data, Fault)]
    sources = [
        Source(f"{path.name}/{name}", names[name], data)
        for name, data in found.items()
        if isinstance(data, bytes)
    ]
    return sources, faults


def _read_member(archive: zipfile.ZipFile, name: str, zip_name: str) -> bytes | Fault:
    try:
        return archive.read(name)
    except UNREADABLE as error:
        return Fault(f"{zip_name}/{name}", f"unreadable: {error}", "an undamaged member without password")


def _stranger(zip_name: str, name: str, names: Iterable[str]) -> Fault:
    parts = re.split(r"[/\\]", name)
    if parts[0] in ("", "..") or ".." in parts or ":" in parts[0]:
        found = "points outside the zip"
    elif len(parts) > 1:
        found = "is a folder or lies in one"
    else:
        found = "belongs to no task"
    return Fault(f"{zip_name}/{name}", found, f"only {', '.join(names)}, in no folder")
