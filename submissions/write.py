"""Write a submission's files: JSON Lines and CSV per task, a zip for upload, a manifest; all or nothing."""

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from competition.artefacts import discard, heal, partial, publish, sha256, write_manifest
from competition.errors import CompetitionError, Fault
from competition.progress import progress
from competition.tasks import Task
from submissions.build import (
    MANIFEST_NAME,
    RowId,
    Submission,
    csv_name,
    raw_fields,
    row_ids,
    text_name,
    upload_name,
    zip_name,
)
from submissions.validate import Validation, raise_faults, rate_warnings, submission_faults, validate_files
from submissions.values import cells, csv_header

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same files give the same bytes on any day
ZIP_LEVEL = 3  # 340,000 rows in half the time of the default level, and 1.1 times its size
QUOTED = re.compile(r'[",\r\n]')
OWN_FILE = re.compile(rf"submit_.+\.(txt|csv)|submit\.zip|{re.escape(MANIFEST_NAME)}")


@dataclass(frozen=True)
class SubmissionFiles:
    """The files of a submission, written and read back without fault.

    Attributes
    ----------
    texts, csvs
        By task name, for the tasks that have such a file.
    zip
        None where the host wants none.
    """

    folder: Path
    texts: Mapping[str, Path]
    csvs: Mapping[str, Path]
    zip: Path | None
    manifest: Path
    validation: Validation

    def __repr__(self) -> str:
        paths = [*self.texts.values(), *self.csvs.values(), *filter(None, [self.zip])]
        return f"<SubmissionFiles {self.folder}: {', '.join(path.name for path in paths)}>"


def write_submission(
    folder: Path | str,
    submissions: Sequence[Submission],
    rows: Mapping[str, pd.DataFrame],
    *,
    manifest: Mapping[str, Any],
    replace: bool = False,
    train_rates: Mapping[str, float] | None = None,
) -> SubmissionFiles:
    """The files of `submissions` in a new `folder`, which appears complete and validated or not at all.

    Two processes must not do this for the same folder at once: the caller holds its lock.

    The zip and all files but the manifest depend on the predictions and rows alone (and on the zlib version).

    Parameters
    ----------
    submissions
        One per task.
    rows
        The input rows by task name; the files keep their order.
    manifest
        What the caller wants on record; `files`, `tasks` and `warnings` are added to it.
    replace
        An existing folder may be replaced, if it holds a submission's files and nothing else.
    train_rates
        The share of 1 among the training labels by task name, for the warnings.

    Raises
    ------
    CompetitionError
        A prediction is missing, extra, repeated or not 0 or 1, or the folder is taken; then nothing is
        written.
    """
    folder = Path(folder)
    _check_submissions(submissions, rows)
    heal(folder)
    tasks = [submission.task for submission in submissions]
    _check_folder(folder, tasks, replace=replace)
    # Beside the folder, so that the rename stays within one file system.
    work = partial(folder)
    discard(work)  # of a process that was killed
    work.mkdir(parents=True)
    try:
        with progress("write the submission"):
            _write_files(work, submissions, rows, manifest=manifest, train_rates=train_rates or {})
        with progress("validate the submission"):
            validation = validate_files(work, rows, tasks, train_rates=train_rates)
        publish(work, folder)
    finally:
        discard(work)
    return SubmissionFiles(
        folder=folder,
        texts={task.name: folder / text_name(task) for task in tasks if text_name(task)},
        csvs={task.name: folder / csv_name(task) for task in tasks if csv_name(task)},
        zip=folder / zip_name(tasks) if zip_name(tasks) else None,
        manifest=folder / MANIFEST_NAME,
        validation=validation,
    )


def json_lines(submission: Submission, rows: pd.DataFrame) -> bytes:
    """The task's JSON Lines file: every row's raw values and its prediction, in the order of `rows`."""
    task = submission.task
    values = zip(row_ids(rows), raw_fields(rows), _predictions(submission, rows), strict=True)
    lines = [
        orjson.dumps(
            {
                task.id: row_id,
                task.language: language,
                task.query: query,
                task.target: target,
                task.prediction: prediction,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for row_id, (language, query, target), prediction in values
    ]
    return b"".join(lines)


def csv_lines(submission: Submission, rows: pd.DataFrame) -> bytes:
    """The task's CSV file, ids and predictions, in the order of `rows`."""
    lines = [",".join(map(_csv_cell, csv_header(submission.task))) + "\n"]
    values = zip(row_ids(rows), cells(submission.task, _predictions(submission, rows)), strict=True)
    lines += [f"{_csv_cell(row_id)},{_csv_cell(value)}\n" for row_id, value in values]
    return "".join(lines).encode()


def _csv_cell(row_id: RowId) -> str:
    # csv.writer leaves a lone carriage return unquoted, and its reader then ends the row there.
    text = str(row_id)
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def zip_files(files: Mapping[str, bytes], path: Path) -> None:
    """Write a flat zip of `files` by name; the same files give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, date_time=ZIP_TIME)
            member.external_attr = 0o644 << 16
            member.create_system = 3  # Unix, also where this runs elsewhere
            archive.writestr(member, data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=ZIP_LEVEL)


def _predictions(submission: Submission, rows: pd.DataFrame) -> list[float]:
    values: list[float] = submission.predictions.loc[rows["id"]].tolist()
    return values


def _check_submissions(submissions: Sequence[Submission], rows: Mapping[str, pd.DataFrame]) -> None:
    names = [submission.task.name for submission in submissions]
    faults = [Fault(name, "has two submissions", "one per task") for name in set(names) if names.count(name) > 1]
    faults += [Fault(name, "has no input rows") for name in names if name not in rows]
    for submission in submissions:
        if submission.task.name in rows:
            faults += submission_faults(submission, rows[submission.task.name])
    raise_faults("the submission", faults or ([] if names else [Fault("the submission", "holds no task")]))


def _check_folder(folder: Path, tasks: Sequence[Task], *, replace: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not replace:
        raise CompetitionError(f"{folder} is there already", advice="choose another name, or ask to replace it")
    if folder.is_symlink() or not folder.is_dir():
        raise CompetitionError(f"{folder} is not a folder", advice="choose another name")
    own = {zip_name(tasks), *map(text_name, tasks), *map(csv_name, tasks)}
    names = sorted(file.name for file in folder.iterdir())
    strangers = [name for name in names if name not in own and not OWN_FILE.fullmatch(name)]
    if strangers:
        raise CompetitionError(
            f"{folder} holds more than a submission and is not replaced",
            faults=[Fault(str(folder / name), "is not a submission's file") for name in strangers],
            advice="choose another name, or move these files away",
        )


def _write_files(
    folder: Path,
    submissions: Sequence[Submission],
    rows: Mapping[str, pd.DataFrame],
    *,
    manifest: Mapping[str, Any],
    train_rates: Mapping[str, float],
) -> None:
    own = {"files", "tasks", "warnings"}
    assert not own & manifest.keys(), f"the manifest's keys {sorted(own)} are written here"
    tasks = [each.task for each in submissions]
    texts = {name: json_lines(each, rows[each.task.name]) for each in submissions if (name := text_name(each.task))}
    csvs = {name: csv_lines(each, rows[each.task.name]) for each in submissions if (name := csv_name(each.task))}
    files = texts | csvs
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if archive := zip_name(tasks):
        zip_files({name: files[name] for name in map(upload_name, tasks)}, folder / archive)
    record = {
        **manifest,
        "files": {name: _entry(folder / name) for name in [*files, *([archive] if archive else [])]},
        "tasks": {each.task.name: _summary(each) for each in submissions},
        "warnings": [
            warning
            for each in submissions
            for warning in rate_warnings(each.task, each.predictions.tolist(), train_rates.get(each.task.name))
        ],
    }
    write_manifest(folder / MANIFEST_NAME, record)


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _summary(submission: Submission) -> dict[str, Any]:
    predictions = submission.predictions
    summary = {"rows": len(predictions), "positive_rate": float(predictions.mean())}
    return summary if submission.threshold is None else summary | {"threshold": submission.threshold}
