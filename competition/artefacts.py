"""Artefacts on disk: written whole or not at all, hashed, put in place so that a kill loses nothing.

An artefact is a folder with `MANIFEST`, or files beside a manifest of their own (``folds/QC/query-group.json``). The
manifest is written last, lists the SHA-256 of every file, and carries a seal: the SHA-256 of its own text. A folder is
made under the name that `partial` gives and then published; whoever makes it holds its lock and calls `heal` first.
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault

MANIFEST = "manifest.json"
FREED = "freed.json"  # what `relstack gc` took away, with the hashes it had
SCRATCH = "scratch"  # a folder in a partial artefact that does not outlive its making
SEAL, FILES, PROVENANCE = "seal", "files", "provenance"  # keys of a manifest
PARTIAL, ASIDE, TEMPORARY, LOCK = ".partial", ".old", ".tmp", ".lock"
LEFTOVERS = (PARTIAL, ASIDE)  # what a kill can leave of a folder
NOT_HASHED = "not hashed (made by an older version)"


@dataclass(frozen=True)
class Verdict:
    """What was found when an artefact was hashed again.

    Attributes
    ----------
    n_files, n_bytes
        Files that are there, the manifest included, and their size.
    n_freed
        Files that `relstack gc` took away.
    hashed
        Whether the manifest lists all files; those of older versions do not.
    unlisted
        Those of the faults that are files beside what the manifest lists: nobody reads them.
    """

    n_files: int
    n_bytes: int
    n_freed: int
    hashed: bool
    faults: tuple[Fault, ...]
    unlisted: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        if self.faults:
            return f"{len(self.faults)} faults" if len(self.faults) > 1 else "1 fault"
        if not self.hashed:
            return NOT_HASHED
        return f"whole, {self.n_freed} files freed" if self.n_freed else "whole"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files below `folder` that `file_names` names."""
    return {name: sha256(folder / name) for name in file_names(folder)}


def file_names(folder: Path) -> list[str]:
    """The files of an artefact: paths relative to `folder`, with ``/``, sorted.

    Left out are the manifest, the note of freed files, scratch, and locks.
    """
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != LOCK]
    own = {MANIFEST, FREED}
    return sorted(name.as_posix() for name in names if name.as_posix() not in own and name.parts[0] != SCRATCH)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what the block writes there stands at `path` afterwards, whole and on the disk.

    Where the block fails, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}{TEMPORARY}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def sealing(path: Path, values: Mapping[str, Any]) -> Iterator[Path]:
    """As `replacing`, with a manifest beside the file: `values` and its hash in ``<stem>.json``, written last."""
    manifest = beside(path)
    manifest.unlink(missing_ok=True)
    with replacing(path) as temporary:
        yield temporary
    write_manifest(manifest, {**values, FILES: {path.name: sha256(path)}})


def beside(path: Path) -> Path:
    """The manifest of an artefact that is one file.

    Examples
    --------
    >>> beside(Path("folds/QC/purged.parquet")).as_posix()
    'folds/QC/purged.json'
    """
    return path.with_suffix(".json")


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_manifest(path: Path, values: Mapping[str, Any]) -> None:
    """Write a manifest: `values` (what JSON can hold) and their seal, in one step."""
    write_text(path, sealed(values))


def sealed(values: Mapping[str, Any]) -> str:
    """The text of a manifest, its seal last.

    Examples
    --------
    >>> print(sealed({"fold": 1}))
    {
     "fold": 1,
     "seal": "9e8bcc2060bd870ca8392f520b728447c5229dbea79bc7d9ca22a59fd73fdadd"
    }
    """
    seal = hashlib.sha256(_text(values).encode()).hexdigest()
    return _text({**values, SEAL: seal})


def read_manifest(path: Path) -> dict[str, Any]:
    """The values of a manifest, without its seal.

    Raises
    ------
    CompetitionError
        It is not there or no JSON object. Whether the seal fits, `inspect` says.
    """
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CompetitionError(
            "a manifest cannot be read",
            faults=[Fault(str(path), str(error))],
            advice="relstack verify RUN names what else is damaged and how it is made again",
        ) from error
    values.pop(SEAL, None)
    return values


def is_finished(folder: Path) -> bool:
    """Whether the folder has its manifest; without one it does not exist."""
    return (folder / MANIFEST).is_file()


def finished(folder: Path) -> list[Path]:
    """The finished artefacts directly below `folder`, sorted; leftovers of a kill are none."""
    found = (path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return sorted(path for path in found if path.suffix not in LEFTOVERS)


def partial(final: Path) -> Path:
    """Where an artefact is made until it is published."""
    return final.with_name(f"{final.name}{PARTIAL}")


def finish(work: Path, final: Path, values: Mapping[str, Any]) -> Path:
    """`final`, made of what lies in `work`: its manifest is `values` and the hashes of all files."""
    for leftover in work.rglob(f".*{TEMPORARY}"):
        leftover.unlink()
    write_manifest(work / MANIFEST, {**values, FILES: hashes(work)})
    return publish(work, final)


def lock_of(final: Path) -> Path:
    """The file whose lock whoever makes an artefact holds."""
    return final.with_name(f".{final.name}{LOCK}")


def publish(work: Path, final: Path) -> Path:
    """`final`, now with what `work` held (less its scratch); the folder that stood there before is gone.

    At every moment one of the two is whole on the disk: a kill leaves the old one, or the new one, or both under
    other names until `heal` is called.
    """
    shutil.rmtree(work / SCRATCH, ignore_errors=True)
    sync_folder(work)
    if final.exists():
        discard(_aside(final))
        final.rename(_aside(final))
    work.rename(final)
    sync(final.parent)
    discard(_aside(final))
    return final


def heal(final: Path) -> None:
    """Finish what a kill left half done: publish work that was finished, or put back what stood there before.

    Call it under the artefact's lock, or where nobody else writes it.
    """
    if is_finished(partial(final)) and not verify(partial(final)):
        publish(partial(final), final)
    elif is_finished(_aside(final)) and not final.exists():
        _aside(final).rename(final)
    discard(_aside(final))


def discard(folder: Path) -> None:
    """Delete a folder, its manifest first: half deleted it counts as unfinished. A file or link goes too."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def free_files(folder: Path, below: str) -> None:
    """Delete what a finished artefact holds in its sub-folder `below`; the note `FREED` keeps the hashes."""
    listed = read_manifest(folder / MANIFEST).get(FILES, {})
    freed, faults = _freed(folder)
    if faults:
        raise CompetitionError(
            "the note of freed files is damaged", faults=faults, advice=f"delete {folder} and make it again"
        )
    names = [name for name in file_names(folder) if name.startswith(f"{below}/")]
    gone = {name: listed.get(name) or sha256(folder / name) for name in names}
    write_manifest(folder / FREED, {FILES: {**freed, **gone}})
    shutil.rmtree(folder / below)


def verify(folder: Path) -> list[Fault]:
    """What is wrong with a finished folder: files that are missing, changed, or not in its manifest."""
    return list(inspect(folder / MANIFEST).faults)


def inspect(manifest: Path) -> Verdict:
    """The verdict on an artefact, every file hashed again.

    Of a folder with `MANIFEST` every file must be listed, of a manifest with another name only what it lists is looked
    at. Manifests of older versions have no seal and need not list all files.
    """
    folder = manifest.parent
    try:
        text = manifest.read_bytes().decode()
        values = dict(json.loads(text))
        listed = {name: _digest(entry) for name, entry in values.get(FILES, {}).items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        fault = Fault(str(manifest), f"unreadable: {error}", "the manifest that was written last")
        return Verdict(0, 0, 0, True, (fault,))
    is_new = SEAL in values or PROVENANCE in values
    freed, faults = _freed(folder) if manifest.name == MANIFEST else ({}, [])
    found = file_names(folder) if manifest.name == MANIFEST else _beside(manifest, listed)
    if is_new and not _is_sealed(text, values):
        faults.append(Fault(str(manifest), "changed", "the text that its seal is of"))
    gone = [name for name, digest in listed.items() if name not in found and freed.get(name) == digest]
    faults += [
        Fault(str(folder / name), "is not there", f"sha256 {digest}")
        for name, digest in listed.items()
        if name not in found and name not in gone
    ]
    faults += _changed(folder, {name: listed[name] for name in found if name in listed})
    extra = [name for name in found if name not in listed] if is_new else []
    unlisted = [Fault(str(folder / name), f"is not in {manifest.name}", "only what it lists") for name in extra]
    n_bytes = sum((folder / name).stat().st_size for name in (*found, manifest.name))
    return Verdict(len(found) + 1, n_bytes, len(gone), is_new, (*faults, *unlisted), tuple(unlisted))


def sync_folder(folder: Path) -> None:
    """Have everything below `folder` on the disk."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        sync(path)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}{ASIDE}")


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)


def _is_sealed(text: str, values: Mapping[str, Any]) -> bool:
    return text == sealed({key: value for key, value in values.items() if key != SEAL})


def _digest(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry["sha256"])


def _beside(manifest: Path, names: Iterable[str]) -> list[str]:
    """Those of the names that are files beside a manifest; names that lead elsewhere are none."""
    there = {path.name for path in manifest.parent.iterdir() if path.is_file()}
    return [name for name in names if name in there]


def _changed(folder: Path, listed: Mapping[str, str]) -> list[Fault]:
    found = {name: sha256(folder / name) for name in listed}
    return [
        Fault(str(folder / name), f"sha256 {found[name]}", f"sha256 {digest}, as in its manifest")
        for name, digest in listed.items()
        if found[name] != digest
    ]


def _freed(folder: Path) -> tuple[Mapping[str, str], list[Fault]]:
    """Hashes of the files that were freed, and what is wrong with the note of them."""
    path = folder / FREED
    if not path.is_file():
        return {}, []
    try:
        text = path.read_bytes().decode()
        values = dict(json.loads(text))
        if _is_sealed(text, values):
            return values[FILES], []
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {}, [Fault(str(path), f"unreadable: {error}", "the note of freed files")]
    return {}, [Fault(str(path), "changed", "the text that its seal is of")]
