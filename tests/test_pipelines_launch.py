"""Several processes, one job: every row once, the same weights as one process, nothing left behind, causes reported."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tiny import make_rows

from competition.artefacts import SCRATCH
from competition.errors import CompetitionError
from competition.sample import write_sample
from competition.tasks import QI
from oof.store import PartKey
from pipelines.backbones import load
from pipelines.backbones.protocol import PAIR, Corpus, Workspace
from pipelines.backbones.scoring import TOKENS_ON_CPU
from pipelines.backbones.sharding import layer_classes
from pipelines.config import load_recipe, recipe_values
from pipelines.launch import (
    LAST_LINES,
    MARK,
    WORTH_RETRYING,
    Fitted,
    ProcessFailedError,
    ProcessMemoryError,
    failure,
    fit_and_score,
    gather,
    has_devices,
    supervise,
)
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.tokens import batches_by_length
from pipelines.trackers import logging_to
from pipelines.train import train

ROOT = Path(__file__).parent.parent
TRAIN, SEEN = make_rows(40, seed=1), make_rows(101, seed=2).drop(columns="label")
UNSEEN = {"oof": SEEN.sample(frac=1, random_state=0), "dev": SEEN[7:8], "test": SEEN[:0]}
WHOLE_BATCH = ["training.epochs=20", "training.batch_size=40", "training.learning_rate=5e-3", "training.precision=fp32"]


def workspace(folder: Path) -> Workspace:
    (folder / "scratch").mkdir(parents=True)
    return Workspace(folder / "cache", folder / "scratch", Corpus.of([TRAIN, SEEN]), 3, threads=1)


def fitted(model: Path, folder: Path, *overrides: str) -> Fitted:
    recipe = load_recipe("e5-ce", [f"weights.name={model}", "pooling=model", *WHOLE_BATCH, *overrides])
    return fit_and_score(recipe, QI, workspace(folder), train=TRAIN, unseen=UNSEEN)


@pytest.fixture(scope="module")
def steady(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BertModel without dropout: what it learns depends on the rows of a step alone."""
    folder = shutil.copytree(bert, tmp_path_factory.mktemp("models") / "steady")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# Copies of the whole network (DDP)


@pytest.mark.slow
def test_two_processes_score_every_row_once_and_learn_what_one_learns(steady: Path, tmp_path: Path) -> None:
    both = fitted(steady, tmp_path / "both", "training.gpus=2")
    shares = [pd.read_parquet(tmp_path / f"both/scratch/job/scores/oof-{rank}.parquet") for rank in (0, 1)]
    assert [len(share) for share in shares] == [51, 50]
    assert {name: scores.shape for name, scores in both.scores.items()} == {"oof": (101,), "dev": (1,), "test": (0,)}
    assert both.details["processes"] == 2
    both.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path / "again"))
    for name, rows in UNSEEN.items():
        np.testing.assert_allclose(again.predict(rows, QI), both.scores[name], atol=1e-5)
    one = fitted(steady, tmp_path / "one")
    one.save(tmp_path / "saved-one")
    weights, expected = (load_file(tmp_path / name / "model/model.safetensors") for name in ("saved", "saved-one"))
    pretrained = load_file(steady / "model.safetensors")
    assert np.abs(expected["bert.pooler.dense.weight"] - pretrained["pooler.dense.weight"]).max() > 0.01
    assert weights.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(weights[name], expected[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(both.scores["oof"], one.scores["oof"], atol=1e-6)
    assert np.ptp(one.scores["oof"]) > 1e-3


class Told:
    """A tracker that keeps the steps it is told of."""

    def __init__(self) -> None:
        self.steps: list[int | None] = []

    def start(self, name: str, config: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        assert {"eval/f1", "eval/auc", "eval/log_loss"} == metrics.keys()
        self.steps.append(step)

    def finish(self) -> None: ...


@pytest.mark.slow
def test_of_several_processes_the_first_alone_tells_the_trackers(steady: Path, tmp_path: Path) -> None:
    told = Told()
    with logging_to([told]):
        fitted(steady, tmp_path, "training.gpus=2", "training.epochs=4", "training.evaluate=1")
    assert told.steps == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_a_process_cannot_do_is_reported_with_its_cause(steady: Path, tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"parameters, the limit is 1,000") as caught:
        fitted(steady, tmp_path, "training.gpus=2", "training.max_parameters=1000")
    assert caught.value.exit_code == CompetitionError.exit_code
    assert "process 0" in str(caught.value)
    assert "the whole log is" in str(caught.value)


# Shares of the network (FSDP2), killed and resumed

KEY = PartKey("QI", "gemma-3-12b", 1)
N_DEV = 85  # two shares of which one needs a batch more
SHARED = [
    "training.gpus=2", "training.sharding=fsdp", "max_length=24", "training.epochs=30", "training.batch_size=32",
    "training.learning_rate=1e-3", "training.precision=fp32",
]  # fmt: skip


@pytest.fixture
def run(gemma: Path, tmp_path: Path) -> RunFolder:
    write_sample(tmp_path / "data", n_train=120, n_dev=N_DEV, n_test=30, tasks=("QI",))
    folder = RunFolder(tmp_path / "run")
    prepare(folder, RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3, recipes=(KEY.learner,)))
    split(folder)
    folder.add_recipes([KEY.learner], [f"weights.name={gemma}", *SHARED])
    return folder


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes whose command names `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(condition: object, what: str) -> None:
    """Wait for something that must happen soon; two minutes only guard against waiting for ever."""
    for _ in range(6000):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_shared_out_network_survives_kill_and_resume_and_makes_its_part(
    run: RunFolder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    scratch = run.parts.workdir(KEY) / SCRATCH
    command = [sys.executable, "-m", "pipelines.cli", "train", "--run", str(run.root), "--task", "QI"]
    with (tmp_path / "log").open("w") as output:
        parent = subprocess.Popen(
            [*command, "--model", KEY.learner, "--fold", "1"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output,
        )  # fmt: skip
        wait_until(lambda: any(scratch.glob("checkpoints/*/trainer_state.json")) or parent.poll() is not None, "a save")
        working = processes_of(scratch / "job")
        parent.kill()
        parent.wait()
    assert len(working) == 3, (tmp_path / "log").read_text()
    wait_until(lambda: not processes_of(scratch / "job"), "the end of the workers")
    assert not run.parts.is_finished(KEY)
    with caplog.at_level(logging.INFO):
        folder = train(run, KEY)
    assert [message for message in caplog.messages if message.startswith(f"going on from {scratch}")]
    dev = run.rows("QI")["dev"]
    shares = [len(dev.iloc[rank::2].drop_duplicates(PAIR)) for rank in (0, 1)]
    n_batches = [len(batches_by_length(np.full(n, 24), tokens_per_batch=TOKENS_ON_CPU)) for n in shares]
    assert n_batches == [2, 1], "one process must pass the network in vain"
    manifest = run.parts.manifest(KEY)
    assert manifest.details["processes"] == 2
    assert manifest.details["trainable_parameters"] < manifest.details["parameters"]
    assert manifest.n_scored == manifest.n_oof + N_DEV + 30
    saved = load(folder / "weights", workspace(tmp_path / "space"))
    for name in ("dev", "test"):
        rows = run.rows("QI")[name]
        stored = run.parts.read(KEY, name).loc[rows["id"]].to_numpy()
        np.testing.assert_allclose(saved.predict(rows, QI), stored, atol=1e-5)
    assert stored.std() > 1e-3
    assert not run.parts.workdir(KEY).exists()


def test_layers_are_found_by_what_transformers_declares(bert: Path, gemma: Path) -> None:
    from transformers import AutoModel

    from pipelines.backbones.pair_model import mean_pooled

    assert layer_classes(mean_pooled(AutoModel.from_pretrained(bert))) == ["BertLayer"]
    assert layer_classes(AutoModel.from_pretrained(gemma)) == ["Gemma3DecoderLayer"]


# Recipes


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.gpus=3"], "batch_size 32 cannot be shared equally among gpus = 3"),
        (["training.sharding=fsdp"], "needs gpus of 2 or more"),
        (["training.gpus=2", "training.sharding=fsdp", "training.ema=0.9", "training.awp=1"], "ema, awp cannot be"),
        (["training.gpus=2", "training.sharding=fsdp", "training.evaluate=2"], "evaluate cannot be"),
    ],
)
def test_recipes_that_cannot_be_shared_out_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(CompetitionError, match=words):
        load_recipe("e5-ce", overrides)


def test_a_recipe_for_one_gpu_keeps_its_digest() -> None:
    assert not {"gpus", "sharding"} & recipe_values(load_recipe("e5-ce", ["training.gpus=1"]))["training"].keys()
    assert recipe_values(load_recipe("e5-ce", ["training.gpus=2"]))["training"]["gpus"] == 2


def test_more_gpus_than_the_machine_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert has_devices(2)
    with pytest.raises(CompetitionError, match="gpus = 4, but this machine has 2 CUDA devices"):
        has_devices(4)


# Gathering


def leave_scores(folder: Path, *shares: list[int]) -> None:
    (folder / "scores").mkdir()
    for rank, ids in enumerate(shares):
        frame = pd.DataFrame({"id": ids, "score": np.array(ids, dtype=np.float32) / 10})
        frame.to_parquet(folder / "scores" / f"dev-{rank}.parquet")


def test_scores_are_gathered_by_id(tmp_path: Path) -> None:
    leave_scores(tmp_path, [1, 5], [3], [])
    assert gather(tmp_path, "dev", pd.Series([3, 1, 5])).tolist() == np.float32([0.3, 0.1, 0.5]).tolist()


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([[1, 5], []], "1 ids without a score: 3"),
        ([[1, 5], [3, 5]], "1 ids repeated: 5"),
        ([[1, 5], [3, 9]], "1 ids that do not belong here: 9"),
    ],
)
def test_missing_repeated_and_foreign_ids_are_named(shares: list[list[int]], words: str, tmp_path: Path) -> None:
    leave_scores(tmp_path, *shares)
    with pytest.raises(CompetitionError, match=words):
        gather(tmp_path, "dev", pd.Series([3, 1, 5]))


# Failures


def supervised(code: str, log_file: Path) -> tuple[int, list[str]]:
    return supervise([sys.executable, "-c", code], os.environ, log_file)


def test_output_is_kept_and_marked_lines_are_narrated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = f"print('{MARK} 20 half done'); print('chatter'); raise SystemExit(7)"
    with caplog.at_level(logging.INFO):
        assert supervised(code, tmp_path / "log") == (7, [f"{MARK} 20 half done", "chatter"])
    assert caplog.messages == ["half done"]
    assert (tmp_path / "log").read_text() == f"{MARK} 20 half done\nchatter\n"


def test_an_interrupted_parent_ends_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupt(line: str) -> None:
        started.append(int(line))
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.launch._forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        supervised("import os, time; print(os.getpid(), flush=True); time.sleep(600)", tmp_path / "log")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_crash_shows_the_end_of_the_log(tmp_path: Path) -> None:
    code, last = supervised("for i in range(99): print('line', i)\nraise SystemExit(1)", tmp_path / "log")
    error = failure(tmp_path, code, last)
    assert type(error) is ProcessFailedError
    assert error.exit_code == 1
    assert f"line {99 - LAST_LINES}\n" in str(error)
    assert f"line {98 - LAST_LINES}\n" not in str(error)


def test_a_process_killed_by_the_system_is_worth_retrying(tmp_path: Path) -> None:
    error = failure(tmp_path, 1, ["  exitcode  : -9 (pid: 7)", "  traceback : Signal 9 (SIGKILL) received by PID 7"])
    assert error.exit_code == WORTH_RETRYING


def test_running_out_of_memory_is_noted_and_worth_retrying(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, pipelines.worker as worker\n"
        "def work(folder, rank): raise MemoryError('17 GB')\n"
        "worker.work = work; worker.main(pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "RANK": "1", "PYTHONPATH": str(ROOT)}
    exit_code, last = supervise([sys.executable, "-c", code, str(tmp_path)], environment, tmp_path / "log")
    error = failure(tmp_path, exit_code, last)
    assert type(error) is ProcessMemoryError
    assert error.exit_code == WORTH_RETRYING
    assert "process 1: a process ran out of memory" in str(error)
    assert "17 GB" in str(error)
