"""The translation benchmark on a made-up competition: every backend, every figure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_pipelines_translation_work import write_glossary

from competition.sample import write_sample

ROOT = Path(__file__).parent.parent


def test_the_tables_are_printed(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    data = tmp_path / "data"
    write_sample(data, n_train=1200, n_dev=390, n_test=1, tasks=("QC",))
    glossary = write_glossary(tmp_path / "glossary.tsv")
    files = ["--data", str(data), "--reference", str(data / "translations.csv"), "--glossary", str(glossary)]
    options = ["--backends", "original,dictionary,human", "--recipes", "lexical", "--judged", "300", "--augment"]
    command = [sys.executable, str(ROOT / "benchmarks" / "translation.py"), *files, *options]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RELSTACK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=True)
    found = {
        words[1]: float(words[2]) for line in done.stdout.splitlines() if (words := line.split())[:1] == ["RESULT"]
    }
    assert found["chrf_original"] < found["chrf_dictionary"] < found["chrf_human"] == pytest.approx(100, abs=0.1)
    names = [f"{name}{rows}" for name in ("original", "dictionary", "human") for rows in ("", "+rows")]
    assert all(0.3 < found[f"lexical_f1_{name}"] <= 1 for name in names)
    assert found["lexical_f1_human"] > found["lexical_f1_original"]
    assert found["lexical_f1_pt_per_chrf_point"] > 0
