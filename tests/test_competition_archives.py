"""Archives unpack into one folder and nowhere else, or not at all."""

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from competition.archives import extract
from competition.errors import CompetitionError
from pipelines.cli import main

FILES = {"run/run.toml": b"data = 1", "run/parts/oof.parquet": b"\0" * 3_000_000, "run/empty": b""}


def make_zip(path: Path, files: dict[str, bytes], *, kind: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, files: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, link
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[..., Path]] = {"a.zip": make_zip, "a.tar.gz": make_tar}


def assert_refused(archive: Path, words: str, *, max_bytes: int = 10**8) -> None:
    """It is refused for this reason, and nothing is left on the disk."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(CompetitionError, match=words):
        extract(archive, archive.parent / "out", max_bytes=max_bytes)
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize("name", MAKERS)
def test_files_come_out_as_they_went_in(name: str, tmp_path: Path) -> None:
    found = extract(MAKERS[name](tmp_path / name, FILES), tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in found} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out"])


def test_a_folder_packed_by_the_library_itself_comes_out(tmp_path: Path) -> None:
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a" / "b" / "c").write_text("c")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", arcname=".")
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b" / "c").read_text() == "c"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "outside", ["../x", "a/../../x", "/etc/x", "a//x", "..\\x", "C:/x", "./../x", "a/./x", "C:x", ".."]
)
def test_names_that_point_outside_are_refused(name: str, outside: str, tmp_path: Path) -> None:
    assert_refused(MAKERS[name](tmp_path / name, {"fine": b"1", outside: b"2"}), "points outside|drive letter")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    assert_refused(make_zip(tmp_path / "a.zip", {"x": b"/etc"}, kind=kind), "is a (link|device)")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../x", "inside"])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, link: str, tmp_path: Path) -> None:
    assert_refused(make_tar(tmp_path / "a.tar.gz", {"x": b""}, kind=kind, link=link), "is a (link|device)")


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_of_too_many_bytes_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"bomb": b"\0" * 5_000_000})
    assert archive.stat().st_size < 50_000
    assert_refused(archive, "unpacks to 5,000,000 bytes", max_bytes=4_999_999)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"bomb": b"\0" * 5_000_000})
    raw = archive.read_bytes()
    assert raw.count(struct.pack("<I", 5_000_000)) == 2
    archive.write_bytes(raw.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 10)))
    assert_refused(archive, "cannot be unpacked", max_bytes=1000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["run/a", "run/A"])
def test_a_name_that_stands_there_twice_is_refused(second: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("run/a", "1")
        archive.writestr(second, "2")
    assert_refused(tmp_path / "a.zip", "stands there twice")


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_inside_a_file_is_refused(name: str, tmp_path: Path) -> None:
    assert_refused(MAKERS[name](tmp_path / name, {"a": b"1", "a/b": b"2"}), "lies in a file")


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_archives_are_refused(name: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {f"{i}": bytes(range(256)) * 99 for i in range(9)})
    raw = archive.read_bytes()
    for cut in (0, 1, 10, len(raw) // 2, len(raw) - 30):
        archive.write_bytes(raw[:cut])
        assert_refused(archive, "cannot be unpacked")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SYMTYPE])
def test_a_header_that_would_fill_the_memory_is_refused(kind: bytes, tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", {"x": b"a" * 5_000_000}, kind=kind)
    assert_refused(archive, "a header of 5,000,000 bytes")


def test_other_kinds_of_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert_refused(tmp_path / "a.tar.xz", "cannot be unpacked")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert_refused(make_zip(tmp_path / "a.zip", FILES), "is there already")


def test_the_command_unpacks_or_ends_with_exit_code_3(tmp_path: Path) -> None:
    make_zip(tmp_path / "good.zip", FILES)
    make_tar(tmp_path / "bad.tar.gz", {"../outside": b"x"})

    def call(archive: str, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["unpack", str(tmp_path / archive), str(tmp_path / "out"), *words])
        return done.exit_code, done.output

    for archive, words in (("bad.tar.gz", ()), ("good.zip", ("--max-gb", "0.001"))):
        code, output = call(archive, *words)
        assert code == 3
        assert "nothing was written" in output
    code, output = call("good.zip")
    assert code == 0
    assert "3 files, 3,000,008 bytes" in output
    assert sorted(path.name for path in (tmp_path / "out" / "run").iterdir()) == ["empty", "parts", "run.toml"]
