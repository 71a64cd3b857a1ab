"""`relstack score`: any size in order and bounded memory, faults by line, whole files or none, pipes that break."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines import pair_files
from pipelines.cli import main
from pipelines.pair_files import Source, read_pairs, score_file
from pipelines.pair_scorer import PairScorer, load_ensemble
from pipelines.pair_writers import WRITERS
from pipelines.run_folder import RunFolder

SUFFIXES = (".jsonl", ".csv", ".parquet")


@pytest.fixture(scope="module")
def scorer(finished_run: Path) -> PairScorer:
    return load_ensemble(RunFolder(finished_run), "QI", "lexical-linear")


@pytest.fixture
def pairs(finished_run: Path) -> pd.DataFrame:
    rows = RunFolder(finished_run).rows("QI")["dev"].head(25)
    return rows[["id", "language"]].assign(query=rows["raw_query"], target=rows["raw_target"].fillna(""))


def write(pairs: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".jsonl":
        pairs.to_json(path, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".csv":
        pairs.to_csv(path, index=False)
    else:
        pairs.to_parquet(path)
    return path


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True, precise_float=True)
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def score(*words: Any, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["--quiet", "score", *map(str, words)], input=stdin)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_batch_changes_nothing(
    suffix: str, batch: int, scorer: PairScorer, pairs: pd.DataFrame, tmp_path: Path
) -> None:
    source = Source.of(write(pairs, tmp_path / f"pairs{suffix}"))
    out = tmp_path / f"scores{suffix}"
    assert score_file(scorer, source, out=out, writes=source.format, batch=batch) == len(pairs)
    found, expected = read(out), scorer.score(pairs)
    assert found["id"].tolist() == pairs["id"].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-9)
    assert found["decision"].tolist() == expected["decision"].tolist()


def test_a_stream_is_read_no_further_than_it_is_scored(scorer: PairScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    read_lines, largest = 0, 0

    class Endless(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal read_lines
            read_lines += 1
            return b'{"query": "red", "target": "shoes"}\n' if read_lines <= 1000 else b""

    class Standard:
        buffer = Endless()

    monkeypatch.setattr(pair_files.sys, "stdin", Standard)
    for chunk in Source.of(None).chunks(QI, size=50):
        largest = max(largest, len(chunk.pairs))
        assert read_lines <= 1001
        if read_lines > 500:
            break
    assert (largest, read_lines) == (50, 550)


@pytest.mark.parametrize("stream", [False, True])
def test_faulty_lines_are_all_named_and_nothing_is_left(stream: bool, finished_run: Path, tmp_path: Path) -> None:
    good, number = b'{"query": "a", "target": "b"}', b'{"query": 3, "target": "b"}'
    text = b"\n".join([good, b"[]", b"{", number, b"", b'{"query": "a"}', b"\xff"])
    (tmp_path / "pairs.jsonl").write_bytes(text)
    words = ["-" if stream else tmp_path / "pairs.jsonl", "--run", finished_run, "--task", "QI", "--batch", 2]
    done = score(*words, "--ensemble", "lexical", "--out", tmp_path / "scores.csv", stdin=text)
    assert done.exit_code == 3
    name = "stdin" if stream else "pairs.jsonl"
    found = [line.split()[0] for line in done.stderr.splitlines() if line.startswith(f"  {name}:")]
    assert sorted(found) == [f"{name}:{line}:" for line in (2, 3, 4, 6, 7)]
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_of_a_stream_the_batches_before_a_fault_stand(finished_run: Path) -> None:
    good = b'{"query": "red shoes", "target": "shoes", "language": "en"}\n'
    words = ["-", "--run", finished_run, "--task", "QI", "--ensemble", "lexical", "--batch", 2]
    done = score(*words, stdin=good * 3 + b"{}\n" + good)
    assert done.exit_code == 3
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]
    assert "stdin:4: query is missing" in done.stderr


def test_a_faulty_file_prints_nothing(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,target\na,b\n ,b\na,b,c\n", encoding="utf-8")
    done = score(tmp_path / "pairs.csv", "--run", finished_run, "--task", "QI", "--ensemble", "lexical", "--batch", 1)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "pairs.csv:3: query is the text ' '" in done.stderr
    assert "pairs.csv:4: too few or too many cells" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pairs.csv", b"question,target\na,b\n", "no column query or origin_query"),
        ("pairs.csv", b"query,target\n\xff,b\n", "cannot be read further"),
        ("pairs.csv", b"", "no column query"),
        ("pairs.parquet", b"PAR1", "readable Parquet"),
        ("pairs.xlsx", b"", "the format is not known"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CompetitionError) as caught:
        read_pairs(tmp_path / name, QI)
    assert words in str(caught.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="no pairs to score"):
        read_pairs(tmp_path / "none.csv", QI)
    with pytest.raises(CompetitionError, match="no pairs to score"):
        read_pairs(tmp_path, QI)


def test_very_many_faults_end_the_reading(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("[]\n" * 5000, encoding="utf-8")
    with pytest.raises(CompetitionError) as caught:
        Source.of(tmp_path / "pairs.jsonl").check(QI, size=300)
    assert len(caught.value.faults) == 1200


def test_no_pairs_give_an_empty_file(scorer: PairScorer, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,target\n", encoding="utf-8")
    for suffix in SUFFIXES:
        source = Source.of(tmp_path / "pairs.csv")
        assert score_file(scorer, source, out=tmp_path / f"s{suffix}", writes=suffix[1:], batch=5) == 0
    assert (tmp_path / "s.jsonl").read_bytes() == b""
    assert read(tmp_path / "s.csv").columns.tolist() == read(tmp_path / "s.parquet").columns.tolist()
    assert len(scorer.score([])) == 0


def test_ids_of_two_kinds_cannot_stand_in_one_parquet_column() -> None:
    writer = WRITERS["parquet"](io.BytesIO())
    writer.write(pd.DataFrame({"id": [1], "score": [0.5], "decision": [1]}))
    with pytest.raises(CompetitionError, match="both numbers and text"):
        writer.write(pd.DataFrame({"id": ["a"], "score": [0.5], "decision": [1]}))


def test_a_reader_that_leaves_ends_it_quietly(finished_run: Path) -> None:
    words = ["score", "-", "--run", str(finished_run), "--task", "QI", "--ensemble", "lexical", "--batch", "1"]
    command = [sys.executable, "-m", "pipelines.cli", "--quiet", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as scoring:
        assert scoring.stdin is not None
        assert scoring.stdout is not None
        assert scoring.stderr is not None
        line = b'{"query": "red", "target": "shoes", "language": "en"}\n'
        scoring.stdin.write(line)
        scoring.stdin.flush()
        assert scoring.stdout.readline()
        scoring.stdout.close()
        try:
            scoring.stdin.write(line * 50)
            scoring.stdin.close()
        except BrokenPipeError:  # it has left already
            pass
        assert scoring.wait(60) == 1
        assert scoring.stderr.read() == b""
