"""Trackers get the metrics of a run, offline, without secrets; one that is lost costs metrics and nothing else."""

import io
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines import trackers
from pipelines.cli import main
from pipelines.cli_options import run_folder
from pipelines.launch import METRICS_MARK, _forward
from pipelines.run_folder import RunFolder
from pipelines.secrets import HIDDEN
from pipelines.tracker_process import Redacted, flat, follow
from pipelines.trackers import CHOICE, PATIENCE, Channel, close_trackers, log_metrics, logging_to, tracked

INSTALLED = [name for name in trackers.TRACKERS if find_spec(name)]
SECRET = "fake-secret-0123456789"


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        self.told.append((name, dict(config)))

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        self.told.append((dict(metrics), step))

    def finish(self) -> None:
        self.told.append("finished")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracker of the machine's user, and none left over."""
    for name in (CHOICE, "MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    close_trackers()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An empty run folder called ``cup 1``."""
    return RunFolder(tmp_path / "cup 1")


def test_metrics_go_to_the_open_trackers_alone() -> None:
    first, second = Kept(), Kept()
    log_metrics({"lost": 1.0})
    with logging_to([first]):
        with logging_to([second]):
            log_metrics({"loss": 0.5, "grad_norm": None}, 3)
        log_metrics({"f1": 1})
    assert first.told == [({"loss": 0.5}, 3), ({"f1": 1.0}, None)]
    assert second.told == [({"loss": 0.5}, 3)]


def test_metrics_of_the_first_worker_reach_the_trackers_of_its_parent() -> None:
    kept = Kept()
    with logging_to([kept]):
        _forward(f"{METRICS_MARK} " + json.dumps({"log": {"loss": 0.25}, "step": 7}))
        _forward("any other line")
    assert kept.told == [({"loss": 0.25}, 7)]


def test_a_run_that_was_cut_off_is_finished() -> None:
    kept = Kept()
    follow(kept, ['{"start": "a", "config": {}}', '{"log": {"x": 1}, "step": null}'])
    assert kept.told == [("a", {}), ({"x": 1}, None), "finished"]
    follow(kept, ['{"start": "b", "config": {}}', '{"finish": true}'])
    assert kept.told[-2:] == [("b", {}), "finished"]


def test_nested_tables_get_dotted_keys() -> None:
    assert dict(flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_without_a_choice_nothing_is_started(run: RunFolder) -> None:
    with tracked(run, "x", {}):
        log_metrics({"f1": 1.0})
    assert not run.root.exists()


def test_an_unknown_name_is_a_warning_in_the_environment(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CHOICE, "tensorbored")
    with tracked(run, "x", {}), tracked(run, "y", {}):
        log_metrics({"f1": 1.0})
    assert caplog.text.count("no tracker is called 'tensorbored'") == 1


def test_an_unknown_name_is_a_usage_error_on_the_command_line(run: RunFolder) -> None:
    done = CliRunner().invoke(main, ["ensemble", "make", "--name", "mean", "--run", str(run.root), "--tracker", "x"])
    assert done.exit_code == 2
    assert "trackio, mlflow, wandb" in done.output


def test_the_choice_of_a_command_ends_with_it(run: RunFolder) -> None:
    CliRunner().invoke(main, ["ensemble", "make", "--name", "mean", "--run", str(run.root), "--tracker", "wandb"])
    assert CHOICE not in os.environ


def test_trackers_of_a_process_outlive_its_commands_but_not_a_command_s_own(run: RunFolder) -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # it ends with its pipe, as a tracker does
    trackers._channels["wandb", run.trackers_folder] = Channel("wandb", process)
    words = ["ensemble", "make", "--name", "mean", "--run", str(run.root)]
    CliRunner().invoke(main, words)
    assert process.poll() is None
    assert len(trackers._channels) == 1
    CliRunner().invoke(main, [*words, "--tracker", "wandb"])
    assert process.poll() == 0
    assert not trackers._channels


def log_a_run(run: RunFolder) -> None:
    with tracked(run, "QI/e5/fold-0", {"recipe": {"seed": 3, "where": f"https://me:{SECRET}@host"}}):
        for step in (1, 2):
            log_metrics({"train/loss": 1.0 / step}, step)
        log_metrics({"fold_f1": 0.75})
    close_trackers()


def told_mlflow(folder: Path) -> dict[str, float]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return dict(database.execute("select key, value from latest_metrics"))


def told_trackio(folder: Path) -> dict[str, float]:
    (file,) = (folder / "trackio").glob("cup-1*.db")
    with sqlite3.connect(file) as database:
        lines = [json.loads(text) for (text,) in database.execute("select metrics from metrics order by id")]
    return {name: value for line in lines for name, value in line.items()}


def told_wandb(folder: Path) -> dict[str, float]:
    """The last value by name: wandb writes the name, a field's number, the value's length and its JSON."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = re.findall(rb"(train/loss|fold_f1)\x82\x01.([0-9.]+)", file.read_bytes(), re.DOTALL)
    return {name.decode(): float(value) for name, value in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_a_real_tracker_keeps_the_metrics_on_this_disk_without_secrets(
    name: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CHOICE, name)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # whoever calls somebody fails
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    log_a_run(run)
    read = {"mlflow": told_mlflow, "trackio": told_trackio, "wandb": told_wandb}[name]
    found = read(run.trackers_folder)
    assert found["train/loss"] == 0.5
    assert found["fold_f1"] == 0.75
    assert "dropped" not in caplog.text
    run_folder(run.root)  # which has no links that are refused
    files = [path for path in run.root.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_tracker_that_raises_is_dropped_with_one_warning(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CHOICE, "wandb")
    (run.trackers_folder / "wandb").mkdir(parents=True)
    (run.trackers_folder / "wandb" / "settings").write_text("[default]\nbase_url = http://stranger\n")
    log_a_run(run)
    with tracked(run, "again", {}):
        log_metrics({"f1": 1.0})
    close_trackers()
    assert "tracker wandb ended with an error" in caplog.text
    assert "which server gets this user's key" in (run.trackers_folder / "wandb.log").read_text()


def test_a_tracker_that_has_ended_is_dropped_while_the_job_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CHOICE, "wandb")
    (run.trackers_folder / "wandb" / "settings").mkdir(parents=True)
    with tracked(run, "x", {}):
        (channel,) = trackers._channels.values()
        channel.process.wait(60)
        for step in range(100):
            log_metrics({"loss": 1.0}, step)
    close_trackers()
    assert [record.levelno for record in caplog.records if "dropped" in record.message] == [logging.WARNING]


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="mlflow is not installed: pip install 'relstack[mlflow]'")
def test_a_server_that_never_answers_neither_slows_nor_stops_a_job(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and says nothing
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv(CHOICE, "mlflow")
        monkeypatch.setenv(PATIENCE, "2")
        with tracked(run, "x", {}):
            for step in range(20_000):  # more than a pipe holds
                log_metrics({"loss": 1.0}, step)
        (channel,) = trackers._channels.values()
        assert channel.lost
        close_trackers()
    assert channel.process.returncode is not None
    assert [record.levelno for record in caplog.records if "dropped" in record.message] == [logging.WARNING]


def test_a_folder_that_cannot_be_written_costs_no_job(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run.root.mkdir()
    run.trackers_folder.write_text("a file stands here")
    monkeypatch.setenv(CHOICE, "wandb")
    with tracked(run, "x", {}):
        log_metrics({"f1": 1.0})
    assert "tracker wandb cannot be started" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif("trackio" not in INSTALLED, reason="trackio is not installed: pip install 'relstack[trackio]'")
def test_parts_ensembles_and_the_leaderboard_are_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from competition.sample import write_sample

    monkeypatch.setenv("HF_TOKEN", SECRET)
    write_sample(tmp_path / "data", n_train=300, n_dev=40, n_test=40, seed=3, tasks=("QI",))
    words = ["run", "--data", tmp_path / "data", "--run", tmp_path / "cup 1", "--folds", 3, "--tasks", "QI",
             "--recipes", "lexical", "--set", "lexical:head.rounds=5", "--tracker", "trackio"]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert "dropped" not in done.stderr
    told = told_trackio(tmp_path / "cup 1" / "trackers")
    manifest = json.loads((tmp_path / "cup 1/parts/QI/lexical/fold-2/manifest.json").read_text())
    assert told["fit_seconds"] == manifest["fit_seconds"]
    threshold = json.loads((tmp_path / "cup 1/ensembles/QI/blend/manifest.json").read_text())["threshold"]
    assert told["threshold"] == pytest.approx(threshold)
    board = pd.read_csv(tmp_path / "cup 1" / "leaderboard.csv").set_index("name")
    assert told["f1/QI/lexical"] == pytest.approx(board.loc["lexical", "f1"], abs=1e-4)
    files = [path for path in (tmp_path / "cup 1").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in done.output


def test_what_a_tracker_says_holds_no_secrets() -> None:
    said = io.StringIO()
    stream = Redacted(said)
    print("API request to http://user:hunter2", end="", file=stream)
    print("secret@127.0.0.1:1/ failed", file=stream)
    print("no end", end="", file=stream, flush=True)
    assert said.getvalue() == f"API request to http://{HIDDEN}@127.0.0.1:1/ failed\nno end"
