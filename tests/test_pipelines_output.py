import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.output import narrate, say

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
