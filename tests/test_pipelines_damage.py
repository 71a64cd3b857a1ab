"""What was damaged since it was made is refused where it is used, or made again; it never gets into a submission."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from competition.artefacts import MANIFEST
from oof.store import PartKey
from pipelines.cli import main
from pipelines.ensembling import ensemble
from pipelines.job_state import read_state
from pipelines.run_folder import RunFolder
from pipelines.verifying import verify


@pytest.fixture
def own(finished_run: Path, tmp_path: Path) -> RunFolder:
    """A copy that one test may spoil."""
    return RunFolder(Path(shutil.copytree(finished_run, tmp_path / "run")))


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def other_scores(folder: Path) -> None:
    pd.read_parquet(folder / "test.parquet").assign(score=0.01).to_parquet(folder / "test.parquet", index=False)


def other_threshold(folder: Path) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**values, "threshold": 0.987}, indent=1, ensure_ascii=False))


@pytest.mark.parametrize("spoil", [other_scores, other_threshold])
def test_a_damaged_ensemble_is_not_submitted_but_made_again(spoil: Callable[[Path], None], own: RunFolder) -> None:
    folder = own.ensemble("QI", "stack")
    spoil(folder)
    done = call("submit", "--run", own.root, "--ensemble", "stack", "--name", "other")
    assert done.exit_code == 3
    assert "QI/stack is damaged" in done.stderr
    assert not own.submission("other").exists()
    ensemble(own, "QI", "stack")
    assert not [fault for fault in verify(own).faults if fault.where.startswith(str(folder))]
    assert call("submit", "--run", own.root, "--ensemble", "stack", "--name", "other").exit_code == 0


def test_damaged_weights_do_not_score(own: RunFolder) -> None:
    file = own.parts.folder(PartKey("QI", "lexical-linear", 0)) / "weights" / "head.npz"
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "weights": -5 * arrays["weights"]})
    data = Path(own.settings().data) / "dev_QI.txt"
    done = call("predict", data, "--run", own.root, "--task", "QI", "--model", "lexical-linear")
    assert done.exit_code == 3
    assert "part QI/lexical-linear/fold-0 is damaged" in done.stderr
    assert "relstack train --task QI --model lexical-linear --fold 0" in done.stderr


def test_a_damaged_artefact_is_not_sent_and_named(own: RunFolder, tmp_path: Path) -> None:
    file = own.parts.folder(PartKey("QI", "lexical", 0)) / "oof.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = call("push", own.root, f"file://{tmp_path / 'store'}")
    assert done.exit_code == 3
    assert "parts/QI/lexical/fold-0 is damaged and is not sent" in done.stderr
    assert not (tmp_path / "store" / "parts" / "QI" / "lexical" / "fold-0").exists()


def test_a_process_that_cannot_be_is_no_state_of_a_job(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"name": "job", "host": "h", "pid": 10**20, "attempt": 1, "started": "now"}))
    assert read_state(file) is None
