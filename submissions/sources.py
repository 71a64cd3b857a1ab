"""Where predictions stand: the files of a folder, the members of a zip, and the contents of each of them."""

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault
from competition.json_files import parse_json
from competition.regular_files import refuse_irregular
from competition.tasks import Task
from submissions.build import MANIFEST_NAME, Fields, RowId, csv_name, text_name, upload_name, zip_name
from submissions.formats import (
    ABSENT,
    SUFFIXES,
    Record,
    csv_predictions,
    csv_records,
    json_predictions,
    json_records,
    shown,
)

EXCERPT = 60
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError,
    struct.error,
)  # fmt: skip
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_UNPACKED, MOST_RATIO = 4 * 2**30, 100
"""A member's bytes; and how many of them to a packed one: our own files, which repeat their keys, have 3 to 20."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A file's predictions by row id, in the order of the file, and all that is wrong with the file."""

    by_id: Mapping[RowId, float]
    faults: Sequence[Fault]


def collect(records: Iterable[Record], name: str, wanted: Mapping[RowId, Fields | None] | None, task: Task) -> Contents:
    """The contents of a file; each id must stand there once and, if `wanted` is given, be one of its ids.

    Where both the record and `wanted` hold fields they must be equal.
    """
    faults: list[Fault] = []
    first: dict[RowId, int] = {}
    by_id: dict[RowId, float] = {}
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
            faults.append(extra_id(f"{name}:{line}, id {row_id!r}", wanted))
        elif wanted is not None and fields != wanted[row_id]:
            faults += _field_faults(fields, wanted[row_id], f"{name}:{line}, id {row_id!r}", task)
    faults += [missing_id(name, row_id) for row_id in wanted or () if row_id not in first]
    return Contents(by_id, faults)


def _field_faults(found: tuple[Any, ...] | None, wanted: Fields | None, where: str, task: Task) -> list[Fault]:
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


def id_kind(ids: Iterable[RowId]) -> type[int] | type[str]:
    """Whether the ids are integers or text: all are of one kind, the first tells."""
    return int if isinstance(next(iter(ids), ""), int) else str


def extra_id(where: str, wanted: Mapping[RowId, Any]) -> Fault:
    """The fault of an id that is not among the `wanted` ones."""
    kind = "integers" if id_kind(wanted) is int else "text"
    return Fault(where, "is not an id of the input", f"one of the input's {len(wanted):,} ids, which are {kind}")


def missing_id(where: str, row_id: RowId) -> Fault:
    """The fault of a row without a prediction."""
    return Fault(f"{where}, id {row_id!r}", "is missing", "a prediction for every row of the input")


@dataclass(frozen=True, eq=False)
class Source:
    """The bytes of one file, or of one member of a zip, that holds a task's predictions."""

    name: str
    task: Task
    data: bytes

    @property
    def is_csv(self) -> bool:
        """Whether it is a CSV file, whose ids are text."""
        return Path(self.name).suffix == ".csv"

    def contents(self, fields: Mapping[RowId, Fields] | None = None) -> Contents:
        """The contents, checked against `fields` by row id where given."""
        if fields is not None and (predictions := self._predictions(fields)) is not None:
            return Contents(dict(zip(fields, predictions, strict=True)), ())
        if not self.is_csv:
            return collect(json_records(self.data, self.name, self.task), self.name, fields, self.task)
        records = csv_records(self.data, self.name, self.task)
        if fields is None:
            return collect(records, self.name, None, self.task)
        by_text: dict[RowId, RowId] = {str(row_id): row_id for row_id in fields}
        found = collect(records, self.name, dict.fromkeys(by_text), self.task)
        return Contents({by_text.get(key, key): value for key, value in found.by_id.items()}, found.faults)

    def _predictions(self, fields: Mapping[RowId, Fields]) -> list[int] | None:
        """The predictions, if the file is just what we write for these rows."""
        if self.is_csv:
            return csv_predictions(self.data, self.task, fields)
        return json_predictions(self.data, self.task, fields)


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
        raise CompetitionError(f"there is no file or folder {path}", advice="name a folder, .txt, .csv or .zip")
    if path.suffix == ".zip":
        return zip_sources(path, tasks)
    if path.suffix not in SUFFIXES:
        raise CompetitionError(
            f"{path}: no telling the format by the suffix {path.suffix!r}",
            advice=f"name a folder or a file that ends in {', '.join(SUFFIXES)} or .zip",
        )
    named = list(tasks) if len(tasks) == 1 else [task for task in tasks if path.stem in _stems(task)]
    if not named:
        raise CompetitionError(f"{path}: no telling which task it is for", advice="name one task")
    return [Source(path.name, named[0], path.read_bytes())], []


def _stems(task: Task) -> set[str]:
    """The names of the task's files without their suffixes."""
    return {Path(name).stem for name in (text_name(task), csv_name(task)) if name}


def _folder_sources(folder: Path, tasks: Sequence[Task]) -> tuple[list[Source], list[Fault]]:
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    # A folder of CSV files alone is a submission too: other contests want no JSON Lines.
    archive = zip_name(tasks)
    csv_only = archive not in files and not any(text_name(task) in files for task in tasks)
    required = [(csv_name(task) if csv_only else "") or upload_name(task) for task in tasks]
    allowed = {name: task for name_of in (text_name, csv_name) for task in tasks if (name := name_of(task))}
    faults = [Fault(name, "is not there", "a file for every task") for name in required if name not in files]
    faults += [
        Fault(name, "belongs to no task", f"one of {', '.join(allowed)}")
        for name in files
        if name.startswith("submit_") and name not in allowed
    ]
    sources = [Source(name, task, files[name].read_bytes()) for name, task in allowed.items() if name in files]
    if archive in files:
        members, zip_faults = zip_sources(files[archive], tasks)
        sources, faults = sources + members, faults + zip_faults
    return sources, faults + (_digest_faults(files) if MANIFEST_NAME in files else [])


def _digest_faults(files: Mapping[str, Path]) -> list[Fault]:
    try:
        listed = parse_json(files[MANIFEST_NAME].read_bytes())["files"]
        digests = {name: entry["sha256"] for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Fault(MANIFEST_NAME, f"lists no files: {str(error)[:200]}", "the sha256 of every file")]
    if not all(isinstance(digest, str) for digest in digests.values()):
        return [Fault(MANIFEST_NAME, "lists digests that are no text", "the sha256 of every file")]
    faults = [Fault(name, "is not there", f"listed in {MANIFEST_NAME}") for name in digests if name not in files]
    return faults + [
        Fault(name, "is not the file that was written", f"sha256 {digest}, as in {MANIFEST_NAME}")
        for name, digest in digests.items()
        if name in files and hashlib.sha256(files[name].read_bytes()).hexdigest() != digest
    ]


def zip_sources(path: Path, tasks: Sequence[Task]) -> tuple[list[Source], list[Fault]]:
    """The members of a zip for upload, and what is wrong with it: flat, one file per task, nothing else."""
    names = {upload_name(task): task for task in tasks}
    try:
        refuse_irregular(path)
        with zipfile.ZipFile(path) as archive:
            members = [info.orig_filename for info in archive.infolist()]
            known = archive.namelist()
            found = {
                name: _read_member(archive, name, path.name) for name in names if name in members and name in known
            }
    except UNREADABLE as error:
        return [], [Fault(path.name, f"unreadable: {error}", "a zip")]
    faults = [fault for name in members if name not in names for fault in [_stranger(path.name, name, names)]]
    faults += [
        Fault(f"{path.name}/{name}", f"stands there {members.count(name)} times", "once for every task")
        for name in names
        if members.count(name) != 1
    ]
    faults += [data for data in found.values() if isinstance(data, Fault)]
    sources = [
        Source(f"{path.name}/{name}", names[name], data) for name, data in found.items() if isinstance(data, bytes)
    ]
    return sources, faults


def _read_member(archive: zipfile.ZipFile, name: str, zip_name: str) -> bytes | Fault:
    info = archive.getinfo(name)
    most = min(MOST_UNPACKED, info.compress_size * MOST_RATIO)
    if info.compress_type not in PACKED or info.file_size > most:
        found = f"{info.compress_size:,} bytes that claim to unpack to {info.file_size:,}"
        return Fault(f"{zip_name}/{name}", found, f"a deflated member of at most {most:,} bytes")
    try:
        with archive.open(info) as member:
            return member.read(info.file_size)  # with a size, so that no more is unpacked
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
