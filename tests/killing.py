"""A run that is killed at its n-th write, again and again: started as a process of its own by test_pipelines_kills.

``python killing.py FOLDER N_KILLS SEED -- COMMAND ...``: a child process gives the command undisturbed, in
FOLDER-whole, and counts its calls that change a file. Then, for every kill, one gives it in FOLDER-<n> and kills itself
at its n-th such call; another one gives it again, and must come to its end. Which calls is drawn at random from all
kinds of them (the same file, the same function); 0 kills are all kinds. ``FOLDER`` in the command stands for the
folder. Python and its packages are imported once, children are forks. Prints one JSON line per kill.
"""

import builtins
import io
import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137


class Countdown:
    """Notes calls that change files below a folder, and kills this process at one of them (0: at none)."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.at = str(folder), at
        self.calls: list[str] = []

    def step(self, what: str, path: object) -> None:
        """Note a call that changes this path."""
        changed = str(Path(path).absolute()) if isinstance(path, str | Path) else ""
        if changed.startswith(self.folder):
            name = re.sub(r"\d{2,}", "N", changed.removeprefix(self.folder))
            self.calls.append(f"{what} {name}")
            if len(self.calls) == self.at:
                os._exit(KILLED)

    def wrap(self, owner: Any, name: str) -> None:
        """Note the calls of a function, before its work and after it."""
        inner: Callable[..., Any] = getattr(owner, name)

        def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}", path)
            found = inner(path, *args, **kwargs)
            self.step(f"after {name}", path)
            return found

        setattr(owner, name, noted)

    def wrap_open(self) -> None:
        """Note every opening of a file for writing, when it is open and nothing is written yet."""
        inner: Callable[..., Any] = io.open

        def noted(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            found = inner(path, mode, *args, **kwargs)
            if set(mode) & set("wxa+"):
                self.step("open", path)
            return found

        io.open = builtins.open = noted  # pathlib uses the one, everybody else the other


def give(folder: Path, command: list[str], *, at: int) -> int:
    """Exit code of the command in a fork that dies at its `at`-th write; its writes are noted beside the folder."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    from pipelines.cli import main as command_line

    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    folder.mkdir(exist_ok=True)
    count = Countdown(folder, at)
    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        count.wrap(os, name)
    count.wrap_open()
    os.fsync = lambda handle: None  # what a killed process wrote is there without; it is what costs time here
    code: object = 1
    try:
        command_line([word.replace("FOLDER", str(folder)) for word in command])
    except SystemExit as left:
        code = left.code
    if not at:
        folder.with_suffix(".calls").write_text("\n".join(count.calls))
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def kinds(calls: list[str]) -> list[int]:
    """For every kind of call the number of one of them, counted from 1."""
    places: dict[str, list[int]] = {}
    for number, call in enumerate(calls, start=1):
        places.setdefault(call, []).append(number)
    return sorted(numbers[len(numbers) // 2] for numbers in places.values())


def main(folder: Path, n_kills: int, seed: int, command: list[str]) -> None:
    """The command undisturbed, then killed in every way that is asked for."""
    import pipelines.engine
    import pipelines.submitting  # noqa: F401  # imported before the forks: once for all of them

    whole = folder.with_name(f"{folder.name}-whole")
    if (code := give(whole, command, at=0)) != 0:
        sys.exit(f"the undisturbed command gave {code}: see {whole}.log")
    calls = whole.with_suffix(".calls").read_text().splitlines()
    chosen = kinds(calls)
    if n_kills:
        chosen = sorted(random.Random(seed).sample(chosen, min(n_kills, len(chosen))))
    for at in chosen:
        own = folder.with_name(f"{folder.name}-{at}")
        killed = give(own, command, at=at)
        again = give(own, command, at=0)
        told = {"at": at, "call": calls[at - 1], "killed": killed == KILLED, "again": again, "folder": str(own)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[5:])
