"""The task-transfer matrix on a made-up competition and a tiny network: every training, every task, every figure."""

import os
import subprocess
import sys
from pathlib import Path

from competition.sample import write_sample

ROOT = Path(__file__).parent.parent


def test_the_matrix_is_printed(bert: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=120, n_dev=40, n_test=1)
    settings = [f"weights.name={bert}", "training.epochs=1", "training.batch_size=16", "training.precision=fp32"]
    words = ["--data", str(tmp_path / "data"), *(word for one in settings for word in ("--set", one))]
    command = [sys.executable, str(ROOT / "benchmarks" / "transfer.py"), "--rows", "60", "--dev-rows", "30", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = done.stdout.splitlines()
    trained = ["QC", "QI", "QC then QI", "QI then QC", "both jointly"]
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "F1" not in line] == trained
    names = [line.split()[1] for line in lines if line.startswith("RESULT")]
    assert names == [f"{kind}_gain_{task}_pt" for kind in ("transfer", "joint") for task in ("QC", "QI")]
    assert all(-100 < float(line.split()[2]) < 100 for line in lines if line.startswith("RESULT"))
