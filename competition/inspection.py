"""A competition's files as they are, faults and all: the rows that are sound, and what is said about the others.

`competition.rows` refuses a file with a single fault. Here such a file gives what can be read of it, so that one
look finds faults, oddities and what is wrong between the files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from competition.errors import Fault
from competition.layout import PLAIN
from competition.mapping import file_names, taken
from competition.raw_rows import Finding, RawRows
from competition.readers import READERS
from competition.row_checks import check_label_kinds
from competition.rows import faults_of, frame_of, locate_files, read_checked
from competition.tasks import BUILT_IN, SPLITS, Task

SUFFIXES = (*READERS, ".gz", ".bz2", ".xz", ".zst", ".zip", ".xlsx", ".xls")
LOOKS_LIKE_ROWS = re.compile(
    rf"(train|dev|test|val|valid|validation|eval)[_\-. ].*({'|'.join(map(re.escape, SUFFIXES))})", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class InspectedFile:
    """One file.

    Attributes
    ----------
    rows
        The rows without a fault: ``id, language, query, target, label`` (see `competition.rows.read_rows`), and
        ``line``, where each starts (Parquet: its row).
    faults
        All that is wrong, in the order of the lines.
    remarks
        What is odd about lines and fields, for rows that have no fault.
    """

    path: Path
    rows: pd.DataFrame
    faults: tuple[Fault, ...]
    remarks: tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class InspectedFolder:
    """All files of a competition: task name -> split -> file; what is wrong or odd about the folder itself."""

    files: Mapping[str, Mapping[str, InspectedFile]]
    faults: tuple[Fault, ...]
    remarks: tuple[Fault, ...]


def inspect_competition(folder: Path, tasks: Sequence[Task]) -> InspectedFolder:
    """Every file of `folder`, whatever is wrong with it.

    Raises
    ------
    CompetitionError
        The folder is not there or has none of the files.
    """
    found, faults = locate_files(folder, tasks)
    by_name = {task.name: task for task in tasks}
    files: dict[str, dict[str, InspectedFile]] = {name: {} for name, _ in found}
    for (name, split), path in found.items():
        files[name][split] = inspect_file(path, by_name[name], labelled=split == "train", split=split)
    return InspectedFolder(files, tuple(faults), tuple(_strays(folder, tasks)))


def inspect_file(path: Path, task: Task, *, labelled: bool, split: str = "") -> InspectedFile:
    """The sound rows of a file, its faults and its oddities."""
    raw, findings = read_checked(path, task, labelled=labelled, split=split)
    faulty = {finding.line for finding in findings}
    whole_file = 0 in faulty or raw.header_line in faulty
    sound = RawRows({}, []) if whole_file else _without(raw, faulty)
    rows = frame_of(sound, task).assign(line=list(sound.lines)) if sound.lines else _no_rows()
    remarks = [*raw.remarks, *check_label_kinds(raw, task)]
    return InspectedFile(
        path,
        rows,
        tuple(faults_of(path.name, findings, n_records=len(raw.lines))),
        () if whole_file else tuple(remark for remark in remarks if remark.line not in faulty),
    )


def _without(raw: RawRows, faulty: set[int]) -> RawRows:
    """The records whose lines are not `faulty`."""
    if not faulty:
        return raw
    kept = [place for place, line in enumerate(raw.lines) if line not in faulty]
    return taken(raw, kept)


def _no_rows() -> pd.DataFrame:
    texts = dict.fromkeys(("language", "query", "target"), "str")
    columns = {"id": "int64", **texts, "label": "Int8", "line": "int64"}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})


def _strays(folder: Path, tasks: Sequence[Task]) -> Iterator[Fault]:
    """Files that nobody reads though their names say that they hold rows."""
    read = {name for task in (*tasks, *_beside(tasks)) for name in file_names(task)}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in read and LOOKS_LIKE_ROWS.fullmatch(path.name):
            yield Fault(path.name, "the file is not read: its name is none of the competition's", _expected(tasks))


def _beside(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Tasks whose files may lie beside those that are read: of the built-in competition all."""
    return tuple(BUILT_IN.values()) if all(task.layout.files == PLAIN.files for task in tasks) else ()


def _expected(tasks: Sequence[Task]) -> str:
    if beside := _beside(tasks):
        names = sorted({task.name for task in (*tasks, *beside)})
        return f"train, dev or test, _, one of {', '.join(names)}, and one of {' '.join(READERS)}"
    patterns = [task.layout.pattern(task.name, split) for task in tasks for split in SPLITS]
    return f"one of {', '.join(dict.fromkeys(filter(None, patterns)))}"
