"""Artefacts: whole or not there, sealed, and never lost between two renames."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition import artefacts
from competition.artefacts import (
    MANIFEST,
    SCRATCH,
    discard,
    finish,
    finished,
    hashes,
    heal,
    inspect,
    partial,
    publish,
    read_manifest,
    replacing,
    sealed,
    sha256,
    verify,
    write_manifest,
    write_text,
)
from competition.errors import CompetitionError


def make(final: Path, text: str) -> Path:
    """A finished artefact of two files."""
    return finish(work(final, text), final, {"name": text})


def work(final: Path, text: str) -> Path:
    """The folder of an artefact that is being made, without its manifest."""
    folder = partial(final)
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "deep" / "b.bin").write_bytes(b"\0" * 10)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def faults_of(folder: Path) -> list[str]:
    return [str(fault).replace(str(folder), "") for fault in verify(folder)]


def test_a_finished_artefact_is_whole_and_its_scratch_gone(tmp_path: Path) -> None:
    folder = work(tmp_path / "it", "one")
    (folder / SCRATCH).mkdir()
    (folder / SCRATCH / "checkpoint").write_text("half")
    (folder / ".manifest.json.1.tmp").write_text("left by a kill")
    finish(folder, tmp_path / "it", {"name": "one"})
    assert verify(tmp_path / "it") == []
    assert names_in(tmp_path / "it") == ["a.txt", "deep", MANIFEST]
    assert list(hashes(tmp_path / "it")) == ["a.txt", "deep/b.bin"]
    assert read_manifest(tmp_path / "it" / MANIFEST) == {"name": "one", "files": hashes(tmp_path / "it")}
    found = inspect(tmp_path / "it" / MANIFEST)
    assert (found.n_files, str(found)) == (3, "whole")
    assert found.n_bytes == 3 + 10 + (tmp_path / "it" / MANIFEST).stat().st_size


def test_missing_changed_and_extra_files_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "it", "one")
    (folder / "a.txt").write_text("two")
    (folder / "deep" / "b.bin").unlink()
    (folder / "deep" / "c").write_text("")
    changed, missing, extra = sorted(faults_of(folder), key=lambda text: ("sha256" not in text, text))
    assert changed.startswith(f"/a.txt: sha256 {sha256(folder / 'a.txt')}; expected sha256 ")
    assert missing.startswith("/deep/b.bin: is not there; expected sha256")
    assert extra == "/deep/c: is not in manifest.json; expected only what it lists"


@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_a_manifest_can_change_unseen(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("sealed") / "folds.json"
    write_manifest(path, {"seed": 1, "provenance": {"ended": "2026-01-01"}, "files": {}, "é": 1.5})
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert [fault.where for fault in inspect(path).faults] == [str(path)]


def test_a_manifest_of_an_older_version_is_read_and_said_to_be_not_hashed(tmp_path: Path) -> None:
    folder = make(tmp_path / "it", "one")
    (folder / MANIFEST).write_text(json.dumps({"files": {"a.txt": sha256(folder / "a.txt")}}))
    found = inspect(folder / MANIFEST)
    assert str(found) == "not hashed (made by an older version)"
    (folder / "a.txt").write_text("two")
    assert [fault.where for fault in verify(folder)] == [str(folder / "a.txt")]


def test_what_is_no_manifest_is_a_fault(tmp_path: Path) -> None:
    for text in ("", "[1]", "{", '{"files": 3}', '{"files": {"a": 3}}', "\ud800"):
        (tmp_path / MANIFEST).write_text(text, errors="surrogatepass")
        assert "unreadable" in verify(tmp_path)[0].found
    with pytest.raises(CompetitionError, match="cannot be read"):
        read_manifest(tmp_path / "absent.json")


def test_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "file", "one\n")

    def fail() -> None:
        with replacing(tmp_path / "new" / "file") as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (tmp_path / "new" / "file").read_bytes() == b"one\n"
    assert names_in(tmp_path / "new") == ["file"]


class Killed(BaseException):
    """Stands for kill -9: nothing in the code catches it."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stop the process's work at the n-th step on the disk."""

    def set_up(n: int) -> None:
        left = iter(range(n))

        def stop(real: object) -> object:
            def step(*args: object, **kwargs: object) -> object:
                if next(left, None) is None:
                    raise Killed
                return real(*args, **kwargs)  # type: ignore[operator]

            return step

        monkeypatch.setattr(Path, "rename", stop(Path.rename))
        monkeypatch.setattr(Path, "unlink", stop(Path.unlink))
        monkeypatch.setattr(artefacts.shutil, "rmtree", stop(shutil.rmtree))

    return set_up


@pytest.mark.parametrize("n", range(7))
def test_whenever_publishing_is_killed_one_of_both_is_there_afterwards(
    tmp_path: Path, killed_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    final = make(tmp_path / "it", "old")
    folder = work(final, "new")
    write_manifest(folder / MANIFEST, {"name": "new", "files": hashes(folder)})
    killed_at(n)
    was_killed = False
    try:
        publish(folder, final)
    except Killed:
        was_killed = True
    monkeypatch.undo()
    assert was_killed == (n < 6)
    heal(final)
    assert verify(final) == []
    assert read_manifest(final / MANIFEST)["name"] == "new", "it was finished, so it counts"
    assert names_in(tmp_path) == ["it"]


def test_work_that_is_half_done_is_not_published(tmp_path: Path) -> None:
    final = make(tmp_path / "it", "old")
    folder = work(final, "new")
    heal(final)
    assert read_manifest(final / MANIFEST)["name"] == "old"
    write_manifest(folder / MANIFEST, {"name": "new", "files": {**hashes(folder), "lost": "0"}})
    heal(final)
    assert read_manifest(final / MANIFEST)["name"] == "old"
    assert finished(tmp_path) == [final]
    discard(final)
    heal(final)
    assert finished(tmp_path) == []


def test_what_was_moved_aside_comes_back(tmp_path: Path) -> None:
    final = make(tmp_path / "it", "old")
    final.rename(tmp_path / ".it.old")
    assert finished(tmp_path) == []
    heal(final)
    assert read_manifest(final / MANIFEST)["name"] == "old"


def test_the_seal_is_of_the_text() -> None:
    assert sealed({"a": 1}) != sealed({"a": 1.0})


def test_of_a_link_only_the_link_is_deleted(tmp_path: Path) -> None:
    folder = make(tmp_path / "it", "one")
    (tmp_path / "link").symlink_to(folder)
    discard(tmp_path / "link")
    assert names_in(tmp_path) == ["it"]
    assert verify(folder) == []
