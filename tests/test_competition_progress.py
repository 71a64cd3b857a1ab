import logging
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from competition import progress as module
from competition.progress import Pace, no_colour, progress

ROOT = Path(__file__).parent.parent

WORK = """
from competition import progress as module
from pipelines.output import narrate
module.DRAWN_AFTER = 0.0
module.SLOW = 0.0
narrate(quiet=QUIET, verbose=False)
with module.progress("outer work", total=2) as outer:
    for _ in range(2):
        with module.progress("inner work", total=3) as inner:
            for _ in range(3):
                inner(1)
        outer(1)
"""


def on_a_terminal(script: str, **variables: str) -> str:
    """What a process writes to a terminal that is its stderr."""
    leader, follower = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "120", **variables}
    work = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=follower, env=env)
    os.close(follower)
    said = b""
    while True:
        try:
            found = os.read(leader, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not found:
            break
        said += found
    os.close(leader)
    assert work.wait() == 0
    return said.decode()


def test_a_terminal_gets_bars_with_counts_that_stand_in_each_other() -> None:
    said = on_a_terminal(WORK.replace("QUIET", "False"))
    assert "━" in said
    assert any("outer work" in drawn and "inner work" in drawn for drawn in said.split("\x1b[1A"))
    assert "inner work: 3 in" in said
    assert "\x1b[38;5;" in said or "\x1b[3" in said


def test_no_colour_where_none_is_wanted() -> None:
    for variables in ({"NO_COLOR": "1"}, {"FORCE_COLOR": "0"}):
        said = on_a_terminal(WORK.replace("QUIET", "False"), **variables)
        assert "━" in said
        assert not [code for code in ("\x1b[38;", "\x1b[31", "\x1b[32", "\x1b[35", "\x1b[36") if code in said]


def test_quiet_and_terminals_that_cannot_get_no_bars() -> None:
    assert on_a_terminal(WORK.replace("QUIET", "True")) == ""
    said = on_a_terminal(WORK.replace("QUIET", "False"), TERM="dumb")
    assert "━" not in said
    assert "\x1b" not in said


def test_a_pipe_gets_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    env = {**os.environ, "FORCE_COLOR": "1"}
    script = WORK.replace("QUIET", "False")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, env=env, check=True)
    said = done.stderr.decode()
    assert "\r" not in said
    assert "\x1b" not in said
    assert [line.split(" ", 1)[1].split(":")[0] for line in said.splitlines()] == ["inner work"] * 2 + ["outer work"]


def test_what_is_done_at_once_is_not_narrated(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "SLOW", 1e9)
    with progress("quick", total=3) as advance:
        advance(3)
    assert not caplog.records
    monkeypatch.setattr(module, "SLOW", 0.0)
    with progress("slow", total=3) as advance:
        advance(3)
    assert [record.getMessage().startswith("slow: 3 in ") for record in caplog.records] == [True]


def test_what_goes_on_is_told_now_and_then(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SLOW", 1e9)
    with progress("embed", total=30) as advance:
        advance(10)
        advance(10)
    told = [record.getMessage() for record in caplog.records]
    assert [line.startswith(f"embed: {done} of 30, ") for line, done in zip(told, (10, 20), strict=True)] == [True] * 2
    assert all(line.endswith(" s left") for line in told)


def test_work_that_fails_is_not_called_done(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ZeroDivisionError), progress("divide", total=1):
        _ = 1 / 0
    assert not caplog.records


def test_lines_without_a_total_or_a_start() -> None:
    assert Pace("wait", None, started=time.perf_counter() - 7.0).now() == "wait: 7 s so far"
    assert Pace("wait", 5, started=time.perf_counter() - 7.0).now() == "wait: 7 s so far"
    assert Pace("wait", None, started=time.perf_counter() - 7.0).summary() == "wait: 7.0 s"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("NO_COLOR", "1", True), ("NO_COLOR", "", False), ("FORCE_COLOR", "0", True), ("FORCE_COLOR", "1", False)],
)
def test_who_wants_no_colour(name: str, value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    assert no_colour() is wanted
