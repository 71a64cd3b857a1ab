"""The comparison of fold plans, on a few made-up rows."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.metrics import f1
from competition.sample import write_sample
from pipelines.run_folder import RunFolder, RunSettings

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
from plans import f1_at_rate, measure, most_folds, report, without_test


def test_f1_at_another_share_of_positives_is_that_of_repeated_rows():
    labels, decisions = np.array([1, 1, 0, 0, 1, 0]), np.array([1, 0, 1, 0, 1, 0])
    assert f1_at_rate(labels, decisions, 0.5) == pytest.approx(f1(labels, decisions))
    twice = np.concatenate([np.arange(6), np.flatnonzero(labels)])
    assert f1_at_rate(labels, decisions, 2 / 3) == pytest.approx(f1(labels[twice], decisions[twice]))


def test_a_plan_is_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_sample(tmp_path / "sample", n_train=300, n_dev=80, n_test=80, tasks=("QC",))
    data = without_test(tmp_path / "sample", tmp_path / "data", task="QC")
    assert sorted(file.name for file in data.iterdir()) == ["dev_QC.txt", "train_QC.txt"]
    assert most_folds(data, "language-holdout", task="QC") == 6
    lines = []
    for plan in ("query-group", "test-matched"):
        settings = RunSettings(data=str(data), tasks=("QC",), plan=plan, folds=3)
        lines += measure(RunFolder(tmp_path / plan), settings, learners=["lexical"])
    assert [line["plan"] for line in lines] == ["query-group", "test-matched"]
    assert lines[1]["trained_on"] < lines[0]["trained_on"] == 200
    assert all(0 < line[name] <= 100 for line in lines for name in ("cross_fitted", "dev", "dev_one_model"))
    capsys.readouterr()
    report(pd.DataFrame(lines))
    said = capsys.readouterr().out
    assert "RESULT plan_error_pt_query-group " in said
    assert "RESULT plan_least_error " in said
