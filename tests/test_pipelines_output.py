import logging
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.output import fitting_columns, narrate, say

ROOT = Path(__file__).parent.parent
TABLE = "import pandas as pd; from pipelines.output import print_table; "
TABLE += "print_table(pd.DataFrame({'name': ['[red]a[/red]'], 'f1': [0.5]}), 'table', title='one')"


def printed(**variables: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", **variables}
    done = subprocess.run([sys.executable, "-c", TABLE], cwd=ROOT, capture_output=True, text=True, env=env, check=True)
    return done.stdout


def test_a_pipe_gets_no_control_codes_unless_it_asks_for_them() -> None:
    plain = printed()
    assert "\x1b" not in plain
    assert printed(FORCE_COLOR="0") == printed(FORCE_COLOR="1", NO_COLOR="1") == plain
    assert "\x1b" in printed(FORCE_COLOR="1")


def test_cells_are_printed_as_they_are() -> None:
    assert "[red]a[/red]" in printed()


def test_quiet_keeps_what_is_said_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    narrate(quiet=True, verbose=False)
    say("done")
    assert capsys.readouterr() == ("", "")
    narrate(quiet=False, verbose=False)
    say("done")
    assert capsys.readouterr() == ("", "done\n")


def test_a_narrow_terminal_gets_the_important_columns() -> None:
    frame = pd.DataFrame({"task": ["QC"], "name": ["a" * 20], "speed": [123456.0], "f1": [0.5], "low": [0.4]})
    assert fitting_columns(frame, 200) == list(frame.columns)
    assert fitting_columns(frame, 42, ("task", "name", "f1")) == ["task", "name", "f1"]
    assert fitting_columns(frame, 50, ("task", "name", "f1")) == ["task", "name", "speed", "f1"]
    assert fitting_columns(frame, 1) == ["task"]


def test_quiet_counts_behind_the_command_too(tmp_path: Path) -> None:
    words = ["sample", str(tmp_path / "data"), "--train-rows", "20", "--quiet"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert logging.getLogger("pipelines").level == logging.WARNING


def test_sample_refuses_options_that_another_contest_has_no_use_for(tmp_path: Path) -> None:
    words = ["sample", str(tmp_path / "data"), "--competition", "wdc-products"]
    for more in (["--dev-rows", "5"], ["--tasks", "QC"], ["--answers", str(tmp_path / "a.csv")]):
        done = CliRunner().invoke(main, [*words, *more])
        assert done.exit_code == 2
        assert more[0] in done.output
    assert not (tmp_path / "data").exists()
