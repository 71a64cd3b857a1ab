"""Uploading a submission: everything is checked first, what was uploaded is remembered.

``uploads.json`` of a run lists its uploads by the SHA-256 of the file. It does not lie in the submission's own folder,
which is replaced as a whole when the submission is made again.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from competition.artefacts import MANIFEST, is_finished, read_manifest, sha256, verify, write_text
from competition.errors import CompetitionError, Fault
from competition.json_files import Shape, read_json
from competition.tasks import Task
from pipelines.failures import readable
from pipelines.handover.hosts import Host, HostUnreachableError, Limits, NotSignedInError
from pipelines.locks import alone
from pipelines.provenance import now
from pipelines.run_folder import RunFolder
from submissions.build import csv_name, upload_name, zip_name
from submissions.validate import Validation, validate_files

log = logging.getLogger(__name__)

MOST_BYTES = 100 * 10**6
"""Ours, to notice a wrong file; a contest's own limit stands on its page."""
LONGEST_MESSAGE = 500
UPLOADS: dict[str, Shape] = {"uploads": list[dict[str, str]]}


@dataclass(frozen=True)
class Upload:
    """One upload that the host took."""

    sha256: str
    file: str
    submission: str
    to: str
    at: str
    message: str
    said: str


@dataclass(frozen=True)
class Checked:
    """A file that may be uploaded.

    Attributes
    ----------
    limits
        None if the host was not asked, or did not answer.
    unasked
        Why it was not.
    """

    file: Path
    digest: str
    validation: Validation
    limits: Limits | None
    unasked: NotSignedInError | None = None

    def __str__(self) -> str:
        left = "not known, the host did not answer" if self.limits is None else str(self.limits.left)
        if self.unasked is not None:
            left = f"not known, the host's side was not asked: {self.unasked.summary} ({self.unasked.advice})"
        size = readable(self.file.stat().st_size)
        return f"{self.validation}\n{self.file.name}: {size}, sha256 {self.digest}\nsubmissions left today: {left}"


def check_upload(
    run: RunFolder,
    host: Host,
    competition: str,
    *,
    submission: str = "final",
    file: str | None = None,
    max_bytes: int = MOST_BYTES,
) -> Checked:
    """The file of a submission, if the host should take it; nothing is uploaded.

    Parameters
    ----------
    file
        One of the submission's files; the CSV if there is one task, else the zip, if None.

    Raises
    ------
    CompetitionError
        The submission's files are not as they were written for the run's rows. Or, all at once: the file is too large
        or of a format that the host does not take, it was uploaded before, no submissions are left today.
    """
    folder = run.submission(submission)
    if not is_finished(folder):
        raise CompetitionError(
            f"{run.root} has no submission called {submission}",
            advice=f"make it first: relstack submit --run {run.root} --name {submission}",
        )
    manifest = read_manifest(folder / MANIFEST)
    rows, tasks = _expected(run, manifest)
    validation = validate_files(folder, rows, tasks)
    if changed := verify(folder):
        advice = f"make it again: relstack submit --run {run.root} --name {submission}"
        raise CompetitionError("the submission is not as it was written", faults=changed, advice=advice)
    path = folder / (file or _usual_file(tasks))
    if path.name not in manifest["files"] or not path.is_file():
        fault = Fault(path.name, "is no file of the submission", f"one of {', '.join(manifest['files'])}")
        raise CompetitionError(
            "there is nothing to upload", faults=[fault], advice="make it: relstack submit --run RUN"
        )
    digest = sha256(path)
    limits, unasked = _limits(host, competition)
    faults = _file_faults(path, host, max_bytes=max_bytes)
    faults += _uploaded_before(run, path, digest=digest, competition=competition)
    if limits is not None and limits.left < 1:
        faults.append(
            Fault(competition, f"no submission is left today, {limits.used} were made", "wait until 0:00 UTC")
        )
    _refuse(faults)
    return Checked(path, digest, validation, limits, unasked)


def upload(run: RunFolder, host: Host, competition: str, *, checked: Checked, message: str) -> Upload:
    """The upload of what was checked, now in ``uploads.json`` too.

    Raises
    ------
    CompetitionError
        `NotSignedInError`, `HostUnreachableError` (worth retrying) or the host's refusal; the file is where it was.
        Where the connection broke in between, the host may have it all the same: look there before the next try. Or,
        since it was checked, the file was changed, or another process has uploaded it.
    """
    if len(message) > LONGEST_MESSAGE:
        fault = Fault("--message", f"{len(message)} characters", f"at most {LONGEST_MESSAGE}")
        raise CompetitionError("this is not uploaded", faults=[fault], advice="shorten --message")
    if checked.unasked is not None:
        raise checked.unasked
    if checked.limits is None:
        raise HostUnreachableError(f"{competition} was not reached; nothing was sent", advice="run it again later")
    with alone(run.uploads_file):
        faults = _uploaded_before(run, checked.file, digest=checked.digest, competition=competition)
        if sha256(checked.file) != checked.digest:
            faults.append(Fault(checked.file.name, "was changed since it was checked", f"sha256 {checked.digest}"))
        _refuse(faults)
        said = host.upload(competition, checked.file, message)
        done = Upload(checked.digest, checked.file.name, checked.file.parent.name, competition, now(), message, said)
        listed: list[dict[str, Any]] = [asdict(each) for each in (*read_uploads(run), done)]
        write_text(run.uploads_file, json.dumps({"uploads": listed}, indent=1, ensure_ascii=False))
    return done


def read_uploads(run: RunFolder) -> list[Upload]:
    """What was uploaded of this run, the oldest first."""
    if not run.uploads_file.is_file():
        return []
    advice = "mend it by hand; with the file gone, nobody knows what was uploaded"
    values = read_json(run.uploads_file, UPLOADS, what="the list of uploads", advice=advice)
    try:
        return [Upload(**each) for each in values["uploads"]]
    except TypeError as error:
        fault = Fault(str(run.uploads_file), str(error)[:200], "the keys that `relstack upload` writes")
        raise CompetitionError("the list of uploads is damaged", faults=[fault], advice=advice) from error


def _uploaded_before(run: RunFolder, path: Path, *, digest: str, competition: str) -> list[Fault]:
    return [
        Fault(path.name, f"was uploaded to {each.to} at {each.at}, as {each.submission}", "another file")
        for each in read_uploads(run)
        if (each.sha256, each.to) == (digest, competition)
    ]


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise CompetitionError("this is not uploaded", faults=faults, advice="nothing was sent; mend what is named")


def _expected(run: RunFolder, manifest: dict[str, Any]) -> tuple[dict[str, pd.DataFrame], list[Task]]:
    chosen = manifest["chosen"]
    rows = {task: run.rows(task)[told["split"]] for task, told in chosen.items()}
    return rows, [run.task(task) for task in chosen]


def _usual_file(tasks: Sequence[Task]) -> str:
    """What the host wants of one task, or of several: a CSV if there is one, else the archive."""
    if len(tasks) == 1 and csv_name(tasks[0]):
        return csv_name(tasks[0])
    return zip_name(tasks) or upload_name(tasks[0])


def _limits(host: Host, competition: str) -> tuple[Limits | None, NotSignedInError | None]:
    """What the host allows; None if it does not answer, or was not asked, and then why."""
    try:
        return host.limits(competition), None
    except NotSignedInError as error:
        return None, error
    except HostUnreachableError as error:
        log.warning("what is left today is not known: %s", error)
        return None, None


def _file_faults(path: Path, host: Host, *, max_bytes: int) -> list[Fault]:
    faults, size = list[Fault](), path.stat().st_size
    if path.suffix not in host.formats:
        faults.append(Fault(path.name, f"is a {path.suffix} file", " or ".join(host.formats)))
    if size > max_bytes:
        faults.append(Fault(path.name, readable(size), f"at most {readable(max_bytes)}"))
    return faults
