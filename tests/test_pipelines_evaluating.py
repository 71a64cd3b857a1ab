"""All combiners side by side, any two entries compared, any combiner made: on a real small run."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from competition.artefacts import read_manifest, write_manifest
from competition.metrics import f1
from pipelines.cli import main
from pipelines.ensembling import COMBINERS, ensemble_cuts, ensemble_decisions, gather, read_ensemble
from pipelines.run_folder import RunFolder

TASK = "QI"


def relstack(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A run to write into."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_evaluate_shows_nested_in_sample_and_dev_f1_and_the_default_s_advantage(finished_run: Path) -> None:
    names = ("mean", "greedy", "blend")
    done = relstack("ensemble", "evaluate", "--run", finished_run, "--repeats", 2, "--format", "json",
                    *(word for name in names for word in ("--name", name)))  # fmt: skip
    assert done.exit_code == 0, done.output
    quality, advantage = json.loads(done.stdout).values()
    assert {line["combiner"] for line in quality} == set(names)
    nested = [line["nested_f1"] for line in quality]
    assert nested == sorted(nested, reverse=True)
    for line in quality:
        assert line["flattery"] == pytest.approx(line["in_sample"] - line["nested_f1"])
        assert line["dev_low"] <= line["dev_f1"] <= line["dev_high"]
        assert line["spread"] >= 0
    assert {line["other"] for line in advantage} == {"mean", "greedy"}
    assert all(line["low"] <= line["nested"] <= line["high"] for line in advantage)


def test_unknown_combiners_and_no_repeats_are_all_named(finished_run: Path) -> None:
    done = relstack("ensemble", "evaluate", "--run", finished_run, "--name", "oracle", "--repeats", 0)
    assert done.exit_code == 3
    assert "oracle" in done.output
    assert "--repeats" in done.output
    assert relstack("ensemble", "make", "--run", finished_run, "--name", "oracle").exit_code == 3


def test_two_entries_are_compared_in_total_and_per_language(finished_run: Path) -> None:
    done = relstack("ensemble", "compare", "blend", "lexical", "--run", finished_run, "--format", "json")
    assert done.exit_code == 0, done.output
    (table,) = json.loads(done.stdout).values()
    oof = read_ensemble(
        RunFolder(finished_run), TASK, "blend", "oof", gather(RunFolder(finished_run), TASK).frames["train"].rows["id"]
    )
    labels = gather(RunFolder(finished_run), TASK).frames["train"].labels
    assert table[0]["segment"] == "all"
    assert table[0]["f1"] == pytest.approx(f1(labels, oof["decision"]))
    assert table[0]["low"] <= table[0]["difference"] <= table[0]["high"]
    assert sum(line["rows"] for line in table[1:]) == table[0]["rows"]
    assert relstack("ensemble", "compare", "blend", "oracle", "--run", finished_run).exit_code == 3


def test_any_combiner_can_be_made_and_submitted(copied: Path) -> None:
    assert relstack("ensemble", "make", "--run", copied, "--name", "greedy").exit_code == 0
    done = relstack("submit", "--run", copied, "--ensemble", "greedy", "--name", "by-greedy")
    assert done.exit_code == 0, done.output
    assert (
        json.loads((copied / "submissions/by-greedy/manifest.json").read_text())["chosen"][TASK]["ensemble"] == "greedy"
    )
    assert "greedy" in relstack("leaderboard", "--run", copied).output
    assert "greedy" in COMBINERS


def test_cuts_of_languages_decide_on_the_leaderboard_and_in_the_submission(copied: Path) -> None:
    """The manifest is what decides: with a cut of 0 for one language, all of its rows are positive."""
    run = RunFolder(copied)
    rows = run.rows(TASK)["test"]
    language = rows["language"].iloc[0]
    file = run.ensemble(TASK, "blend") / "manifest.json"
    write_manifest(file, {**read_manifest(file), "cuts": {language: 0.0}})
    assert ensemble_cuts(run, TASK, "blend").by_segment == {language: 0.0}
    decided = ensemble_decisions(run, TASK, "blend", "test", rows)
    assert decided[rows["language"] == language].all()
    assert relstack("submit", "--run", copied, "--ensemble", "blend", "--name", "cut").exit_code == 0
    lines = [json.loads(line) for line in (copied / "submissions/cut/submit_QI.txt").read_text("utf-8").splitlines()]
    assert [line["prediction"] for line in lines] == decided.tolist()


def test_a_prior_matched_submission_is_cut_for_the_split_s_own_share(copied: Path) -> None:
    done = relstack("submit", "--run", copied, "--prior-matched", "--name", "matched")
    assert done.exit_code == 0, done.output
    assert (
        json.loads((copied / "submissions/matched/manifest.json").read_text())["chosen"][TASK]["cut"] == "prior-matched"
    )
