"""Training rows per second: `CrossEncoder.fit` beside the reference's data path, same weights, rows, steps and rates.

    python benchmarks/training.py [--data FOLDER] [--rows 1280] [--fresh 2000] [--threads N] [--rounds 1]

First both sides train once on all rows, taking turns of a few optimiser steps in one process, so that whatever else the
machine does slows both alike: the speed-up is the median over the turns (the first one has loading and, on our side,
tokenising; the last one our checkpoint). Both networks then score the same fresh rows. After that the single
contributions, switched on one after the other: two epochs on a few rows each, of which the second is timed.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from reference import (
    AS_REFERENCE,
    Seconds,
    Turns,
    median_ratio,
    parser_of,
    quality,
    read_pairs,
    recipe_of,
    reference_model,
    reference_trainer,
    watched,
    workspace,
)

from competition.tasks import QC
from pipelines.backbones import dropout
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.readers import PairReader
from pipelines.tokens import TrainingBatches


@dataclass(frozen=True)
class Rung:
    """A state between the reference and ours."""

    name: str
    path: Literal["reference", "reference by length", "ours"]
    overrides: tuple[str, ...] = AS_REFERENCE
    fused: bool = False
    quick_dropout: bool = False


FULL, SDPA, WHOLE = AS_REFERENCE
REFERENCE = Rung("reference", "reference")
HALF = ("training.precision=bf16",)
OURS = Rung("+ quick dropout = ours", "ours", HALF, fused=True, quick_dropout=True)
LADDER = (
    REFERENCE,
    Rung("+ batches by length", "reference by length"),
    Rung("+ tokenised once", "ours"),
    Rung("+ fused AdamW", "ours", fused=True),
    Rung("+ only the embeddings in use", "ours", (FULL, SDPA), fused=True),
    Rung("+ eager attention", "ours", (FULL,), fused=True),
    Rung("+ bf16", "ours", HALF, fused=True),
    OURS,
)


@dataclass(frozen=True)
class Job:
    """What every training of the benchmark has in common."""

    overrides: tuple[str, ...]
    threads: int
    seed: int

    def fit(self, rung: Rung, rows: pd.DataFrame, *callbacks: Any) -> CrossEncoder:
        """The cross-encoder after training as the rung says."""
        import torch

        recipe = recipe_of([*rung.overrides, *self.overrides])
        with tempfile.TemporaryDirectory() as folder:
            space = workspace(Path(folder), [rows], seed=self.seed, threads=self.threads)
            unfitted = CrossEncoder(recipe, space)
            if rung.path == "ours":
                fused = [] if rung.fused else [_unfused()]
                with watched(*callbacks, *fused), nullcontext() if rung.quick_dropout else _torchs_own_dropout():
                    return unfitted.fit(rows, QC)
            torch.set_num_threads(self.threads)
            model, tokenizer = reference_model(recipe, seed=self.seed)
            trainer = reference_trainer(
                model, rows, recipe, tokenizer=tokenizer, folder=space.scratch, seed=self.seed, callbacks=callbacks
            )
            if rung.path == "reference by length":
                lengths = PairReader(recipe, tokenizer).inputs(trainer.train_dataset.texts).lengths
                batches = TrainingBatches(lengths, recipe.training.batch_size, self.seed)
                trainer.get_train_dataloader = lambda: _loader(trainer, batches)
            trainer.train()
            return replace(unfitted, model=model.eval(), tokenizer=tokenizer)


def _loader(trainer: Any, batches: TrainingBatches) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(trainer.train_dataset, batch_sampler=batches, collate_fn=trainer.data_collator)  # type: ignore[arg-type]


def _unfused() -> Any:
    from transformers import TrainerCallback

    class Unfused(TrainerCallback):  # type: ignore[misc]
        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.optim = "adamw_torch"

    return Unfused()


@contextmanager
def _torchs_own_dropout() -> Iterator[None]:
    own = dropout.quick_dropout
    dropout.quick_dropout = nullcontext  # type: ignore[assignment]
    try:
        yield
    finally:
        dropout.quick_dropout = own


def in_turns(job: Job, rows: pd.DataFrame, *, n_steps: int) -> tuple[dict[str, CrossEncoder], Turns]:
    """Both sides fitted on `rows` in turns of `n_steps` optimiser steps, and the seconds of the turns."""
    from transformers import TrainerCallback

    turns = Turns((REFERENCE.name, OURS.name))

    class TakeTurns(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % n_steps == 0:
                turns.take()

    def work(rung: Rung) -> Callable[[], CrossEncoder]:
        return lambda: job.fit(rung, rows, TakeTurns())

    return turns.run({rung.name: work(rung) for rung in (REFERENCE, OURS)}), turns


def second_epoch(job: Job, rung: Rung, rows: pd.DataFrame) -> Seconds:
    """Seconds of the second of two epochs on `rows`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.save_strategy = "no"  # a checkpoint is outside of what is timed, and large

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began = Seconds.now()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.took = Seconds.now() - self.began

    clock = Clock()
    replace(job, overrides=(*job.overrides, "training.epochs=2")).fit(rung, rows, clock)
    return clock.took


def print_turns(
    fitted: dict[str, CrossEncoder], turns: Turns, fresh: pd.DataFrame, *, n_rows: int, per_turn: int
) -> None:
    """One line per side; both networks score `fresh` through our own path."""
    print("\n| side | rows/s | rows/CPU-s | rows/s of the whole fit | AUC | F1 |\n|---|---|---|---|---|---|")
    for name, model in fitted.items():
        seconds = turns.seconds[name]
        wall, cpu = (np.median([getattr(one, clock) for one in seconds[1:-1]]) for clock in ("wall", "cpu"))
        whole = n_rows / sum(one.wall for one in seconds)
        found = quality(fresh["label"], replace(fitted[OURS.name], model=model.model).predict(fresh, QC))
        side = "ours" if name == OURS.name else name
        print(f"| {side} | {per_turn / wall:.1f} | {per_turn / cpu:.1f} | {whole:.1f} | {found} |")


def print_ladder(job: Job, rows: pd.DataFrame, *, n_rounds: int) -> None:
    """One line per contribution, the median of `n_rounds` rounds."""
    seconds: dict[str, list[Seconds]] = {rung.name: [] for rung in LADDER}
    for round_ in range(n_rounds):
        for rung in LADDER if round_ % 2 == 0 else LADDER[::-1]:
            seconds[rung.name].append(second_epoch(job, rung, rows))
    print("\n| switched on, one after the other | rows/s | rows/CPU-s | times the reference |\n|---|---|---|---|")
    for name, took in seconds.items():
        wall, cpu = (len(rows) / np.median([getattr(one, clock) for one in took]) for clock in ("wall", "cpu"))
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {median_ratio(seconds[REFERENCE.name], took):.2f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1280, help="rows to train on")
    parser.add_argument("--fresh", type=int, default=2000, help="fresh rows to score")
    parser.add_argument("--rounds", type=int, default=1, help="rounds over the single contributions; 0 for none")
    args = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    n_rows, n_fresh, n_steps, n_rounds = (64, 64, 1, 1) if args.quick else (args.rows, args.fresh, 8, args.rounds)
    train, fresh = read_pairs(args.data, n_train=n_rows, n_fresh=n_fresh, seed=args.seed)
    job = Job(tuple(args.set), args.threads, args.seed)
    batch = recipe_of(job.overrides).training.batch_size
    print(f"{len(train):,} rows, {len(fresh):,} fresh rows, batches of {batch}, {args.threads} threads", flush=True)
    fitted, turns = in_turns(job, train, n_steps=n_steps)
    print_turns(fitted, turns, fresh, n_rows=len(train), per_turn=n_steps * batch)
    fitted.clear()  # two networks of memory
    if n_rounds:
        print_ladder(job, train[: 4 * batch], n_rounds=n_rounds)
    slow, fast = (turns.seconds[rung.name][1:-1] for rung in (REFERENCE, OURS))
    print(f"\nRESULT training_speedup_cpu {median_ratio(slow, fast, clock='cpu'):.2f}")
    print(f"RESULT training_speedup {median_ratio(slow, fast):.2f}")


if __name__ == "__main__":
    main()
