"""What the README says is true: its commands exist with those options, its paths and recipes are there."""

import re
import shlex
from pathlib import Path

from pipelines.cli import main
from pipelines.config import recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Every relstack command line of the README, as words."""
    found = []
    for line in re.findall(r"^    (relstack .*)$", README, flags=re.MULTILINE):
        found += [shlex.split(part, comments=True)[1:] for part in line.split("&&")]
    return found


def test_every_command_of_the_readme_parses() -> None:
    assert len(commands()) > 8
    for words in commands():
        command = main.commands[words[0]]
        command.make_context(words[0], list(words[1:]))


def test_every_command_is_in_the_readme_or_help() -> None:
    named = {words[0] for words in commands()} | set(re.findall(r"`(?:relstack )?(\w+)`", README))
    assert {"split", "train", "stack", "blend", "submit", "compare", "status", "run", "check", "leaderboard"} <= named
    assert all(command.help for command in main.commands.values())


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_paths_of_the_file_map_exist() -> None:
    table = README.split("## File map")[1].split("## ")[0]
    for path in re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE):
        assert (ROOT / path).exists(), path


def test_the_table_of_base_learners_is_complete() -> None:
    table = README.split("## Base learners")[1].split("A recipe is")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    assert named == set(recipe_names())
