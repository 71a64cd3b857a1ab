"""What must be true of a run folder after a kill, and in the end."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from competition.artefacts import file_names, sha256
from pipelines.run_artefacts import Artefact, artefacts
from pipelines.run_folder import RunFolder
from pipelines.verifying import verify

REWRITTEN = ("leaderboard.csv", "submissions")  # every `relstack run` ends by making these anew
LEFTOVERS = ("*.partial", "*.old", "*.tmp", "*.holder", "*.journal.log", "scratch")
TELLS_TIMES = "rows_per_second"


def contents(run: RunFolder) -> dict[str, str]:
    """SHA-256 of every file of every finished artefact: rows, folds, scores, models, submissions.

    Manifests are left out, and a column of the leaderboard: they tell times.
    """
    return {name: digest for artefact in artefacts(run) for name, digest in _files(artefact).items()}


def _files(artefact: Artefact) -> dict[str, str]:
    if artefact.is_folder:
        return {f"{artefact.name}/{name}": sha256(artefact.path / name) for name in file_names(artefact.path)}
    if artefact.name == "leaderboard.csv":
        table = pd.read_csv(artefact.path).drop(columns=TELLS_TIMES)
        return {artefact.name: hashlib.sha256(table.to_csv().encode()).hexdigest()}
    return {artefact.name: sha256(artefact.path)}


def written_once(run: RunFolder) -> dict[str, str]:
    """SHA-256 of the manifest of every finished artefact that nothing may touch again, by name."""
    return {
        artefact.name: sha256(artefact.manifest)
        for artefact in artefacts(run)
        if artefact.manifest.is_file() and not artefact.name.startswith(REWRITTEN)
    }


def lost(before: Mapping[str, str], run: RunFolder) -> list[str]:
    """Those artefacts that were finished before and are gone or were made again."""
    now = written_once(run)
    return [name for name, digest in before.items() if now.get(name) != digest]


def damaged(run: RunFolder) -> list[str]:
    """What `relstack verify` finds; of a run that has not begun, nothing."""
    if not run.settings_file.is_file():
        return []
    return [str(fault) for fault in verify(run).faults]


def differing(expected: Mapping[str, str], run: RunFolder) -> list[str]:
    """Files of artefacts that are missing, too many, or not those of the undisturbed run, byte by byte."""
    found = contents(run)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def leftovers(folder: Path) -> list[str]:
    """Files and folders that only a kill leaves."""
    return sorted(str(path.relative_to(folder)) for pattern in LEFTOVERS for path in folder.rglob(pattern))
