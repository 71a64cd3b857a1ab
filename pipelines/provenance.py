"""Under what circumstances an artefact was made: for whoever reads its manifest, never to decide over sameness."""

import importlib.metadata
import math
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.memory import machine_gib
from pipelines.progress import available_threads
from pipelines.secrets import redacted

VERSIONED = (
    "relstack",
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "peft",
    "scikit-learn",
    "lightgbm",
    "optuna",
    "numpy",
    "pandas",
    "pyarrow",
)
ENTRIES = ("cli", "job_process", "worker")  # modules that are started as programs
SECONDS = 30  # that another program gets


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(*, seed: int, started: str) -> dict[str, Any]:
    """What a manifest holds under ``provenance``: command, seed, times in UTC, versions, hardware, state in git.

    Parameters
    ----------
    started
        When the work began, by `now`.
    """
    return {
        "command": redacted(shlex.join(_command(sys.argv))),
        "seed": seed,
        "started": started,
        "ended": now(),
        "versions": versions(),
        "hardware": hardware(),
        "git": git_state(Path(__file__).parent.parent),
    }


def _command(argv: Sequence[str]) -> list[str]:
    """The words of a command as somebody would type it; of absolute paths the last part, for manifests are given away.

    Examples
    --------
    >>> _command(["/opt/pipelines/job_process.py", "train", "--run", "/home/me/runs/first", "--set=name=/home/me/e5"])
    ['relstack', 'train', '--run', 'first', '--set=name=e5']
    """
    program = "relstack" if Path(argv[0]).stem in ENTRIES else argv[0]
    return [_without_folders(word) for word in (program, *argv[1:])]


def _without_folders(word: str) -> str:
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if value.startswith(("/", "~")) else word


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a score; those that are installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """CPU model, threads that this process uses, GiB of memory; GPUs with driver, and CUDA where torch is at work.

    Another number of threads can change the last digits of networks' scores; trees do not mind.
    """
    torch = sys.modules.get("torch")
    return {
        "cpu": cpu_model(),
        "threads": available_threads(),
        "memory_gib": round(memory, 1) if math.isfinite(memory := machine_gib()) else None,
        "gpus": list(gpus()),
        "cuda": None if torch is None else torch.version.cuda,
    }


@lru_cache(maxsize=1)
def cpu_model() -> str:
    """The CPU's name as its maker calls it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def gpus() -> tuple[str, ...]:
    """Name and driver version of every NVIDIA GPU of the machine."""
    return tuple(_lines("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"))


@lru_cache(maxsize=1)
def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout at `root`, and whether its files were changed since; None where it is no checkout."""
    if not (root / ".git").exists():
        return None
    commit = _lines("git", "-C", str(root), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _lines("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit[0], "dirty": bool(changed)}


def _lines(*command: str) -> list[str]:
    """What a program that may be absent or fail prints; nothing then."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
