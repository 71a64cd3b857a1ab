"""docs/python-api.md runs as it is written, and its table has the names that there are."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import relstack as rs

PAGE = (Path(__file__).parent.parent / "docs" / "python-api.md").read_text(encoding="utf-8")


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        needed = re.match(r"# needs (\w+)\n", block)
        if needed and find_spec(needed[1]) is None:
            continue
        exec(compile(block, "python-api.md", "exec"), names)
    scores = names["scores"]
    assert scores["score"].between(0, 1).all()  # type: ignore[index]
    assert len(scores) == 2  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "submit.zip" in printed
    assert "'none'" in printed


def test_the_table_has_every_name_and_method() -> None:
    table = PAGE.split("| name | what |")[1]
    named = set(re.findall(r"`(\w+)`", table))
    methods = {name for name in vars(rs.Run) if not name.startswith("_")} - {"folder"}
    assert set(rs.__all__) | methods | {"load", "score", "decide"} == named


def test_commands_without_a_method_are_commands_and_all_others_have_one() -> None:
    from pipelines.cli import main

    section = PAGE.split("## Commands without a method")[1].split("## ")[0]
    words = {name.split()[0] for name in re.findall(r"`([a-z][a-z -]*)`", section)}
    without = words - {"run", "score", "slurm"}
    known = set(vars(rs.Run)) | {"check", "sample", "score"}
    elsewhere = {"stack", "blend", "distil", "completion"}  # `ensemble`, and what is no work
    assert without <= set(main.commands)
    assert set(main.commands) - without <= known | elsewhere
