"""A run that is killed at any of its writes and started again ends as one that was left alone, and leaves nothing."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from competition.sample import write_sample

ROOT = Path(__file__).parent.parent
N_KILLS = int(os.environ.get("RELSTACK_TEST_KILLS", "5"))  # 0: every kind of write, minutes
LEFTOVERS = ("*.partial", "*.tmp", "*.old", "*.journal.log")  # not locks and who held them: one each, used again
RUN = ["run", "--data", "DATA", "--run", "FOLDER/run", "--folds", "3", "--tasks", "QI", "--recipes", "lexical",
       "--set", "head.rounds=5"]  # fmt: skip
TIMES = {"rows_per_second"}


def contents(run: Path) -> dict[str, str]:
    """What must be equal, byte for byte: rows, folds, scores, models, submission; not manifests, which tell times."""
    names = [path for path in run.rglob("*") if path.is_file() and path.suffix in (".parquet", ".txt", ".csv", ".zip")]
    own = [path for path in names if path.name not in ("timings.csv", "leaderboard.csv")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}


def board(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "leaderboard.csv").drop(columns=list(TIMES))


@pytest.mark.slow
def test_a_run_killed_at_any_write_and_given_again_ends_as_one_left_alone(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=150, n_dev=30, n_test=30, seed=3, tasks=("QI",))
    command = [word.replace("DATA", str(tmp_path / "data")) for word in RUN]
    words = [str(ROOT / "tests" / "killing.py"), str(tmp_path / "work"), str(N_KILLS), "1", "--", "--quiet", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) >= N_KILLS
    whole = contents(tmp_path / "work-whole" / "run")
    assert {
        "submissions/final/submit.zip",
        "parts/QI/lexical/fold-0/oof.parquet",
        "ensembles/QI/blend/oof.parquet",
    } <= (whole.keys())
    for kill in kills:
        run = Path(kill["folder"]) / "run"
        assert kill["killed"], kill
        assert kill["again"] == 0, (kill, Path(kill["folder"]).with_suffix(".log").read_text())
        assert contents(run) == whole, kill
        pd.testing.assert_frame_equal(board(run), board(tmp_path / "work-whole" / "run"))
        assert [str(path) for pattern in LEFTOVERS for path in run.rglob(pattern)] == [], kill
