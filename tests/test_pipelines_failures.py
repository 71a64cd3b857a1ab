"""What a machine does to a stage: a full disk, a folder that cannot be written, no memory; and that nothing breaks."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from competition.sample import write_sample
from oof.store import PartKey
from pipelines.cli import main
from pipelines.failures import DiskFullError, FileAccessError, named, naming_failures
from pipelines.memory import MemoryShortageError, out_of_memory
from pipelines.run_folder import RunFolder
from pipelines.timing import timed, timing_table
from pipelines.train import train

ROOT = Path(__file__).parent.parent


def give(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "logs")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder, n_train=400, n_dev=60, n_test=60, seed=3, tasks=("QI",))
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a small file system of its own, with other options on a later call."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        again = "remount," if folder.is_mount() else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("file systems cannot be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


# A full disk


def test_a_split_on_a_full_disk_is_named_and_ends_well_when_there_is_room(
    data: Path, disk: Callable[[str], Path]
) -> None:
    words = ("split", "--data", data, "--run", disk("size=40k") / "run", "--tasks", "QI", "--folds", 3)
    full = give(*words)
    assert full.exit_code == 75, full.output
    assert "found no room on the disk" in full.output
    assert "free of 41.0 kB" in full.output
    assert "relstack gc" in full.output
    disk("size=8m")
    again = give(*words)
    assert again.exit_code == 0, again.output


def test_a_full_disk_while_training_damages_nothing_that_is_finished(
    finished_run: Path, disk: Callable[[str], Path]
) -> None:
    run = RunFolder(shutil.copytree(finished_run, disk("size=32m") / "run"))
    key = PartKey("QI", "lexical", 1)
    expected = digests(run.parts.folder(key))
    shutil.rmtree(run.parts.folder(key))
    before = digests(run.root)
    filler = run.root.parent / "filler"
    free = shutil.disk_usage(run.root).free
    filler.write_bytes(bytes(free - 24_000))
    full = give("train", "--run", run.root, "--task", "QI", "--model", "lexical", "--fold", 1)
    assert full.exit_code == 75, full.output
    assert "train QI/lexical/fold-1 found no room on the disk" in full.output
    assert not run.parts.is_finished(key)
    after = digests(run.root)
    assert {name: after.get(name) for name in before} == before
    filler.unlink()
    again = give("train", "--run", run.root, "--task", "QI", "--model", "lexical", "--fold", 1)
    assert again.exit_code == 0, again.output
    made = digests(run.parts.folder(key))
    assert {name: made[name] for name in expected if name != "manifest.json"} == {
        name: digest for name, digest in expected.items() if name != "manifest.json"
    }


def test_what_libraries_make_of_a_full_disk_is_told_from_other_errors(disk: Callable[[str], Path]) -> None:
    from safetensors.torch import save_file

    file = disk("size=40k") / "file"
    values = np.random.default_rng(0).random(100_000)
    writers: list[Callable[[], object]] = [
        lambda: torch.save(torch.zeros(100_000), file),
        lambda: save_file({"weight": torch.zeros(100_000)}, file),
        lambda: pd.DataFrame({"score": values}).to_parquet(file),
        lambda: np.save(file.with_suffix(".npy"), values),
        lambda: file.write_bytes(bytes(100_000)),
    ]
    for write in writers:
        with pytest.raises(DiskFullError, match="found no room"), naming_failures("a stage", file.parent):
            write()
        for left in file.parent.iterdir():
            left.unlink()
    cut = file.parents[1] / "cut.pt"
    torch.save(torch.zeros(1), cut)
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(RuntimeError), naming_failures("a stage", file.parent):
        torch.load(cut, weights_only=True)
    with pytest.raises(ZeroDivisionError), naming_failures("a stage", file.parent):
        print(1 / 0)


def test_a_limit_on_the_size_of_files_is_named(data: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pipelines.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); main(sys.argv[1:])"
    )
    words = ["--quiet", "split", "--data", data, "--run", tmp_path / "run", "--tasks", "QI", "--folds", 3]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert "ulimit -f" in done.stderr
    assert give(*words[1:]).exit_code == 0


# Folders that cannot be written


def test_a_read_only_folder_is_named_and_exits_with_1(finished_run: Path, disk: Callable[[str], Path]) -> None:
    run = shutil.copytree(finished_run, disk("size=32m") / "run")
    shutil.rmtree(run / "parts" / "QI" / "lexical" / "fold-1")
    disk("ro")
    words = ("train", "--run", run, "--task", "QI", "--model", "lexical", "--fold", 1)
    refused = give(*words)
    assert refused.exit_code == 1, refused.output
    assert "Read-only file system" in refused.output
    assert str(run) in refused.output
    assert "mount it writable" in refused.output
    assert give("status", "--run", run).exit_code == 0, "reading needs no right to write"
    disk("rw")
    assert give(*words).exit_code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_named(data: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    refused = give("split", "--data", data, "--run", tmp_path / "run", "--tasks", "QI")
    tmp_path.chmod(0o755)
    assert refused.exit_code == 1
    assert str(tmp_path) in refused.output


def test_errors_have_their_paths_and_exit_codes(tmp_path: Path) -> None:
    denied = named(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x")), stage="train")
    assert isinstance(denied, FileAccessError)
    assert denied.exit_code == 1
    assert f"train may not use {tmp_path / 'x'}" in str(denied)
    full = named(OSError(errno.EDQUOT, "Disk quota exceeded"), folder=tmp_path)
    assert isinstance(full, DiskFullError)
    assert full.exit_code == 75
    assert f"`relstack gc {tmp_path}`" in full.advice
    assert named(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert named(ValueError("nothing of the kind")) is None


# Memory


def test_memory_that_runs_out_is_told_from_other_errors() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        assert out_of_memory(error)
    for take in (lambda: torch.empty(10**15), lambda: np.empty(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            take()
        assert out_of_memory(caught.value)
        assert isinstance(named(caught.value), MemoryShortageError)
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


IN_LITTLE_MEMORY = """
import resource, sys
from pipelines.cli import main
small, large, run = sys.argv[1:]
words = ["--quiet", "split", "--tasks", "QI", "--format", "csv"]
main([*words, "--data", small, "--run", run + "-small"], standalone_mode=False)  # threads, packages
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 12_000_000, -1))
main([*words, "--data", large, "--run", run])
"""


def test_a_stage_that_runs_out_of_memory_is_worth_retrying_and_leaves_the_run_alone(data: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "large", n_train=60_000, n_dev=60, n_test=60, seed=3, tasks=("QI",))
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, data, tmp_path / "large", tmp_path / "run"], timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert "ran out of memory" in done.stderr
    again = give("split", "--tasks", "QI", "--data", tmp_path / "large", "--run", tmp_path / "run")
    assert again.exit_code == 0, again.output


# Parts and timings


def test_a_part_that_was_cut_short_is_named_with_the_command_that_mends_it(finished_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    key = PartKey("QI", "lexical", 1)
    file = run.parts.folder(key) / "oof.parquet"
    file.write_bytes(file.read_bytes()[:-7])
    refused = give("ensemble", "make", "--run", run.root, "--task", "QI", "--name", "mean")
    assert refused.exit_code == 3, refused.output
    assert "part QI/lexical/fold-1 is damaged" in refused.output
    assert "relstack train --task QI --model lexical --fold 1" in refused.output
    shutil.rmtree(run.parts.folder(key))
    train(run, key)
    assert give("ensemble", "make", "--run", run.root, "--task", "QI", "--name", "mean").exit_code == 0


def test_a_torn_line_of_timings_is_passed_over_and_the_next_one_stands_by_itself(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with timed(run, "train QI/lexical/fold-0"):
        pass
    with run.timings_file.open("a", encoding="utf-8") as file:
        file.write("train QI/lex")
    assert timing_table(run)["stage"].tolist() == ["train QI/lexical"]
    with timed(run, "stack QI"):
        pass
    table = timing_table(run)
    assert table["stage"].tolist() == ["train QI/lexical", "stack QI"]
    assert table["runs"].tolist() == [1, 1]
    assert (table["seconds"] >= 0).all()
    run.timings_file.write_text("stage,sec", encoding="utf-8")
    assert timing_table(run).empty
    with timed(run, "stack QI"):
        pass
    assert timing_table(run)["stage"].tolist() == ["stack QI"]


def test_a_torn_run_toml_is_named(finished_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    text = run.settings_file.read_text()
    run.settings_file.write_text(text[: text.index("[") + 3])
    torn = give("status", "--run", run.root)
    assert torn.exit_code == 3
    assert "run.toml" in torn.output


def test_files_changed_under_a_clock_that_was_set_back_are_read_again(finished_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    first = run.rows("QI")["dev"]
    file = run.rows_file("QI", "dev")
    stat = file.stat()
    first.drop(columns="query_en").iloc[:-1].to_parquet(file, index=False)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(run.rows("QI")["dev"]) == len(first) - 1
