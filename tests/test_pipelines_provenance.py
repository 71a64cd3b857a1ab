"""What manifests say of the circumstances."""

import json
import subprocess
from datetime import datetime
from pathlib import Path

from pipelines.provenance import git_state, now, provenance, versions


def test_provenance_is_plain_and_complete() -> None:
    found = provenance(seed=7, started=now())
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 7
    assert datetime.fromisoformat(found["started"]).utcoffset() == datetime.fromisoformat(found["ended"]).utcoffset()
    assert {"python", "relstack", "torch", "lightgbm"} <= versions().keys()
    assert found["hardware"]["cpu"]
    assert found["hardware"]["threads"] >= 1


def test_the_state_of_a_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *name, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git_state.cache_clear()
    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    git_state.cache_clear()
    (tmp_path / "code.py").write_text("a = 2\n")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    git_state.cache_clear()
