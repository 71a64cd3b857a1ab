"""Write docs/reference.md: every command of relstack with its options, defaults and an example.

    python docs/reference.py

It is made from the commands themselves; tests/test_docs_reference.py makes it again and compares.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from pipelines.cli import main

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Command line

Made from the commands by `python docs/reference.py`; do not edit. `relstack COMMAND --help` says the same.

Data goes to stdout (`--format table|json|csv` where there is a table), narration and progress to stderr: bars on a
terminal, lines elsewhere. `relstack --quiet COMMAND` says only what went wrong, `relstack --verbose COMMAND` more.
`NO_COLOR=1` or `FORCE_COLOR=0` leave colours out, `FORCE_COLOR=1` keeps those of tables in a pipe.
`relstack completion bash|zsh|fish` completes commands, options and the names of a run.

| exit code | meaning | what to do |
|---|---|---|
| 0 | done | |
| 1 | failed: a file that may not be read or written, or a fault of ours | look at the message |
| 2 | usage: an option is missing or cannot be | the message names it |
| 3 | validation failed: files, recipes, artefacts or names with faults, each named | mend what is named |
| 75 | worth retrying: out of memory or disk, interrupted, a machine lost | the same command goes on where it stopped |

| variable | meaning |
|---|---|
| `RELSTACK_CACHE` | weights, embeddings and translations of all runs; `~/.cache/relstack` if not set |
| `OMP_NUM_THREADS` | CPU threads; all that the process may use if not set |
| `HF_HUB_OFFLINE` | 1: weights come from packages and folders only |
| `HF_TOKEN` | for weights on the hub that want one |
"""
VALUES = {
    "run_dir": "runs/first",
    "source": "pairs.csv",
    "task": "QC",
    "data": "DIR",
    "model": "e5-bi",
    "student": "e5-student",
    "name": "greedy",
}
"""What stands in an example for a parameter that must be named."""
EXAMPLES = {
    "sample": "relstack sample DIR --train-rows 3000",
    "check": "relstack check --data DIR --details",
    "split": "relstack split --data DIR --run runs/first --folds 5 --plan QC=category-group",
    "tune": "relstack tune --run runs/first --task QC --model e5-ce --vary training.learning_rate=log:1e-5..1e-4",
    "pretrain": "relstack pretrain --run runs/first --task QC --model e5-ce --every-fold",
    "train": "relstack train --run runs/first --task QC --model e5-bi --fold 2 --set head.epochs=5",
    "predict": "relstack predict new.txt --run runs/first --task QC --model e5-bi --format csv",
    "ensemble compare": "relstack ensemble compare blend e5-tree --run runs/first --task QC",
    "pseudo": "relstack pseudo --run runs/first --task QC --name sure",
    "distil": "relstack distil --run runs/first --task QC --student e5-student",
    "languages": "relstack languages --data DIR",
    "translate": "relstack translate --data DIR --recipe offline --glossary glossary.tsv --out translations.csv",
    "augment": "relstack augment --run runs/first --task QC --recipe dictionary-even --glossary glossary.tsv",
    "memory": "relstack memory --recipes gemma-3-12b",
    "submit": "relstack submit --run runs/first --ensemble stack --name second-try",
    "validate": "relstack validate submit.zip --run runs/first",
    "compare": "relstack compare runs/first/submissions/final runs/en/submissions/final --run runs/first",
    "leaderboard": "relstack leaderboard --run runs/first --by language",
    "status": "relstack status --run runs/first --timings",
    "run": "relstack run --data DIR --run runs/first --translations translations.csv",
    "gc": "relstack gc runs/first --weights --yes",
    "push": "relstack push runs/first s3://bucket/first",
    "pull": "relstack pull s3://bucket/first runs/first --only rows,folds",
    "unpack": "relstack unpack run.tar.gz runs/theirs",
    "verify": "relstack verify runs/first",
    "completion": "relstack completion bash",
}


def page() -> str:
    """The text of the page."""
    found = list(commands(main))
    links = ", ".join(f"[{name}](#relstack-{name.replace(' ', '-')})" for name, _ in found)
    return "\n".join([HEAD, links, "", *(section(name, command) for name, command in found)])


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words, in the order of ``--help``."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def section(name: str, command: click.Command) -> str:
    """What is said of one command."""
    lines = [f"## relstack {name}", "", one_line(command.help or ""), "", f"    {example(name, command)}", ""]
    rows = [row(parameter) for parameter in command.params]
    if rows:
        lines += ["| | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def example(name: str, command: click.Command) -> str:
    """A command line, written here or made of what must be named."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    words = ["relstack", name]
    for parameter in command.params:
        if not parameter.required:
            continue
        value = VALUES.get(parameter.name or "", (parameter.name or "").upper())
        words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return " ".join(words)


def row(parameter: click.Parameter) -> str:
    """One line of a table: how it is written, its default, what it means."""
    context = click.Context(main)
    if isinstance(parameter, click.Argument):
        return f"| `{parameter.make_metavar(context)}` | {'needed' if parameter.required else ''} | |"
    assert isinstance(parameter, click.Option)
    written = ", ".join(parameter.opts)
    shape = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
    words = one_line(parameter.help or "").replace("|", "\\|")
    return f"| `{(written + shape).replace('|', chr(92) + '|')}` | {default(parameter)} | {words} |"


def default(option: click.Option) -> str:
    """The default as it is typed; nothing for flags and options that may be left out without one."""
    if option.required:
        return "needed"
    value = option.to_info_dict()["default"]
    if option.is_flag or value in (None, "", ()):
        return ""
    return f"`{value}`"


def one_line(text: str) -> str:
    """A docstring without its line breaks."""
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
