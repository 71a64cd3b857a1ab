"""The whole way as a user walks it: files in, validated submission out, by the command line alone."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from competition.sample import write_sample
from pipelines.cli import main

RECIPES = "lexical,lexical-linear"
KEYS = {
    *("task", "name", "kind", "f1", "f1_low", "f1_high", "f1_fold_std", "f1_at_half", "auc"),
    *("positive_rate", "threshold", "rows_per_second", "dev_f1"),
}


def relstack(*words: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder, and a finished run on it."""
    root = tmp_path_factory.mktemp("world")
    write_sample(root / "data", n_train=500, n_dev=150, n_test=120, seed=3, answers=root / "answers.csv")
    done = relstack("run", "--data", root / "data", "--run", root / "run", "--folds", 3, "--recipes", RECIPES,
                    "--translations", root / "data" / "translations.csv",
                    "--set", "lexical:head.rounds=30", "--format", "json")  # fmt: skip
    assert done.exit_code == 0, done.output
    return root / "data", root / "run"


def run_again(data: Path, run: Path, *more: object) -> Result:
    """The fixture's command once more."""
    return relstack("run", "--data", data, "--run", run, "--folds", 3, "--recipes", RECIPES,
                    "--translations", data / "translations.csv", "--set", "lexical:head.rounds=30", *more)  # fmt: skip


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every file below a folder, but the log of timings and what is made of them."""
    anew = ("timings.csv", "leaderboard.csv", "leaderboard.json", "report.html")
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in anew and "submissions" not in path.parts
    }


def test_leaderboard_has_every_learner_and_ensemble_of_both_tasks(world: tuple[Path, Path]) -> None:
    done = relstack("leaderboard", "--run", world[1], "--format", "json")
    entries = json.loads(done.stdout)
    assert {(e["task"], e["name"]) for e in entries} == {
        (task, name) for task in ("QC", "QI") for name in (*RECIPES.split(","), "stack", "blend")
    }
    assert all(set(entry) >= KEYS for entry in entries)
    assert all(0 <= e["f1_low"] <= e["f1"] <= e["f1_high"] <= 1 for e in entries)
    assert all(e["f1_avg"] is not None and e["dev_f1"] is not None for e in entries)


def test_the_submission_is_the_competition_format_and_valid(world: tuple[Path, Path]) -> None:
    data, run = world
    folder = run / "submissions" / "final"
    for task, target in (("QC", "category_path"), ("QI", "item_title")):
        given = [json.loads(line) for line in (data / f"test_{task}.txt").read_text("utf-8").splitlines()]
        made = [json.loads(line) for line in (folder / f"submit_{task}.txt").read_text("utf-8").splitlines()]
        fields = ["id", "language", "origin_query", target]
        assert [[row[f] for f in fields] for row in made] == [[row[f] for f in fields] for row in given]
        assert {row["prediction"] for row in made} <= {0, 1}
        csv = pd.read_csv(folder / f"submit_{task}.csv")
        assert csv["prediction"].tolist() == [row["prediction"] for row in made]
    assert relstack("validate", folder / "submit.zip", "--run", run).exit_code == 0


def test_the_submission_beats_everything_positive_on_hidden_labels(world: tuple[Path, Path]) -> None:
    data, run = world
    answers = pd.read_csv(data.parent / "answers.csv")
    for task, truth in answers.groupby("task"):
        made = pd.read_csv(run / "submissions" / "final" / f"submit_{task}.csv").merge(truth, on="id")
        hits = int((made["prediction"] * made["label"]).sum())
        score = 2 * hits / (made["prediction"].sum() + made["label"].sum())
        everything = 2 * made["label"].sum() / (len(made) + made["label"].sum())
        assert len(made) == len(truth)
        assert score > everything - 0.01


def test_a_second_run_makes_nothing_again(world: tuple[Path, Path]) -> None:
    before = files_of(world[1])
    assert run_again(*world).exit_code == 0
    assert files_of(world[1]) == before


def test_dry_run_lists_finished_and_missing_jobs_and_writes_nothing(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = world
    fresh = run_again(data, tmp_path / "new", "--dry-run", "--format", "json")
    assert {line["state"] for line in json.loads(fresh.stdout)} == {"to do"}
    assert not (tmp_path / "new").exists()
    done = json.loads(run_again(data, run, "--dry-run", "--format", "json").stdout)
    assert {line["job"] for line in done if line["state"] != "done"} == {"leaderboard", "submit"}  # every time
    assert sum(line["job"].startswith("train ") for line in done) == 2 * 2 * 3


def test_a_run_folder_refuses_other_settings_and_names_them(world: tuple[Path, Path]) -> None:
    refused = relstack("run", "--data", world[0], "--run", world[1], "--folds", 4, "--recipes", RECIPES,
                       "--translations", world[0] / "translations.csv")  # fmt: skip
    assert refused.exit_code == 3
    assert "folds" in refused.output


def test_a_changed_recipe_is_refused_with_the_difference(world: tuple[Path, Path]) -> None:
    refused = relstack("train", "--run", world[1], "--task", "QC", "--model", "lexical", "--fold", 0,
                       "--set", "lexical:head.leaves=7")  # fmt: skip
    assert refused.exit_code == 3
    assert "head.leaves" in refused.output


def test_a_missing_part_names_the_command_that_makes_it(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = world
    run = tmp_path / "run"
    assert relstack("split", "--data", data, "--run", run, "--folds", 3, "--tasks", "QI").exit_code == 0
    assert relstack("train", "--run", run, "--task", "QI", "--model", "lexical-linear", "--fold", 0).exit_code == 0
    refused = relstack("stack", "--run", run)
    assert refused.exit_code == 3
    assert "relstack train --task QI --model lexical-linear --fold 2" in refused.output
    for fold in (1, 2):
        assert (
            relstack("train", "--run", run, "--task", "QI", "--model", "lexical-linear", "--fold", fold).exit_code == 0
        )
    assert relstack("stack", "--run", run).exit_code == 0
    assert relstack("submit", "--run", run, "--ensemble", "stack").exit_code == 0


def test_labels_of_dev_and_test_change_no_score(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = world
    twisted = tmp_path / "data"
    twisted.mkdir()
    for file in data.glob("*_QI.txt"):
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        if not file.name.startswith("train"):
            lines = [{**line, "label": i % 2} for i, line in enumerate(lines)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (twisted / file.name).write_text(text, "utf-8")
    done = relstack("run", "--data", twisted, "--run", tmp_path / "run", "--folds", 3, "--recipes", RECIPES,
                    "--translations", data / "translations.csv", "--set", "lexical:head.rounds=30")  # fmt: skip
    assert done.exit_code == 0, done.output
    made, plain = (folder / "submissions" / "final" / "submit_QI.csv" for folder in (tmp_path / "run", run))
    assert made.read_bytes() == plain.read_bytes()


def test_a_folder_without_dev_test_or_a_task_works(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = world
    small = tmp_path / "data"
    small.mkdir()
    (small / "train_QI.txt").write_bytes((data / "train_QI.txt").read_bytes())
    (small / "dev_QI.txt").write_bytes((data / "dev_QI.txt").read_bytes())
    words = ("--run", tmp_path / "run", "--folds", 3, "--recipes", "lexical-linear")
    done = relstack("run", "--data", small, *words)
    assert done.exit_code == 0, done.output
    made = (tmp_path / "run" / "submissions" / "final" / "submit_QI.txt").read_text("utf-8").splitlines()
    assert len(made) == 150
    assert not (tmp_path / "run" / "submissions" / "final" / "submit_QC.txt").exists()


def test_bad_input_names_file_and_line_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train_QI.txt").write_text('{"id": 1, "language": "en", "origin_query": "a", "item_title": "b"', "utf-8")
    done = relstack("run", "--data", data, "--run", tmp_path / "run")
    assert done.exit_code == 3
    assert "train_QI.txt:1" in done.output
    assert not (tmp_path / "run").exists()
