"""The benchmarks of the ensemble layer run, tiny: their tables and last lines are there, whatever they measure."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import ensemble_speed
import ensembles


def _results(printed: str) -> dict[str, float]:
    lines = [line.split() for line in printed.splitlines() if line.startswith("RESULT ")]
    return {name: float(value) for _, name, value in lines}


def test_the_harness_prints_a_table_per_cell_and_its_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seeds", "1", "--rows", "600", "--learners", "2", "--quality", "alike", "--fresh", "2000"]
    monkeypatch.setattr(sys, "argv", ["ensembles.py", *words])
    ensembles.main()
    printed = capsys.readouterr().out
    assert "alike, 2 learners (+ 0 of noise), 600 rows, 1 seeds" in printed
    assert {"blend", "stack", "greedy", "best-single"} <= set(printed.split())
    assert list(_results(printed))[-2:] == ["worst_regret_pt", "nested_bias_pt"]


def test_the_speed_benchmark_prints_three_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--rows", "20000", "--learners", "7", "--picks", "2", "--trials", "6", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["ensemble_speed.py", *words])
    ensemble_speed.main()
    assert list(_results(capsys.readouterr().out)) == ["threshold_speedup", "greedy_speedup", "blend_speedup"]
