"""docs/reference.md says what the commands are."""

import runpy
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))
NAMES = [name for name, _ in REFERENCE["commands"](REFERENCE["main"])]


def test_the_page_is_what_the_commands_say() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == REFERENCE["page"](), "make it again: python docs/reference.py"


def test_every_option_of_every_command_stands_on_the_page() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    sections = dict(zip(NAMES, written.split("\n## relstack ")[1:], strict=True))
    for name, command in REFERENCE["commands"](REFERENCE["main"]):
        for parameter in command.params:
            assert parameter.opts[0] in sections[name] or parameter.make_metavar(None) in sections[name], name


@pytest.mark.parametrize("name", NAMES)
def test_every_example_parses(name: str) -> None:
    command = dict(REFERENCE["commands"](REFERENCE["main"]))[name]
    words = shlex.split(REFERENCE["example"](name, command))
    assert words[: 1 + len(name.split())] == ["relstack", *name.split()]
    command.make_context(name, words[1 + len(name.split()) :])


def test_examples_are_of_commands_that_exist() -> None:
    assert set(REFERENCE["EXAMPLES"]) <= set(NAMES)
