"""docs/tutorial.md happens as it is written: its files are written, its commands run, its outputs come out in order."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+) ?(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str, str]]:
    """The blocks of the page: kind, what stands beside it, content."""
    return BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Every command of a console block, and the lines that it shows."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        found.append((command, [line for line in shown if line.strip()]))
    return found


def spaced(text: str) -> str:
    return " ".join(text.split())


def pattern(shown: str) -> re.Pattern[str]:
    """A line of the page as a pattern: ``...`` is anything, spaces are as many as there are."""
    return re.compile(".*".join(re.escape(spaced(part)) for part in shown.split("...")))


def follow(command: str) -> str:
    """What a command prints; its exit code stands behind a #, or it is 0."""
    words, _, code = command.partition("  # ")
    result = CliRunner().invoke(main, shlex.split(words)[1:])
    assert result.exit_code == int(code or 0), result.output
    return result.output


def come_out(shown: list[str], printed: str, command: str) -> None:
    """Every line that is shown is among what was printed, in this order."""
    lines = iter([spaced(line) for line in printed.splitlines()])
    for wanted in shown:
        found = any(pattern(wanted).search(line) for line in lines)
        assert found, f"{wanted!r} after {command}:\n{printed}"


def test_the_tutorial_happens_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, beside, content in steps():
        if kind == "csv":
            path = Path(beside)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        elif kind == "python":
            exec(compile(content, str(TUTORIAL), "exec"), {})
        else:
            assert kind == "console"
            for command, shown in commands(content):
                come_out(shown, follow(command), command)


def test_no_block_is_passed_over() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(steps())
    assert {"console", "csv", "python"} == {kind for kind, _, _ in steps()}
    assert not re.findall(r"^    relstack", text, re.MULTILINE), "a command in an indented block is not run"


@pytest.mark.parametrize("missing", ["no such line", "QC │ train │ 7"])
def test_a_line_that_does_not_come_out_is_noticed(missing: str) -> None:
    assert not pattern(missing).search("QC │ train │ shop/train_QC.txt │ 600")
    assert pattern("QC   │ train │ ... │ 600").search("QC │ train │ shop/train_QC.txt │ 600")
