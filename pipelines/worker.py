"""One of several processes that fit and score a fold together: ``torchrun -m pipelines.worker JOBFOLDER``.

`pipelines.launch` starts it and gathers what it leaves: the scores of this process's share of the rows, and, from the
first process, the weights.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from competition.errors import CompetitionError
from pipelines.failures import named
from pipelines.job_process import end_with_parent
from pipelines.launch import DONE, MARK, METRICS_MARK, SharedJob, read_job
from pipelines.memory import SmallerPiecesError
from pipelines.output import narrate
from pipelines.secrets import RedactingFormatter, redacted
from pipelines.trackers import logging_to

log = logging.getLogger(__name__)


def main(folder: Path) -> None:
    """Fit with all processes, score this one's share, leave both in the job folder; the cause too if it fails."""
    rank = int(os.environ["RANK"])
    end_with_parent()
    _narrate(rank)
    try:
        with logging_to([ToParent()] if rank == 0 else []):
            work(folder, rank)
    except Exception as error:
        known = error if isinstance(error, CompetitionError) else named(error, stage="a process", folder=folder)
        if known is None:
            _leave_cause(folder, rank, 1, f"{type(error).__name__}: {error}")
        else:
            _leave_cause(
                folder, rank, known.exit_code, str(known), smaller_pieces=isinstance(error, SmallerPiecesError)
            )
        raise


def work(folder: Path, rank: int) -> None:
    """The whole work of one process."""
    import torch
    from accelerate import PartialState

    from pipelines.backbones.cross_encoder import CrossEncoder

    state = PartialState(cpu=not torch.cuda.is_available())  # finds the others; on GPUs each takes its own
    job = read_job(folder)
    train = pd.read_parquet(folder / "train.parquet")
    backbone = CrossEncoder(job.recipe, job.workspace(folder)).fit(train, job.task)
    started = time.perf_counter()
    for name in job.unseen:
        rows = pd.read_parquet(folder / "unseen" / f"{name}.parquet")
        share = score_share(backbone, rows, job, rank=rank, world=state.num_processes)
        share.to_parquet(folder / "scores" / f"{name}-{rank}.parquet", index=False)
    torch.distributed.barrier()
    seconds = time.perf_counter() - started
    backbone.save(folder / "weights")
    if rank == 0:
        done = {"details": backbone.details(), "predict_seconds": seconds}
        (folder / DONE).write_text(json.dumps(done), encoding="utf-8")
    torch.distributed.barrier()


def score_share(backbone: Any, rows: pd.DataFrame, job: SharedJob, *, rank: int, world: int) -> pd.DataFrame:
    """``id, score`` of every `world`-th row, beginning with row number `rank`."""
    share = rows.iloc[rank::world]
    asked = share if len(share) else rows.iloc[:1]  # a sharded network is passed by all processes or by none
    scores = backbone.predict(asked, job.task)[: len(share)]
    return pd.DataFrame({"id": share["id"].to_numpy(), "score": scores})


class ToParent:
    """A tracker that hands metrics to the process that started torchrun, which knows the real ones."""

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Nothing: the parent has opened a run."""

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """See `pipelines.trackers.Tracker`."""
        print(METRICS_MARK, json.dumps({"log": dict(metrics), "step": step}), flush=True)

    def finish(self) -> None:
        """Nothing: the parent closes its run."""


def _narrate(rank: int) -> None:
    """The first process's log, marked for the parent; of the others only warnings, for the log file."""
    narrate(quiet=rank > 0, verbose=False)
    if rank == 0:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(RedactingFormatter(f"{MARK} %(levelno)d %(message)s"))


def _leave_cause(folder: Path, rank: int, exit_code: int, message: str, *, smaller_pieces: bool = False) -> None:
    note = {"rank": rank, "exit_code": exit_code, "message": redacted(message), "smaller_pieces": smaller_pieces}
    (folder / f"failure-{rank}.json").write_text(json.dumps(note), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    logging.shutdown()
    os._exit(0)  # all is written; taking the threads of several processes down in order fails now and then
