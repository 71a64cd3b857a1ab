"""Fitting and scoring of one fold: in this process, or in several that torchrun starts (`training.gpus`).

Several processes get a job folder (see `SharedJob`). Each leaves the scores of its share of the rows there, the first
one the weights too. Scores are gathered by id, never by position.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import ValidationError

from competition.errors import WORTH_RETRYING, CompetitionError, Fault
from competition.json_files import read_json
from competition.tasks import Task
from oof.store import align
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import TRANSFORMERS, Recipe, TransformerRecipe
from pipelines.secrets import redacted
from pipelines.sections import Section
from pipelines.trackers import log_metrics

log = logging.getLogger(__name__)

MARK = "relstack-log"  # begins the lines of the first process that this process logs too
METRICS_MARK = "relstack-metrics"  # and those with metrics for trackers
LOG, DONE = "torchrun.log", "done.json"
LAST_LINES = 20
GRACE_SECONDS = 15


class ProcessFailedError(CompetitionError):
    """A process of several stopped; the last lines of their log are the faults."""

    exit_code: ClassVar[int] = 1


class ProcessMemoryError(ProcessFailedError):
    """A process of several had not enough memory, or was killed: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class BatchTooLargeError(ProcessMemoryError):
    """A batch was too large for the memory of a process of several; in smaller pieces it may fit."""


@dataclass(frozen=True)
class Fitted:
    """What a base learner made of a fold.

    Attributes
    ----------
    scores
        By name of the rows scored: probability of label 1, float32 ``(n_rows,)``.
    details
        See `Backbone.details`.
    save
        Writes the weights below a folder, once.
    """

    scores: Mapping[str, np.ndarray]
    details: Mapping[str, Any]
    save: Callable[[Path], None]
    fit_seconds: float
    predict_seconds: float


class SharedJob(Section):
    """``job.json`` of a job folder: what all processes are told; the rows stand beside it, see `write_job`."""

    recipe: TransformerRecipe
    task: Task
    cache: Path
    scratch: Path
    seed: int
    threads: int
    unseen: tuple[str, ...]
    others: tuple[Task, ...] = ()
    init: Path | None = None
    pieces: int = 1

    def workspace(self, folder: Path) -> Workspace:
        """The workspace of each process."""
        corpus = Corpus.of([pd.read_parquet(folder / "corpus.parquet")])
        others = {task: pd.read_parquet(folder / "others" / f"{task.name}.parquet") for task in self.others}
        return Workspace(self.cache, self.scratch, corpus, self.seed, self.threads, self.init, others, self.pieces)


def fit_and_score(
    recipe: Recipe, task: Task, space: Workspace, *, train: pd.DataFrame, unseen: Mapping[str, pd.DataFrame]
) -> Fitted:
    """A base learner fitted on `train`, and its scores of other rows (without labels).

    Raises
    ------
    CompetitionError
        The machine has fewer GPUs than the recipe asks for; a process failed; a row has no score, or two.
    """
    if isinstance(recipe, TRANSFORMERS) and recipe.training.gpus > 1:
        return _in_processes(recipe, task, space, train=train, unseen=unseen)
    return _in_this_process(recipe, task, space, train=train, unseen=unseen)


def _in_this_process(
    recipe: Recipe, task: Task, space: Workspace, *, train: pd.DataFrame, unseen: Mapping[str, pd.DataFrame]
) -> Fitted:
    from pipelines.backbones import build

    started = time.perf_counter()
    backbone = build(recipe, space).fit(train, task)
    fitted = time.perf_counter()
    scores = {name: backbone.predict(rows, task) for name, rows in unseen.items()}
    done = time.perf_counter()
    return Fitted(scores, backbone.details(), backbone.save, fitted - started, done - fitted)


def _in_processes(
    recipe: TransformerRecipe, task: Task, space: Workspace, *, train: pd.DataFrame, unseen: Mapping[str, pd.DataFrame]
) -> Fitted:
    from pipelines.weights import named_weights

    started, n_processes = time.perf_counter(), recipe.training.gpus
    on_cpu = not has_devices(n_processes)
    named_weights(recipe.weights)  # fetched once, before all processes want them
    folder = space.scratch / "job"
    for pieces in doublings(space.pieces, most=recipe.training.batch_size // n_processes):
        write_job(folder, recipe, task, replace(space, pieces=pieces), train=train, unseen=unseen)
        try:
            start_processes(folder, n_processes, on_cpu=on_cpu)
            break
        except BatchTooLargeError as error:
            log.warning("%s; all processes begin again from the last checkpoint, with smaller pieces", error.faults[0])
            failed = error
    else:
        raise failed
    scores = {name: gather(folder, name, rows["id"]) for name, rows in unseen.items()}
    shape = {"details": dict[str, Any], "predict_seconds": float}
    found = read_json(folder / DONE, shape, what="what the processes left", advice="run the same command again")
    seconds = time.perf_counter() - started
    return Fitted(
        scores,
        {**found["details"], "processes": n_processes},
        lambda target: _move(folder / "weights", target),
        fit_seconds=seconds - found["predict_seconds"],
        predict_seconds=found["predict_seconds"],
    )


def doublings(first: int, *, most: int) -> Iterator[int]:
    """`first` and its doubles, up to the first of them that is not below `most`.

    Examples
    --------
    >>> list(doublings(1, most=6)), list(doublings(1, most=1))
    ([1, 2, 4, 8], [1])
    """
    yield first
    while first < most:
        first *= 2
        yield first


def has_devices(gpus: int) -> bool:
    """Whether this machine has GPUs, and then at least so many; without any, the processes work on its CPUs.

    Raises
    ------
    CompetitionError
        It has some, but fewer.
    """
    import torch

    n_devices = torch.cuda.device_count()
    if n_devices == 0:
        log.info("training.gpus = %d, but no CUDA device here: that many processes on the CPU", gpus)
    elif n_devices < gpus:
        raise CompetitionError(
            f"training.gpus = {gpus}, but this machine has {n_devices} CUDA devices",
            advice=f"set training.gpus to {n_devices} or less, or see CUDA_VISIBLE_DEVICES",
        )
    return n_devices > 0


def write_job(
    folder: Path,
    recipe: TransformerRecipe,
    task: Task,
    space: Workspace,
    *,
    train: pd.DataFrame,
    unseen: Mapping[str, pd.DataFrame],
) -> None:
    """Write all that the processes need: ``job.json``, train rows, rows to score, the texts of the corpus."""
    shutil.rmtree(folder, ignore_errors=True)  # scores of a killed job must not be taken for this one's
    for part in ("unseen", "others", "scores"):
        (folder / part).mkdir(parents=True)
    train.to_parquet(folder / "train.parquet")
    space.corpus.pairs.to_parquet(folder / "corpus.parquet")
    for part, frames in (
        ("unseen", unseen),
        ("others", {task.name: of_task for task, of_task in space.others.items()}),
    ):
        for name, rows in frames.items():
            rows.to_parquet(folder / part / f"{name}.parquet")
    threads = max(1, space.threads // recipe.training.gpus)
    job = SharedJob(
        recipe=recipe,
        task=task,
        cache=space.cache.resolve(),
        scratch=space.scratch.resolve(),
        seed=space.seed,
        threads=threads,
        unseen=tuple(unseen),
        others=tuple(space.others),
        init=space.init and space.init.resolve(),
        pieces=space.pieces,
    )
    (folder / "job.json").write_text(job.model_dump_json(indent=1), encoding="utf-8")


def read_job(folder: Path) -> SharedJob:
    """What `write_job` wrote as ``job.json``; a CompetitionError if that is damaged."""
    advice = "run the same command again: it writes the job folder anew"
    values = read_json(folder / "job.json", {}, what="the job of several processes", advice=advice)
    try:
        return SharedJob.model_validate(values, strict=False)
    except ValidationError as error:
        faults = [Fault(f"job.json: {str(item['loc'])[:80]}", item["msg"][:300]) for item in error.errors()]
        raise CompetitionError("the job of several processes is damaged", faults=faults, advice=advice) from error


def start_processes(folder: Path, n_processes: int, *, on_cpu: bool) -> None:
    """Run `pipelines.worker` in several processes until all are done.

    Raises
    ------
    CompetitionError
        One failed: what it said, else the last lines of the log.
    """
    threads = read_job(folder).threads
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    environment = process_environment(threads, on_cpu=on_cpu)
    exit_code, last = supervise([*torchrun, "-m", "pipelines.worker", str(folder)], environment, folder / LOG)
    if exit_code:
        raise failure(folder, exit_code, last)


def process_environment(threads: int, *, on_cpu: bool) -> dict[str, str]:
    """The environment of processes that work together: our packages, and nothing from the working folder.

    ``python -m`` imports from there first; it may be a stranger's run.
    """
    packages = str(Path(__file__).resolve().parent.parent)
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")])),
        **({"ACCELERATE_USE_CPU": "true"} if on_cpu else {}),
    }


def supervise(command: Sequence[str], environment: Mapping[str, str], log_file: Path) -> tuple[int, list[str]]:
    """Run `command`, its output into `log_file` and marked lines to our log; gives exit code and last lines.

    The command has a process group of its own, and a pipe as its standard input that ends when this process does,
    whatever ends it: workers that torchrun started end with it (see `pipelines.worker`).
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    with log_file.open("w", encoding="utf-8") as kept:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None, "it was asked for"
        try:
            for line in map(redacted, process.stdout):
                kept.write(line)
                last.append(line.rstrip())
                _forward(line.rstrip())
            return process.wait(), list(last)
        finally:
            _stop(process)


def _forward(line: str) -> None:
    if line.startswith(MARK):
        _, level, *words = line.split(" ", maxsplit=2)
        log.log(int(level), "%s", " ".join(words))
    elif line.startswith(METRICS_MARK):
        told = json.loads(line.removeprefix(METRICS_MARK))
        log_metrics(told["log"], told["step"])


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None, "it was asked for"
    assert process.stdout is not None, "it was asked for"
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()


def failure(folder: Path, exit_code: int, last: Sequence[str]) -> CompetitionError:
    """The error for processes that stopped: what one of them noted as the cause, else the end of their log."""
    shape = {"rank": int, "exit_code": int, "message": str}
    notes = [
        read_json(path, shape, what="a process's last words", advice=f"see {folder / LOG}")
        for path in sorted(folder.glob("failure-*.json"))
    ]
    killed = any("Signal 9 (SIGKILL)" in line for line in last)
    cause = max((note["exit_code"] for note in notes), default=WORTH_RETRYING if killed else 1)
    kinds = {WORTH_RETRYING: ProcessMemoryError, CompetitionError.exit_code: CompetitionError}
    words = {WORTH_RETRYING: "ran out of memory or was killed"}.get(cause, "failed")
    faults = [Fault(f"process {note['rank']}", note["message"]) for note in notes]
    too_large = [fault for fault, note in zip(faults, notes, strict=True) if note.get("smaller_pieces")]
    kind = BatchTooLargeError if too_large else kinds.get(cause, ProcessFailedError)
    faults = too_large or faults  # the others only say that they were left alone
    return kind(
        f"one of the processes of training.gpus {words} (torchrun's exit code {exit_code})",
        faults=faults or [Fault(LOG, "\n    ".join(["its last lines:", *last]))],
        advice=f"the whole log is {folder / LOG}; the same command goes on from the last checkpoint",
    )


def gather(folder: Path, name: str, ids: pd.Series) -> np.ndarray:
    """The scores that all processes gave the rows of `ids`, float32, in that order.

    Raises
    ------
    CompetitionError
        An id without a score, with two, or one that was not asked for; they are named.
    """
    shares = [pd.read_parquet(path) for path in sorted((folder / "scores").glob(f"{name}-*.parquet"))]
    scores = pd.concat(shares).set_index("id")["score"]
    return align(scores, ids, where=f"{name} of {len(shares)} processes").astype(np.float32)


def _move(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)  # of an attempt that was killed
    shutil.move(source, target)
