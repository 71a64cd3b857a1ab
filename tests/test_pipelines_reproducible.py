"""Same inputs, seed, versions and number of threads on a CPU give the same scores, byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from competition.artefacts import sha256
from competition.sample import write_sample

ROOT = Path(__file__).parent.parent
LEARNERS = ("lexical", "lexical-linear", "e5-bi", "e5-ce")


def scores_of_a_run(data: Path, model: Path, folder: Path, *, hash_seed: int) -> dict[str, str]:
    """SHA-256 of all scores of a run made by a process of its own, with an empty cache and another order of sets."""
    overrides = [
        "lexical:head.rounds=20",
        f"e5-bi:weights.name={model}",
        "e5-bi:head.epochs=2",
        f"e5-ce:weights.name={model}",
        "e5-ce:training.epochs=1",
    ]
    words = ["run", "--data", data, "--run", folder / "run", "--folds", 3, "--tasks", "QI",
             "--recipes", ",".join(LEARNERS), *(word for one in overrides for word in ("--set", one))]  # fmt: skip
    env = {
        **os.environ,
        "PYTHONHASHSEED": str(hash_seed),
        "OMP_NUM_THREADS": "1",
        "RELSTACK_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    subprocess.run([sys.executable, "-m", "pipelines.cli", "--quiet", *map(str, words)], env=env, cwd=ROOT, check=True)
    files = [path for kind in ("parts", "ensembles") for path in (folder / "run" / kind).rglob("*.parquet")]
    return {path.relative_to(folder / "run").as_posix(): sha256(path) for path in sorted(files)}


@pytest.mark.slow
def test_two_runs_of_the_same_settings_give_the_same_bytes(bert: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=300, n_dev=60, n_test=60, seed=3, tasks=("QI",))
    first, second = (
        scores_of_a_run(tmp_path / "data", bert, tmp_path / f"run-{number}", hash_seed=number) for number in (1, 2)
    )
    assert len(first) == 3 * (3 * len(LEARNERS) + 2), "OOF, dev and test of every part, stack and blend"
    assert first == second
