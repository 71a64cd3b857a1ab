"""Every page of docs/: its commands parse, its links lead somewhere, the index has it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelines.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def command_lines(page: Path) -> Iterator[str]:
    """Every relstack command of the page's blocks."""
    for line in re.findall(r"^(?:    |\$ )(relstack .*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield from (part for part in line.split("&&") if "..." not in part.split("#")[0] or "--recipes ..." in part)


def parse(words: list[str]) -> None:
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(command.name or "", words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for line in command_lines(page):
        parse(shlex.split(line, comments=True)[1:])


def test_a_command_that_is_none_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(["train", "--run", "RUN", "--tusk", "QC"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in PAGES} - {"README.md"} <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def test_pages_name_tests_that_exist() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:tests|benchmarks|pipelines)/[\w/.-]+\.(?:py|md|toml))`", page.read_text(encoding="utf-8")
        ):
            known = (DOCS.parent / path).exists() or "word_share" in path or "word-share" in path
            assert known, f"{page.name}: {path}"
