"""What status says of jobs, from the files that they leave: by times of files, whatever a clock says."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import pipelines.job_state
from competition.errors import CompetitionError
from competition.sample import write_sample
from pipelines.cli import main
from pipelines.engines.processes import JobProcess, Place
from pipelines.job_state import JobState, exit_code_of, read_state, words_of, working, write_state
from pipelines.jobs import job_graph
from pipelines.prepare import prepare, split
from pipelines.progress import report_progress
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.status import JobLine, job_lines, time_left

NAMES = [f"train.QI.lexical.fold-{fold}" for fold in range(3)]
HOUR = 3600


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    write_sample(tmp_path / "data", n_train=120, n_dev=30, n_test=30, tasks=("QI",))
    folder = RunFolder(tmp_path / "run")
    prepare(folder, RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3))
    split(folder)
    folder.add_recipes(["lexical"], ["lexical:head.rounds=5"])
    return folder


def plant(run: RunFolder, name: str, *, aged: float = 0, **values: object) -> Path:
    """A state file that was written some seconds ago, as the file system counts."""
    file = run.job_state(name)
    plain = {"name": name, "host": "elsewhere", "pid": 1, "attempt": 1, "started": "2026-01-01T00:00:00+00:00"}
    write_state(file, JobState(**{**plain, **values}))
    written = file.stat().st_mtime - aged
    os.utime(file, (written, written))
    return file


def states(run: RunFolder) -> dict[str, tuple[str, str]]:
    """State and detail by job."""
    return {line.job.name: (line.state, line.detail) for line in job_lines(run)}


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_that_was_not_begun_waits(run: RunFolder) -> None:
    assert {state for state, _ in states(run).values()} == {"waiting"}
    assert not run.logs.exists()


def test_states_are_read_from_heartbeats_and_ends(run: RunFolder) -> None:
    plant(run, NAMES[0], seconds=12.5, done=30, total=120)
    plant(run, NAMES[1], aged=61)
    plant(run, NAMES[2], exit_code=3, error="recipe lexical is not usable")
    lines = {line.job.name: line for line in job_lines(run)}
    assert (lines[NAMES[0]].state, lines[NAMES[0]].percent, lines[NAMES[0]].seconds) == ("running", 25.0, 12.5)
    assert lines[NAMES[1]].state == "stopped"
    assert (lines[NAMES[2]].state, lines[NAMES[2]].detail) == ("failed", "recipe lexical is not usable")
    assert lines["ensemble.QI.stack"].state == "waiting"


def test_an_ensemble_of_parts_that_are_not_all_there_waits(run: RunFolder) -> None:
    for job in job_graph(run, ["QI"], ["lexical"])[1:]:
        job.manifest.parent.mkdir(parents=True)
        job.manifest.touch()
        plant(run, job.name, seconds=3.0, exit_code=0)
    lines = job_lines(run)
    assert [line.state for line in lines] == ["waiting", "done", "done", "waiting", "waiting"]
    assert time_left(lines).startswith("3 of 5 jobs remain")


def test_a_process_that_is_gone_from_this_machine_is_stopped_at_once(run: RunFolder) -> None:
    plant(run, NAMES[0], host=socket.gethostname(), pid=dead_pid())
    plant(run, NAMES[1], host=socket.gethostname(), pid=os.getpid())
    assert [states(run)[name][0] for name in NAMES] == ["stopped", "running", "waiting"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="zombies are told from /proc")
def test_an_ended_process_that_nobody_has_noticed_is_stopped(run: RunFolder) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # ends with the process
    plant(run, NAMES[0], host=socket.gethostname(), pid=process.pid)
    for _ in range(500):
        if states(run)[NAMES[0]][0] == "stopped":
            break
        time.sleep(0.01)
    assert states(run)[NAMES[0]][0] == "stopped"
    process.wait()


def test_a_clock_gone_backwards_makes_no_job_look_dead_and_no_time_negative(run: RunFolder) -> None:
    plant(run, NAMES[0], aged=-HOUR, seconds=5.0)
    lines = job_lines(run)
    assert lines[0].state == "running"
    assert all(line.seconds is None or line.seconds >= 0 for line in lines)


def test_the_clock_of_whoever_looks_does_not_count(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(run, NAMES[0], seconds=5.0)
    later = pipelines.job_state.time.time() + HOUR
    monkeypatch.setattr(pipelines.job_state.time, "time", lambda: later)
    assert job_lines(run)[0].state == "running"


def test_a_failed_job_shows_the_last_line_of_its_log_where_it_left_no_words(run: RunFolder) -> None:
    plant(run, NAMES[0], exit_code=1)
    run.job_log(NAMES[0]).write_text("begun\nSegmentation fault\n\n", "utf-8")
    assert states(run)[NAMES[0]] == ("failed", "Segmentation fault")


def test_a_damaged_state_is_left_out(run: RunFolder) -> None:
    plant(run, NAMES[0]).write_text("{", "utf-8")
    assert states(run)[NAMES[0]] == ("waiting", "")


def test_a_job_keeps_its_state_and_progress_while_it_works(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.job_state, "BEAT_SECONDS", 0.01)
    with working(run, NAMES[0]):
        report_progress(3, 12)
        beaten = threading.Event()
        for _ in range(1000):
            state = read_state(run.job_state(NAMES[0]))
            if state is not None and state.done:
                break
            beaten.wait(0.02)
        assert states(run)[NAMES[0]][0] == "running"
        assert state is not None
        assert (state.done, state.total, state.exit_code, state.pid) == (3, 12, None, os.getpid())
    with pytest.raises(CompetitionError), working(run, NAMES[0]):
        raise CompetitionError("no fold 7")
    ended = read_state(run.job_state(NAMES[0]))
    assert ended is not None
    assert (ended.attempt, ended.exit_code, ended.error) == (2, 3, "no fold 7")
    assert not [path for path in run.logs.iterdir() if path.suffix == ".tmp"]


def test_whoever_waits_for_a_job_leaves_its_state_alone(run: RunFolder) -> None:
    words = ["train", "--run", str(run.root), "--task", "QI", "--model", "lexical", "--fold", "0"]
    command = [sys.executable, "-m", "pipelines.cli", *words]
    root = str(Path(__file__).parent.parent)
    with working(run, NAMES[0]):
        report_progress(3, 12)
        second = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert second.stderr is not None
        while "waiting for process" not in (line := second.stderr.readline()):
            assert line, "it ended without waiting"
        state = read_state(run.job_state(NAMES[0]))
        assert state is not None
        assert (state.pid, state.attempt, state.exit_code) == (os.getpid(), 1, None)
    second.stderr.read()
    assert second.wait() == 0
    state = read_state(run.job_state(NAMES[0]))
    assert state is not None
    assert (state.attempt, state.exit_code) == (2, 0)


def test_a_process_that_an_engine_starts_beside_one_at_work_leaves_its_state_alone(run: RunFolder) -> None:
    job = job_graph(run, ["QI"], ["lexical"])[0]
    with working(run, job.name):
        process = JobProcess(job, Place.of(run))
        state = read_state(run.job_state(job.name))
        assert state is not None
        assert (state.pid, state.attempt) == (os.getpid(), 1)
    assert process.wait().done
    process.stop()


def test_what_a_kill_left_of_a_state_goes_with_the_next_attempt(run: RunFolder) -> None:
    file = run.job_state(NAMES[0])
    file.parent.mkdir()
    torn, other = (file.with_name(f".{name}.json.{dead_pid()}.tmp") for name in NAMES[:2])
    for path in (torn, other):
        path.write_text('{"half')
    with working(run, NAMES[0]):
        assert not torn.exists()
    assert other.exists()  # it belongs to another job, which may be at work


def test_time_left_counts_jobs_by_what_their_learner_took(run: RunFolder) -> None:
    jobs = {job.name: job for job in job_graph(run, ["QI"], ["lexical"])}
    done = [JobLine(jobs[name], "done", seconds=seconds) for name, seconds in zip(NAMES, (50, 70), strict=False)]
    running = JobLine(jobs[NAMES[2]], "running", seconds=20)
    assert time_left([*done, running]) == "1 of 3 jobs remain: about 40 s with 1 at a time"
    stack = JobLine(jobs["ensemble.QI.stack"], "waiting")
    said = time_left([*done, running, stack])
    assert said.startswith("2 of 4 jobs remain: about 1 min 40 s with 1 at a time")
    assert "nothing is known yet of stack" in said
    assert time_left([stack]).endswith("none is done yet that tells how long they take")
    begun = JobLine(jobs[NAMES[0]], "running", percent=20.0, seconds=15.0)
    assert time_left([begun]) == "1 of 1 jobs remain: about 1 min 0 s with 1 at a time"
    assert time_left(done) == "all 2 jobs are done"


def test_status_tells_of_a_plain_train_and_of_parts_without_a_state(run: RunFolder) -> None:
    for fold in (0, 1):
        words = ["--quiet", "train", "--run", str(run.root), "--task", "QI", "--model", "lexical", "--fold", str(fold)]
        assert CliRunner().invoke(main, words).exit_code == 0
    run.job_state(NAMES[1]).unlink()
    told = CliRunner().invoke(main, ["status", "--run", str(run.root), "--format", "json"])
    table = pd.DataFrame(json.loads(told.stdout)).set_index("job")
    assert table["state"].tolist() == ["done", "done", "waiting", "waiting", "waiting"]
    assert table.loc[NAMES[0], "attempts"] == 1
    assert table.loc[NAMES[1], "seconds"] > 0
    assert "3 of 5 jobs remain" in told.stderr
    by_learner = CliRunner().invoke(main, ["status", "--run", str(run.root), "--by", "learner", "--format", "json"])
    assert [(line["folds_done"], line["folds_to_do"]) for line in json.loads(by_learner.stdout)] == [(2, "2")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("x"), 75),
        (OSError(errno.ENOSPC, "No space left on device"), 75),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), 75),
        (CompetitionError("x"), 3),
        (RuntimeError("x"), 1),
    ],
)
def test_a_job_ends_with_the_exit_code_of_its_command(error: Exception, expected: int) -> None:
    assert exit_code_of(error) == expected


def test_the_words_of_a_failed_job_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "not-to-be-seen")
    assert words_of(RuntimeError("refused not-to-be-seen")) == "RuntimeError: refused ***"
