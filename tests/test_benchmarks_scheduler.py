"""The scheduler's and the rates' benchmarks run, and end with figures that are in the order that theory wants."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import rates
import scheduler


def results(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^RESULT (\S+) (\S+)$", text, re.MULTILINE)}


def test_the_scheduler_ends_with_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scheduler.py", "--seeds", "1", "--rows", "1000000"])
    scheduler.main()
    found = results(capsys.readouterr().out)
    assert found["hours_longest"] <= found["hours_submitted"]
    assert found["hours_widest"] <= found["hours_submitted"]
    assert found["longest_over_lower_bound"] >= 1
    assert found["gpu_hours"] > 0
    assert found["simulated_jobs_per_second"] > 0
    assert len(scheduler.LEARNERS) == len(set(scheduler.LEARNERS)) == 20


def test_slices_and_gangs_keep_the_work() -> None:
    jobs = scheduler.task_jobs("QC", 100_000, scheduler.Rates(card=scheduler.peak_of("H100")))
    sliced = scheduler.in_slices(jobs)
    assert sum(job.seconds for job in sliced) == pytest.approx(sum(job.seconds for job in jobs))
    names = {job.name for job in sliced}
    assert all(set(job.needs) <= names for job in sliced)
    gangs = scheduler.in_gangs(jobs)
    large = [job for job in gangs if job.gpus == scheduler.GANG]
    assert {job.name.split("/")[1] for job in large} >= {"gemma-3-12b", "qwen3-14b"}
    alone = {job.name: job for job in jobs}
    for job in large:
        assert job.seconds * job.gpus == pytest.approx(alone[job.name].seconds / scheduler.WORTH)


def test_entries_of_a_run_are_read_back(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tomllib

    monkeypatch.setattr(sys, "argv", ["rates.py", "--runs", str(finished_run), "--source", "a test"])
    rates.main()
    entries = tomllib.loads(capsys.readouterr().out)
    assert {(entry["name"], entry["task"]) for entry in entries["learner"]} == {
        ("lexical", "QI"),
        ("lexical-linear", "QI"),
    }
    assert {"stack QI", "blend QI", "prepare"} <= {entry["name"] for entry in entries["stage"]}
    monkeypatch.setattr(sys, "argv", ["rates.py", "--runs", str(finished_run), "--foretell", str(finished_run)])
    rates.main()
    found = results(capsys.readouterr().out)
    assert 0.3 < found["estimate_over_actual_total"] < 3  # a run that foretells itself; ensembles know one size only
