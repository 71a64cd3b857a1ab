"""Rows: the competition's files found, read and checked; every fault of every file in one error.

A row is ``id, language, query, target, label``, whatever the file calls its columns and whatever its format.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from competition.errors import CompetitionError, Fault
from competition.layout import ANY_SUFFIX
from competition.mapping import GROUP, read_records
from competition.progress import progress
from competition.raw_rows import Finding, RawRows
from competition.readers import READERS
from competition.row_checks import HIGHEST_ID, LOWEST_ID, check
from competition.tasks import SPLITS, Task

COLUMNS = ("id", "language", "query", "target", "label")

CANONICAL_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")
TOLD_ONCE = 10
"""A fault that each of more records than this has, in the same words, is told once."""
NO_TRAIN = "a train file"
"""What is expected where a task has dev or test alone; whoever only scores rows does without."""


def find_files(folder: Path, tasks: Sequence[Task]) -> dict[tuple[str, str], Path]:
    """The competition's files by (task name, split): ``train_QC.txt`` for ("QC", "train").

    A task may be absent, and so may dev or test.

    Raises
    ------
    CompetitionError
        The folder is not there or has none of the files, two files claim one place, or a task has no train.
    """
    files, faults = locate_files(folder, tasks)
    if faults:
        raise CompetitionError(
            "the files of the competition are not as expected",
            faults=faults,
            advice="keep one file for each split and task; relstack check --data DIR shows what it finds",
        )
    return files


def locate_files(folder: Path, tasks: Sequence[Task]) -> tuple[dict[tuple[str, str], Path], list[Fault]]:
    """What `find_files` finds, and the faults: two files for one place (the first is taken), a task without train.

    Raises
    ------
    CompetitionError
        The folder is not there or has none of the files.
    """
    if not folder.is_dir():
        raise CompetitionError(
            f"there is no folder {folder}",
            faults=_not_found(folder, tasks),
            advice="name the folder with the files: --data DIR; relstack sample DIR makes one to look at",
        )
    files: dict[tuple[str, str], Path] = {}
    faults: list[Fault] = []
    for task in tasks:
        for split in SPLITS:
            names = task.layout.names(task.name, split, tuple(READERS))
            found = [name for name in names if (folder / name).is_file()]
            if len(found) > 1:
                faults.append(Fault(str(folder), f"{' and '.join(found)} are both there", "one of them"))
            if found:
                files[task.name, split] = folder / found[0]
        there = [files[task.name, split].name for split in SPLITS if (task.name, split) in files]
        if there and (task.name, "train") not in files:
            faults.append(Fault(str(folder), f"{' and '.join(there)} without {_stem(task, 'train')}", NO_TRAIN))
    if not files:
        raise CompetitionError(
            f"no file of the competition is in {folder}",
            faults=_not_found(folder, tasks),
            advice="name your files so, or another task: --tasks QC; relstack sample DIR makes a folder to look at",
        )
    return files, faults


def _not_found(folder: Path, tasks: Sequence[Task]) -> list[Fault]:
    """What `find_files` looked for, one fault per task."""
    return [Fault(str(folder), f"there is no {_stem(task, 'train')}", _looked_for(task)) for task in tasks]


def _looked_for(task: Task) -> str:
    stems = list(dict.fromkeys(stem for split in SPLITS if (stem := _stem(task, split))))
    names = f"{', '.join(stems[:-1])} and {stems[-1]}" if len(stems) > 1 else stems[0]
    if task.layout.pattern(task.name, "train").endswith(ANY_SUFFIX):
        return f"{names} with one of the suffixes {' '.join(READERS)}"
    return names


def _stem(task: Task, split: str) -> str:
    """The name of a split's file, without the suffix where it may have any."""
    return task.layout.pattern(task.name, split).removesuffix(ANY_SUFFIX)


def read_competition(folder: Path, tasks: Sequence[Task]) -> dict[str, dict[str, pd.DataFrame]]:
    """The rows of every file of `folder`: task name -> split -> rows (see `read_rows`).

    Raises
    ------
    CompetitionError
        With the faults of all files.
    """
    files = find_files(folder, tasks)
    by_name = {task.name: task for task in tasks}
    rows: dict[str, dict[str, pd.DataFrame]] = {name: {} for name, _ in files}
    faults: list[Fault] = []
    with progress("read files", total=len(files)) as advance:
        for (name, split), path in files.items():
            found, file_faults = _read(path, by_name[name], labelled=split == "train", split=split)
            rows[name][split] = found
            faults += file_faults
            advance(1)
    if faults:
        raise _unreadable(str(folder), faults)
    return rows


def read_rows(path: Path, task: Task, *, labelled: bool, split: str = "") -> pd.DataFrame:
    """The checked rows of one file, in its order.

    Parameters
    ----------
    labelled
        Every row must have a label; otherwise labels may be missing, in part or all.
    split
        Whose rows they are, where the task's layout tells several splits of one file apart.

    Returns
    -------
    DataFrame
        ``id`` int64 or str as in the file (in CSV: int64 if every id is written as an integer), ``language``,
        ``query`` and ``target`` str as in the file (target may be null), ``label`` Int8, and ``group_key`` str where
        the task's layout names a column for it.

    Raises
    ------
    CompetitionError
        With all faults of the file, each with its line (Parquet: row).
    """
    rows, faults = _read(path, task, labelled=labelled, split=split)
    if faults:
        raise _unreadable(path.name, faults)
    return rows


def _unreadable(name: str, faults: Sequence[Fault]) -> CompetitionError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
    return CompetitionError(
        f"{name} has {count}", faults=faults, advice="mend the lines named above; nothing was written"
    )


def _read(path: Path, task: Task, *, labelled: bool, split: str) -> tuple[pd.DataFrame, list[Fault]]:
    """The rows of a file and its faults; where there are faults the rows are an empty frame."""
    raw, findings = read_checked(path, task, labelled=labelled, split=split)
    if findings:
        return pd.DataFrame(), faults_of(path.name, findings, n_records=len(raw.lines))
    return frame_of(raw, task), []


def read_checked(path: Path, task: Task, *, labelled: bool, split: str = "") -> tuple[RawRows, list[Finding]]:
    """The records of a file, and all that is wrong with them."""
    nothing = RawRows({}, [])
    if path.suffix not in READERS and not task.layout.delimiter:
        return nothing, [Finding(0, f"the suffix is {path.suffix!r}", f"one of {' '.join(READERS)}")]
    try:
        raw = read_records(path, task, labelled=labelled, split=split)
    except OSError as error:
        return nothing, [Finding(0, f"the file cannot be read: {error.strerror}")]
    findings = [*raw.findings, *check(raw, task, labelled=labelled)]
    if not raw.lines and not findings:
        findings.append(Finding(0, "the file has no rows", "at least one"))
    return raw, findings


def faults_of(name: str, findings: Sequence[Finding], *, n_records: int) -> list[Fault]:
    """The findings as faults in the order of the lines; what all records have in common is told once."""
    times = Counter(finding[1:] for finding in findings)
    faults: dict[object, Fault] = {}
    for finding in sorted(findings, key=lambda finding: finding.line):
        line, found, expected = finding
        where = f"{name}:{line}" if line else name
        if times[found, expected] == n_records > TOLD_ONCE:
            faults.setdefault((found, expected), Fault(where, f"{found}, here and on all {n_records:,} rows", expected))
        else:
            faults[len(faults)] = Fault(where, found, expected)
    return list(faults.values())


# The frame and its digest


def frame_of(raw: RawRows, task: Task) -> pd.DataFrame:
    """The rows of a file in which nothing is wrong."""
    texts = {
        column: _texts(raw.columns[name])
        for column, name in zip(("language", "query", "target"), task.text_columns, strict=True)
    }
    label_of = task.layout.labels.label_of
    labels = [label_of(value) for value in raw.columns.get(task.label, [None] * len(raw.lines))]
    group = {GROUP: _texts(raw.columns[GROUP])} if GROUP in raw.columns else {}
    return pd.DataFrame({"id": _ids(raw, task.id), **texts, "label": pd.array(labels, dtype="Int8"), **group})


def _texts(values: Sequence[object]) -> pd.Series:
    return pd.Series(pa.array(values, type=pa.large_string()), dtype="str")  # 4 times faster than from a list


def _ids(raw: RawRows, name: str) -> pd.Series:
    """Ids as int64 or str, such that printing them repeats the file."""
    ids = raw.columns[name]
    if raw.cells_are_text and all(CANONICAL_INTEGER.fullmatch(str(cell)) for cell in ids):
        numbers = [int(str(cell)) for cell in ids]
        if min(numbers) >= LOWEST_ID and max(numbers) <= HIGHEST_ID:
            return pd.Series(numbers, dtype="int64")
    return _texts(ids) if isinstance(ids[0], str) else pd.Series(ids, dtype="int64")


def digest_rows(rows: pd.DataFrame) -> str:
    """The first 16 hex digits of a SHA-256 over id, language, query, target and label in row order.

    It depends on the content only: not on the index, other columns, the way text is stored, or the process.

    Examples
    --------
    >>> row = {"id": 1, "language": "en", "query": "pan", "target": "cookware", "label": 1}
    >>> rows = pd.DataFrame([row])
    >>> digest_rows(rows) == digest_rows(rows.assign(fold=0))
    True
    >>> digest_rows(rows) == digest_rows(rows.assign(label=0))
    False
    """
    digest = hashlib.sha256()
    for column in COLUMNS:
        digest.update(f"{column} {len(rows)}".encode())
        for part in _bytes_of(rows[column]):
            digest.update(part)
    return digest.hexdigest()[:16]


def _bytes_of(values: pd.Series) -> Iterator[bytes]:
    """The content of a column: its numbers, or the length of each text (null: -1) and all text."""
    if pd.api.types.is_numeric_dtype(values):
        yield b"number"
        yield values.astype("Int64").to_numpy(dtype="<i8", na_value=LOWEST_ID).tobytes()
        return
    yield b"text"
    texts = pa.array(values.array, type=pa.large_string(), from_pandas=True)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    lengths = pc.fill_null(pc.binary_length(texts), -1)
    yield lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes()
    yield "".join(texts.drop_null().to_pylist()).encode()
