"""Of two processes on the same thing one works and the other waits, says for whom, and finds it finished."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from competition.artefacts import TEMPORARY, write_text
from competition.sample import write_sample
from oof.journal import cut_torn_line, open_journal
from oof.store import PartKey
from pipelines.cli import main
from pipelines.config import recipe_path
from pipelines.locks import alone
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scratch import scratch_of
from pipelines.train import train

ROOT = Path(__file__).parent.parent


def test_who_comes_second_waits_says_for_whom_and_finds_it_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []
    thing, entered, leave = tmp_path / "thing", threading.Event(), threading.Event()

    def first() -> None:
        with alone(thing):
            entered.set()
            leave.wait()
            thing.mkdir()
            made.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    caplog.set_level(logging.INFO)

    class Leave(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            leave.set()

    handler = Leave()
    logging.getLogger("pipelines.locks").addHandler(handler)
    with alone(thing):
        made.append("second" if not thing.is_dir() else "nothing")
    logging.getLogger("pipelines.locks").removeHandler(handler)
    thread.join()
    assert made == ["first", "nothing"]
    assert [m for m in caplog.messages if m.startswith(f"waiting for process {os.getpid()} on ")]
    assert not list(tmp_path.glob("*.holder"))


def test_a_killed_holder_frees_the_lock_and_its_temporary_files_are_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.locks import alone\n"
        "path = Path(sys.argv[1])\n"
        "with alone(path):\n"
        "    path.with_name(f'.{path.name}.{os.getpid()}.tmp').write_text('half')\n"
        "    os._exit(137)"
    )
    for name in ("run.toml", "translations.parquet"):
        path = tmp_path / name
        done = subprocess.run([sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
                              check=False)  # fmt: skip
        assert done.returncode == 137
        (tmp_path / f".others.json.1{TEMPORARY}").write_text("of a process that lives")
        assert len(list(tmp_path.glob(f".{name}.*{TEMPORARY}"))) == 1
        with alone(path):
            write_text(path, "whole")
        assert not list(tmp_path.glob(f".{name}.*{TEMPORARY}"))
        assert (tmp_path / f".others.json.1{TEMPORARY}").is_file()


TWICE = """
import logging, sys
from pathlib import Path
from pipelines.ensembling import ensemble
from pipelines.output import narrate
from pipelines.run_folder import RunFolder
from pipelines.submitting import submit
run = RunFolder(Path(sys.argv[1]))
narrate(quiet=False, verbose=False)
print("ready", flush=True)
sys.stdin.readline()
ensemble(run, "QI", "logistic")
submit(run, choice="logistic", name="twice")
"""


@pytest.mark.slow
def test_of_two_processes_that_make_the_same_ensemble_one_works(finished_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", TWICE, str(run.root)], env=environment, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    told = []
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in both:
        told.append(each.communicate()[1])
        assert each.returncode == 0, told[-1]
    lines = "\n".join(told).splitlines()
    assert sum("QI: logistic of lexical" in line for line in lines) == 1
    assert sum("QI: logistic is there already" in line for line in lines) == 1
    assert json.loads((run.submission("twice") / "manifest.json").read_text())["chosen"]["QI"]["ensemble"] == "logistic"
    assert not list(run.root.rglob("*.partial"))


def test_recipes_that_several_processes_record_at_once_are_all_kept(finished_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    names = [tmp_path / f"learner-{i}" for i in range(1, 13)]
    for name in names:
        shutil.copy(recipe_path("lexical"), f"{name}.toml")
    threads = [
        threading.Thread(target=run.add_recipes, args=([f"{name}.toml"], [f"{Path(name).name}:head.rounds=7"]))
        for name in map(str, names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settings = run.settings()
    assert {f"{name}.toml" for name in names} <= set(settings.recipes)
    assert {f"{name.name}:head.rounds=7" for name in names} <= set(settings.overrides)
    assert all(run.recipe_copy(name.name).is_file() for name in names)


# A preparation that was cut off


def test_a_preparation_cut_off_between_two_splits_is_completed(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=120, n_dev=20, n_test=20, tasks=("QI",))
    run = RunFolder(tmp_path / "run")
    settings = RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3)
    prepare(run, settings)
    whole = {split: run.rows_file("QI", split).read_bytes() for split in ("train", "dev", "test")}
    for name in ("manifest.json", "dev.parquet", "test.parquet"):
        (run.rows_file("QI", "train").parent / name).unlink()
    (run.rows_file("QI", "train").parent / ".dev.parquet.17.tmp").write_bytes(b"half")
    prepare(run, settings)
    assert {name: run.rows_file("QI", name).read_bytes() for name in whole} == whole
    assert not list(run.root.rglob("*.tmp"))
    split(run)


# Scratch


def test_scratch_of_something_else_is_discarded_and_of_the_same_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "fold-0.partial"
    scratch = scratch_of(work, {"recipe": {"epochs": 2}, "rows": {"train": "a"}})
    (scratch / "checkpoints").mkdir()
    (work / "weights").mkdir()
    (work / "oof.parquet").write_bytes(b"half")
    assert scratch_of(work, {"rows": {"train": "a"}, "recipe": {"epochs": 2}}) == scratch
    assert (scratch / "checkpoints").is_dir()
    assert [path.name for path in work.iterdir()] == ["scratch"]
    assert not caplog.messages
    scratch_of(work, {"recipe": {"epochs": 3}, "rows": {"train": "a"}})
    assert not (scratch / "checkpoints").exists()
    assert [message for message in caplog.messages if "begins anew" in message]


def test_checkpoints_of_another_recipe_are_not_gone_on_from(
    finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    key = PartKey("QI", "lexical", 0)
    shutil.rmtree(run.parts.folder(key))
    old = scratch_of(run.parts.workdir(key), {"recipe": "another"}) / "checkpoints" / "checkpoint-1"
    old.mkdir(parents=True)
    train(run, key)
    assert run.parts.is_finished(key)
    assert [message for message in caplog.messages if "begins anew" in message]


# Journals


def test_a_journal_torn_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    import optuna

    path = tmp_path / "journal.log"

    def study() -> "optuna.Study":
        return optuna.create_study(storage=open_journal(path), study_name="s", load_if_exists=True)

    for value in (1.0, 2.0):
        study().add_trial(optuna.trial.create_trial(value=value))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert [trial.value for trial in study().trials] == [1.0]
    study().add_trial(optuna.trial.create_trial(value=3.0))
    assert [trial.value for trial in study().trials] == [1.0, 3.0]
    assert path.read_bytes().endswith(b"\n")


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    cut_torn_line(path)
    assert not path.exists()
    path.write_bytes(b"one\ntwo\n")
    cut_torn_line(path)
    assert path.read_bytes() == b"one\ntwo\n"


def test_no_lock_is_left_in_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for command in ("submit", "leaderboard", "report"):
        done = CliRunner().invoke(main, ["--quiet", command, "--run", str(tmp_path / "nope")])
        assert "is not a run folder" in done.output
        assert not (tmp_path / "nope").exists()
