"""What nothing needs is listed and freed; what is needed, or held by a process, stays."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from competition.artefacts import MANIFEST, lock_of, read_manifest, write_manifest
from oof.store import PartKey
from pipelines.cli import main
from pipelines.freeing import free, freeable, held
from pipelines.run_folder import RunFolder
from pipelines.verifying import verify


@pytest.fixture
def run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of a finished run, and a cache of its own."""
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path / "cache"))
    return RunFolder(Path(shutil.copytree(finished_run, tmp_path / "run")))


def call(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def planted(path: Path, n_bytes: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * n_bytes)
    return path


def gone_process() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def found_in(run: RunFolder, **options: bool) -> dict[str, int]:
    return {str(each.path): each.n_bytes for each in freeable(run, **options)}


def test_nothing_of_a_finished_run_is_to_be_freed(run: RunFolder) -> None:
    assert found_in(run) == {}


def test_leftovers_are_listed_with_their_bytes_and_deleted_only_when_asked(run: RunFolder) -> None:
    part = run.parts.folder(PartKey("QI", "lexical", 0))
    unfinished = run.parts.folder(PartKey("QI", "later", 0))
    host = socket.gethostname()
    leftovers = {
        planted(part.with_name("fold-0.partial") / "scratch" / "checkpoint-7" / "optimizer.pt").parents[2],
        planted(part / "scratch" / "checkpoint-7" / "optimizer.pt").parents[1],
        planted(run.ensemble("QI", "blend").with_name(".blend.old") / "oof.parquet").parent,
        planted(run.ensemble("QI", "blend").with_suffix(".journal.log")),
        planted(run.root / "submissions" / ".final.partial-ab12" / "submit_QI.txt").parent,
        planted(run.root / f".leaderboard.csv.{gone_process()}@{host}.tmp"),
        planted(run.study("QI", "mine") / "scratch" / "trial-3" / "model").parents[1],
        planted(run.study("QI", "mine") / "workers" / "a.lock", 0),
        planted(run.root.parent / "cache" / "embeddings" / "states" / "abc" / "states.npy").parent,
    }
    kept = [
        planted(unfinished.with_name("fold-0.partial") / "scratch" / "checkpoint-7" / "optimizer.pt"),
        planted(run.root / f".run.toml.{os.getpid()}@{host}.tmp"),
        planted(run.root / f".run.toml.{gone_process()}@elsewhere.tmp"),
        planted(run.root.parent / "cache" / "embeddings" / "e5-0123-64" / "a.npz"),
        planted(run.root.parent / "cache" / "translations" / "offline-01" / "en" / "a.parquet"),
    ]
    assert set(found_in(run)) == set(map(str, leftovers))
    assert sum(found_in(run).values()) == 800
    listed = call("gc", run.root)
    assert listed.exit_code == 0
    assert "800 bytes; nothing was deleted" in listed.stderr
    assert all(path.exists() for path in leftovers)
    assert "deleted 9 of 9" in call("gc", run.root, "--yes").stderr
    assert not any(path.exists() for path in leftovers)
    assert all(path.is_file() for path in kept)
    assert verify(run).faults == ()


def test_what_a_process_holds_is_left_alone(run: RunFolder) -> None:
    part = run.parts.folder(PartKey("QI", "lexical", 0))
    left = planted(part.with_name("fold-0.partial") / "a").parent
    before = freeable(run)
    with FileLock(lock_of(part)):
        assert held(lock_of(part))
        assert found_in(run) == {}
        assert free(before) == []
        assert left.is_dir()
    assert not held(lock_of(part))
    assert [each.path for each in free(before)] == [left]


def test_the_scratch_of_a_study_with_a_worker_stays(run: RunFolder) -> None:
    planted(run.study("QI", "mine") / "scratch" / "trial-3" / "model")
    with FileLock(planted(run.study("QI", "mine") / "workers" / "a.lock", 0)):
        assert found_in(run) == {}
    assert len(found_in(run)) == 2


def submit_only(run: RunFolder, learner: str) -> None:
    """Have the submission made of one base learner."""
    done = call("submit", "--run", run.root, "--ensemble", learner)
    assert done.exit_code == 0, done.output


def test_weights_that_no_submission_needs_are_freed_and_remembered(run: RunFolder, tmp_path: Path) -> None:
    assert found_in(run, weights=True) == {}, "the ensembles are made of both base learners"
    submit_only(run, "lexical-linear")
    parts = [run.parts.folder(PartKey("QI", "lexical", fold)) for fold in range(3)]
    assert set(found_in(run, weights=True)) == {str(part / "weights") for part in parts}
    assert found_in(run) == {}
    before = [(part / MANIFEST).read_bytes() for part in parts]
    assert call("gc", run.root, "--weights", "--yes").exit_code == 0
    assert not any((part / "weights").exists() for part in parts)
    assert [(part / MANIFEST).read_bytes() for part in parts] == before
    found = verify(run)
    assert found.faults == ()
    verdicts = found.artefacts.set_index("artefact")["verdict"]
    assert "files freed" in verdicts["parts/QI/lexical/fold-1"]
    assert verdicts["parts/QI/lexical-linear/fold-1"] == "whole"
    data = Path(run.settings().data) / "dev_QI.txt"
    done = call("predict", data, "--run", run.root, "--task", "QI", "--model", "lexical")
    assert done.exit_code == 3
    assert "its weights were freed" in done.stderr
    assert f"`relstack train --task QI --model lexical --fold 2 --run {run.root}`" in done.stderr
    done = call("stack", "--run", run.root)
    assert done.exit_code == 0, "scores are all that an ensemble needs"


def test_a_changed_note_of_freed_files_is_found(run: RunFolder) -> None:
    submit_only(run, "lexical-linear")
    free(freeable(run, weights=True))
    note = run.parts.folder(PartKey("QI", "lexical", 0)) / "freed.json"
    before = note.read_text()
    for text in (before.replace("weights/", "weighty/", 1), "{", "[]"):
        note.write_text(text)
        assert str(note) in {fault.where for fault in verify(run).faults}
    note.write_text(before)
    values = read_manifest(note)
    name = next(iter(values["files"]))
    write_manifest(note, {"files": {**values["files"], name: "0" * 64}})
    assert str(note.parent / name) in {fault.where for fault in verify(run).faults}


def test_weights_stay_while_no_submission_says_what_is_used(run: RunFolder) -> None:
    shutil.rmtree(run.submission("final"))
    done = call("gc", run.root, "--weights", "--yes")
    assert done.exit_code == 3
    assert "no submission says" in done.stderr


def test_the_cache_of_other_runs_goes_only_when_asked(run: RunFolder) -> None:
    run.add_recipes(["e5-bi"], [])
    cache = run.root.parent / "cache"
    own = planted(cache / "embeddings" / "multilingual-e5-small-0123456789abcdef-64" / "a.npz").parent
    other = planted(cache / "embeddings" / "labse-0123456789abcdef-64" / "a.npz").parent
    translated = planted(cache / "translations" / "offline-01" / "en" / "a.parquet").parents[1]
    tables = {str(path) for path in (run.root / "tables" / "QI").glob("[!.]*")}
    assert {Path(path).suffix for path in tables} == {".npy", ".json"}
    assert found_in(run) == {}
    assert set(found_in(run, cache=True)) == {str(other), str(translated), *tables}
    listed = freeable(run, cache=True)
    locks = [planted(translated / "en" / ".locks" / "a.lock", 0), planted(other / ".shards.lock", 0)]
    with FileLock(locks[0]), FileLock(locks[1]):  # taken after they were listed
        assert set(found_in(run, cache=True)) == tables
        assert {str(each.path) for each in free(listed)} == tables
    free(freeable(run, cache=True))
    assert own.is_dir()
    assert not other.exists()
    assert not any(map(os.path.exists, tables))
