"""The load benchmark: stages are measured with their children, nothing is measured twice, growth is that of powers."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import load
from load import Load, Measured, folds_together, read_measured, run_stage, write_measured

STAGES = [
    Measured("train lexical/fold-0", 2.0, 1.5, 300),
    Measured("train lexical/fold-1", 3.0, 2.5, 200),
    Measured("stack", 10.0, 9.0, 400),
]


def test_folds_are_added_up_and_the_greatest_peak_is_kept() -> None:
    assert folds_together(STAGES) == [Measured("train lexical", 5.0, 4.0, 300), STAGES[2]]


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    assert read_measured(tmp_path / "load.csv") == []
    write_measured(STAGES, tmp_path / "load.csv")
    assert read_measured(tmp_path / "load.csv") == STAGES


def test_growth_is_a_power_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    load.print_growth((100, 1000), [Measured("stack", 1.0, 2.0, 100)], [Measured("stack", 9.0, 200.0, 1000)])
    assert "RESULT stack_growth 2.00" in capsys.readouterr().out


def test_a_stage_that_fails_ends_the_benchmark_and_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"split failed with exit code 3: see .*load\.log"):
        run_stage("split", ["check", "--data", str(tmp_path / "none")], cache=tmp_path, log=tmp_path / "load.log")
    assert "none" in (tmp_path / "load.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_stage_of_a_small_competition_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Load(tmp_path, 1000, "QC", 3, ("lexical",))
    first = small.measure()
    assert [each.stage for each in first] == [stage for stage, _ in small.commands()]
    assert all(each.peak_mb > 30 and each.cpu_seconds > 0 for each in first)
    lines = {split: len((tmp_path / "data" / f"{split}_QC.txt").read_text().splitlines()) for split in load.SPLITS}
    assert lines == {"train": 800, "dev": 100, "test": 100}
    capsys.readouterr()
    assert small.measure() == first
    assert capsys.readouterr().out == ""
