"""Explanations of a real small run, and the leaderboard's differences, which come from the same decisions."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from competition.errors import CompetitionError
from competition.metrics import f1, paired_difference
from oof.blend import HardVote, Mean
from oof.crossfit import cross_fit
from oof.simulate import simulate
from oof.stack import LightGBMStacker
from pipelines.cli import main
from pipelines.ensembling import Gathered, ensembles, gather, read_ensemble
from pipelines.explaining import contributions, explain, gain_table, weights_table
from pipelines.run_folder import RunFolder

TASK = "QI"


def relstack(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


@pytest.fixture
def run(finished_run: Path) -> Path:
    return finished_run


def test_explain_prints_weights_importance_and_what_each_learner_adds(run: Path) -> None:
    done = relstack("ensemble", "explain", "--run", run, "--task", TASK, "--format", "json")
    assert done.exit_code == 0, done.output
    tables = json.loads(done.stdout)
    assert sum(line["share"] for line in tables["QI blend: mixed of"]) == pytest.approx(1)
    members = [line["member"] for line in tables["QI blend: mixed of"]]
    assert all(len(tables[f"QI blend, {member}: weights"]) == 2 for member in members)
    for name in ensembles(RunFolder(run), TASK):
        added = tables[f"QI {name}: what each base learner adds"]
        assert {line["learner"] for line in added} == {"lexical", "lexical-linear"}
        assert all(line["low"] <= line["adds"] <= line["high"] for line in added)
        assert [line["method"] for line in tables[f"QI {name}: calibration"]] == [
            "none",
            "temperature",
            "beta",
            "isotonic",
        ]
        assert [line["split"] for line in tables[f"QI {name}: share of positives"]] == ["dev", "test"]
        assert all(0 <= line["cut"] <= 1 for line in tables[f"QI {name}: cuts per language"])
    assert tables["QI: stack against blend, by language"][0]["segment"] == "all"


def test_labels_lists_the_rows_that_no_learner_believes_the_surest_doubts_first(run: Path) -> None:
    done = relstack("labels", "--run", run, "--top", 5, "--format", "json")
    assert done.exit_code == 0, done.output
    counts, rows = json.loads(done.stdout).values()
    assert counts[0]["language"] == "all"
    assert counts[0]["doubted"] == sum(line["doubted"] for line in counts[1:])
    assert len(rows) == min(5, counts[0]["doubted"]) > 0
    doubts = [abs(row["score"] - row["label"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert {"id", "language", "query", "target"} <= set(rows[0])


def test_an_ensemble_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(CompetitionError, match="no such ensemble") as caught:
        explain(RunFolder(run), TASK, ["voting"])
    assert "voting" in str(caught.value)


def test_the_difference_on_the_leaderboard_is_that_of_the_saved_decisions(run: Path) -> None:
    entries = json.loads(relstack("leaderboard", "--run", run, "--format", "json").stdout)
    best, *others = entries
    assert (best["difference"], best["difference_low"], best["difference_high"]) == (0, 0, 0)
    assert all(entry["difference"] == pytest.approx(entry["f1"] - best["f1"]) for entry in others)
    assert all(entry["difference_low"] <= entry["difference"] <= entry["difference_high"] for entry in others)
    folder = RunFolder(run)
    train = gather(folder, TASK).frames["train"]
    decisions = {
        name: read_ensemble(folder, TASK, name, "oof", train.rows["id"])["decision"].to_numpy()
        for name in ensembles(folder, TASK)
    }
    if best["name"] in decisions:
        other = next(name for name in decisions if name != best["name"])
        gap = paired_difference(train.labels, decisions[other], decisions[best["name"]], train.group)
        shown = next(entry for entry in entries if entry["name"] == other)
        assert (shown["difference_low"], shown["difference_high"]) == (gap.low, gap.high)


def test_a_learner_of_pure_noise_adds_nothing_and_a_good_one_does() -> None:
    world = simulate(4000, 2, 5, language_quality=True, correlation=0.2, noise_learners=1, n_folds=3)
    gathered = Gathered({"train": world.oof}, {}, {})
    decisions = cross_fit(LightGBMStacker(max_rounds=40), world.oof).decisions
    table = contributions(gathered, "blend", decisions, seed=0).set_index("learner")
    assert table.loc["learner_2", "low"] < 0.005
    assert table.index[-1] == "learner_2"
    assert table.loc["learner_0", "low"] > 0
    assert table["without"].max() <= 1
    expected = f1(world.oof.labels, decisions) - table["without"]
    assert np.allclose(table["adds"], expected)


def test_what_the_trees_look_at_sums_to_one_and_a_stacker_without_trees_has_none() -> None:
    frame = simulate(3000, 3, 0, language_quality=True, correlation=0.3, n_folds=3).oof
    gains = gain_table(LightGBMStacker(max_rounds=20).fit(frame))
    assert gains["gain"].sum() == pytest.approx(1)
    assert gains["gain"].iloc[:-1].is_monotonic_decreasing
    assert gain_table(LightGBMStacker(max_rounds=0).fit(frame)).empty


def test_weights_stand_heaviest_first_and_votes_have_none() -> None:
    frame = simulate(600, 3, 0, language_quality=False, correlation=0.3, n_folds=3).oof
    assert weights_table(Mean().fit(frame))["weight"].tolist() == pytest.approx([1 / 3] * 3)
    assert weights_table(HardVote().fit(frame)).empty
    stack = LightGBMStacker(max_rounds=0).fit(frame)
    assert weights_table(stack)["weight"].tolist() == sorted(stack.offset.coefficients, reverse=True)
