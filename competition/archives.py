"""Unpacking a zip, tar or tar.gz from a stranger: into one folder and nowhere else, plain files, so many bytes."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import uuid4

from competition.errors import CompetitionError, Fault

MOST_BYTES = 200 * 2**30
MOST_MEMBERS = 100_000
LONGEST_HEADER = 1 << 16  # of a tar: names and the like, which tarfile reads into memory whole
GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
UNREADABLE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its members.

    Attributes
    ----------
    kind
        "file", "folder", or what else it is.
    size
        Bytes that it says it unpacks to.
    entry
        The same in its library's words.
    """

    name: str
    kind: str
    size: int
    entry: Any


def extract(archive: Path, folder: Path, *, max_bytes: int = MOST_BYTES) -> list[Path]:
    """The files of a zip, tar or tar.gz, unpacked below `folder`, which must not be there yet.

    All members are looked at before anything is written, no more bytes are written than they say, and the folder
    appears only when it is complete. Owners, permissions and times are not taken over.

    Raises
    ------
    CompetitionError
        A member points outside the folder, is a link or device, or stands there twice (names that differ in case alone
        are the same on some disks); the archive unpacks to more than `max_bytes`, or cannot be read; `folder` is there.
    """
    if folder.exists() or folder.is_symlink():
        raise CompetitionError(f"{folder} is there already", advice="name a new folder")
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        with closing(_open(archive)) as opened:
            members = list(_members(opened))
            _refuse(archive, members, max_bytes)
            partial.mkdir(parents=True)
            for member in members:
                _write(opened, member, partial / member.name)
        partial.rename(folder)
    except UNREADABLE as error:
        raise CompetitionError(
            "an archive cannot be unpacked",
            faults=[Fault(str(archive), str(error))],
            advice="fetch it again; `unzip -t` or `tar -t` says whether it is whole",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / member.name for member in members if member.kind == "file"]


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    with archive.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return tarfile.open(archive, "r:gz" if packed else "r:", tarinfo=_ShortHeaders)


class _ShortHeaders(tarfile.TarInfo):
    """Headers of a tar, long names included, that are no longer than headers need be."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # not in the stubs
        return member


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            yield Member(info.orig_filename.rstrip("/"), _kind_in_zip(info), info.file_size, info)
        return
    for count, entry in enumerate(opened):
        if count >= MOST_MEMBERS:
            raise ValueError(f"more than {MOST_MEMBERS:,} members")
        if entry.name != ".":  # the folder itself, as tar packs it
            yield Member(entry.name.removeprefix("./"), _kind_in_tar(entry), entry.size, entry)


def _kind_in_zip(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "link" if stat.S_ISLNK(mode) else "device"
    return "folder" if info.is_dir() else "file"


def _kind_in_tar(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "link"
    return "folder" if entry.isdir() else "file" if entry.isreg() else "device"


def _refuse(archive: Path, members: list[Member], max_bytes: int) -> None:
    faults, seen = [], set()
    files = {member.name.casefold() for member in members if member.kind != "folder"}
    for member in members:
        name = member.name.casefold()
        if found := _fault_of(member):
            faults.append(Fault(f"{archive.name}/{member.name}", found, "files and folders below the archive's own"))
        elif name in seen and name in files:
            faults.append(Fault(f"{archive.name}/{member.name}", "stands there twice", "every name once"))
        elif any(str(parent) in files for parent in PurePosixPath(name).parents):
            faults.append(Fault(f"{archive.name}/{member.name}", "lies in a file", "in a folder"))
        seen.add(name)
    size = sum(member.size for member in members)
    if size > max_bytes:
        faults.append(Fault(archive.name, f"unpacks to {size:,} bytes", f"at most {max_bytes:,}"))
    if len(members) > MOST_MEMBERS:
        faults.append(Fault(archive.name, f"{len(members):,} members", f"at most {MOST_MEMBERS:,}"))
    if faults:
        raise CompetitionError(
            f"{archive.name} is not safe to unpack; nothing was written",
            faults=faults,
            advice="take the files out by hand, and look where they come from",
        )


def _fault_of(member: Member) -> str:
    """What is wrong with a member by itself; "" if nothing is."""
    parts = member.name.replace("\\", "/").split("/")
    if member.kind not in ("file", "folder"):
        return f"is a {member.kind}"
    if "\0" in member.name or "\\" in member.name or any(part in ("", ".", "..") for part in parts):
        return "points outside the folder, or to nowhere plain"
    return "has a drive letter" if ":" in parts[0] else ""


def _write(opened: zipfile.ZipFile | tarfile.TarFile, member: Member, path: Path) -> None:
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = opened.open(member.entry) if isinstance(opened, zipfile.ZipFile) else opened.extractfile(member.entry)
    assert source is not None, "a regular file"
    with source, path.open("xb") as target:
        _copy(source, target, member)


def _copy(source: IO[bytes], target: IO[bytes], member: Member) -> None:
    """Copy as many bytes as the archive said; one more, and it lied."""
    left = member.size
    while chunk := source.read(min(CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise ValueError(f"{member.name} is longer than the archive says")
        target.write(chunk)
    if left:
        raise ValueError(f"{member.name} is shorter than the archive says")
