"""Other contests from raw files to a submission in the host's own format, with lexical recipes."""

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from competition.contest import CONTESTS, load_contest
from competition.metrics import auc, f1
from competition.rows import read_competition
from competition.sample_contests import write_contest_sample
from pipelines.cli import main
from pipelines.run_folder import RunFolder
from submissions.compare import read_predictions
from submissions.leaderboard import Leaderboard

ALL = ("amazon-esci", "home-depot", "wdc-products")
SIZES = {"n_train": 1500, "n_test": 300}
FAST = ("--folds", 3, "--recipes", "lexical-linear")


def relstack(*words: Any, fails: bool = False) -> Result:
    done = CliRunner().invoke(main, ["--quiet", *map(str, words)])
    assert (done.exit_code != 0) == fails, done.output
    return done


@pytest.fixture(scope="session", params=ALL)
def contest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and a finished ``run`` of one of the contests."""
    root = tmp_path_factory.mktemp(request.param) / str(request.param)
    write_contest_sample(request.param, root / "data", **SIZES)
    relstack("run", "--competition", request.param, "--data", root / "data", "--run", root / "run", *FAST)
    return root


def submitted(root: Path) -> list[list[str]]:
    """The lines of the CSV file that goes to the host."""
    task = load_contest(root.name).tasks[0]
    with (root / "run" / "submissions" / "final" / task.submission.csv).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_run_ends_in_a_submission_that_the_host_would_take(contest: Path) -> None:
    task = load_contest(contest.name).tasks[0]
    header, *lines = submitted(contest)
    test = read_competition(contest / "data", [task])[task.name]["test"]
    assert header == {"amazon-esci": ["example_id", "relevance_label"], "home-depot": ["id", "relevance"],
                      "wdc-products": ["pair_id", "label"]}[contest.name]  # fmt: skip
    assert [row_id for row_id, _ in lines] == [str(row_id) for row_id in test["id"]]
    values = {value for _, value in lines}
    if contest.name == "home-depot":
        assert all(1 <= float(value) <= 3 for value in values)
        assert len(values) > 100
        with (contest / "data" / "sample_submission.csv").open(newline="") as file:
            sample = list(csv.reader(file))
        assert [header, *[[line[0]] for line in lines]] == [sample[0], *[[line[0]] for line in sample[1:]]]
    else:
        assert values == ({"irrelevant", "relevant"} if contest.name == "amazon-esci" else {"0", "1"})
    done = relstack("validate", contest / "run" / "submissions" / "final", "--run", contest / "run")
    assert done.output.startswith("passed: ")


def test_an_archive_is_there_where_the_host_wants_one(contest: Path) -> None:
    folder = contest / "run" / "submissions" / "final"
    assert [path.name for path in folder.glob("*.zip")] == ["predictions.zip"] * (contest.name == "wdc-products")
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.read("predictions.csv") == (folder / "predictions.csv").read_bytes()
        relstack("validate", path, "--run", contest / "run")


def test_a_spoilt_submission_is_refused(contest: Path, tmp_path: Path) -> None:
    header, first, *others = submitted(contest)
    name = load_contest(contest.name).tasks[0].submission.csv
    for spoilt, told in (
        ([header, [first[0], "9"], *others], "is '9'"),
        ([header, *others], "is missing"),
        ([["id", "other"], first, *others], "the header is 'id,other'"),
    ):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(spoilt)
        assert told in relstack("validate", tmp_path / name, "--run", contest / "run", fails=True).output


def test_models_know_more_than_chance(contest: Path) -> None:
    task = load_contest(contest.name).tasks[0]
    board = Leaderboard.read_csv(contest / "run" / "leaderboard.csv")
    train = read_competition(contest / "data", [task])[task.name]["train"]
    everything = f1(train["label"].to_numpy(), np.ones(len(train)))
    for entry in board.entries:
        assert entry.f1 is not None
        assert entry.auc is not None
        assert entry.auc > 0.7
        assert entry.f1 > everything + 0.01


def test_predictions_of_test_are_right_more_often_than_chance(contest: Path) -> None:
    task = load_contest(contest.name).tasks[0]
    test = read_competition(contest / "data", [task])[task.name]["test"].set_index("id")
    if test["label"].isna().all():
        pytest.skip("the host keeps the labels of test")
    found = read_predictions(contest / "run" / "submissions" / "final", task).reindex(test.index)
    labels = test["label"].to_numpy(dtype=np.int8)
    assert auc(labels, found.to_numpy()) > 0.6
    assert f1(labels, found.to_numpy()) > f1(labels, np.ones(len(labels)))


def test_a_probability_metric_ranks_the_leaderboard_and_submits_scores(contest: Path) -> None:
    board = Leaderboard.read_csv(contest / "run" / "leaderboard.csv")
    if contest.name != "home-depot":
        assert all(entry.metric is None for entry in board.entries)
        return
    assert [entry.metric for entry in board.entries] == sorted((entry.auc for entry in board.entries), reverse=True)
    manifest = json.loads((contest / "run" / "submissions" / "final" / "manifest.json").read_text())
    assert manifest["chosen"]["HD"]["cut"] == "none"
    assert "scores are wanted" in relstack("submit", "--run", contest / "run", "--prior-matched", fails=True).output


def test_later_stages_read_the_contest_from_the_run(contest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(contest / "run", run)
    task = RunFolder(run).task(load_contest(contest.name).tasks[0].name)
    assert task == load_contest(contest.name).tasks[0]
    before = (run / "submissions" / "final" / task.submission.csv).read_bytes()
    relstack("submit", "--run", run)  # no --data, no --competition
    assert (run / "submissions" / "final" / task.submission.csv).read_bytes() == before
    (run / "competition.toml").unlink()
    assert "competition.toml" in relstack("submit", "--run", run, fails=True).output


def test_a_run_is_of_one_contest(contest: Path) -> None:
    other = next(name for name in ALL if name != contest.name)
    write = contest / "other"
    if not write.exists():
        write_contest_sample(other, write, n_train=60, n_test=20)
    told = relstack("split", "--competition", other, "--data", write, "--run", contest / "run", fails=True).output
    assert "this run was made for another competition" in told


def test_doing_it_again_does_nothing_again(contest: Path) -> None:
    parts = {path: path.stat().st_mtime_ns for path in (contest / "run" / "parts").rglob("*.parquet")}
    relstack("run", "--competition", contest.name, "--data", contest / "data", "--run", contest / "run", *FAST)
    assert parts == {path: path.stat().st_mtime_ns for path in (contest / "run" / "parts").rglob("*.parquet")}


def test_check_looks_at_the_files_of_any_contest(contest: Path) -> None:
    done = relstack("check", "--competition", contest.name, "--data", contest / "data", "--format", "json")
    verdicts = pd.DataFrame(json.loads(done.stdout)["verdicts"])
    assert not (verdicts["verdict"] == "fault").any()
    assert relstack("check", "--run", contest / "run", "--format", "json").stdout == done.stdout


def test_a_plan_is_told_before_anything_is_made(contest: Path, tmp_path: Path) -> None:
    words = ("run", "--competition", contest.name, "--data", contest / "data", "--run", tmp_path / "new", *FAST)
    table = json.loads(relstack(*words, "--dry-run", "--format", "json").stdout)
    task = load_contest(contest.name).tasks[0].name
    assert {f"train {task}/lexical-linear/fold-{fold}" for fold in range(3)} <= {line["job"] for line in table}
    assert not (tmp_path / "new").exists()


def test_the_contest_of_the_data_folder_is_taken(tmp_path: Path) -> None:
    write_contest_sample("home-depot", tmp_path / "data", n_train=200, n_test=40)
    shutil.copyfile(CONTESTS / "home-depot.toml", tmp_path / "data" / "competition.toml")
    relstack("split", "--data", tmp_path / "data", "--run", tmp_path / "run", "--folds", 3)
    run = RunFolder(tmp_path / "run")
    assert [task.name for task in run.tasks()] == ["HD"]
    assert run.contest() == load_contest("home-depot")
    relstack("push", run.root, f"file://{tmp_path}/store")
    relstack("pull", f"file://{tmp_path}/store", tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").contest() == run.contest()


def test_a_changed_contest_is_refused(tmp_path: Path) -> None:
    write_contest_sample("home-depot", tmp_path / "data", n_train=200, n_test=40)
    own = tmp_path / "own.toml"
    own.write_text((CONTESTS / "home-depot.toml").read_text())
    words = ("split", "--competition", own, "--data", tmp_path / "data", "--run", tmp_path / "run", "--folds", 3)
    relstack(*words)
    own.write_text("# other words mean the same\n" + own.read_text())
    relstack(*words)
    own.write_text(own.read_text().replace("positive_from = 2.5", "positive_from = 2.9"))
    assert "another competition" in relstack(*words, fails=True).output


def test_runs_of_the_built_in_contest_are_what_they_were(finished_run: Path) -> None:
    assert "competition" not in (finished_run / "run.toml").read_text()
    assert not (finished_run / "competition.toml").exists()
    assert RunFolder(finished_run).task("QI").name == "QI"
    assert (finished_run / "leaderboard.csv").read_text().splitlines()[0].endswith("difference_high")
