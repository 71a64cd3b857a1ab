"""What finding the best-F1 cut exactly buys: ours beside scikit-learn's `f1_score` on a grid, in one process.

    python benchmarks/ensemble_speed.py [--rows 1000000] [--learners 10] [--picks 20] [--trials 200]

Three things are timed in CPU seconds (process_time): one threshold; greedy selection for best-threshold F1; the
choice of a blend's structure with Optuna, cross-fitted over five folds. The other side runs the same algorithm, but
every cut is the best of 99 that `f1_score` tries. Its threshold is run in full. Greedy and blend would take it
hours: they are extrapolated from `--steps` of its cuts of the rows in question, times the rows that the algorithm
cuts in all, plus what the algorithm does beside cutting, which both sides share.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

import oof.blend
import oof.weights
from oof.blend import OptunaBlend
from oof.frame import PredictionFrame
from oof.threshold import Cut, best_threshold
from oof.weights import greedy_weights, sigmoid

GRID = np.arange(1, 100) / 100
N_FOLDS = 5
GIB = 2**30

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]
T = TypeVar("T")


def make_frame(n_rows: int, n_learners: int, *, seed: int) -> PredictionFrame:
    """Scores of learners that see one truth through errors of their own; five rows a group, five folds."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(1.1, 3.0, n_rows)
    group = np.arange(n_rows) // 5
    rows = pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "language": "en",
            "label": (rng.random(n_rows) < sigmoid(truth)).astype(np.int8),
            "fold": (group % N_FOLDS).astype(np.int8),
            "group": group,
        }
    )
    scores = np.empty((n_rows, n_learners))
    for column, error in enumerate(rng.uniform(1.4, 2.4, n_learners)):
        scores[:, column] = sigmoid(truth + rng.normal(0.0, error, n_rows))
    return PredictionFrame(rows, scores, tuple(f"learner_{column}" for column in range(n_learners)))


def grid_threshold(labels: Binary, scores: Floats) -> Cut:
    """The best of 99 cuts by `f1_score`."""
    from sklearn.metrics import f1_score

    values = [f1_score(labels, scores >= threshold) for threshold in GRID]
    best = int(np.argmax(values))
    return Cut(float(GRID[best]), float(values[best]))


@dataclass
class Cuts:
    """How many rows were cut, in how many cuts, and the CPU seconds of that."""

    n_cuts: int = 0
    n_rows: int = 0
    seconds: float = 0.0

    def cut(self, labels: Binary, scores: Floats) -> Cut:
        """`best_threshold`, counted."""
        found, seconds = timed(lambda: best_threshold(labels, scores))
        self.n_cuts, self.n_rows, self.seconds = self.n_cuts + 1, self.n_rows + len(scores), self.seconds + seconds
        return found


@contextmanager
def counted_cuts() -> Iterator[Cuts]:
    """Every cut that greedy selection and the blend make inside is counted."""
    cuts = Cuts()
    modules = (oof.blend, oof.weights)
    for module in modules:
        module.best_threshold = cuts.cut
    try:
        yield cuts
    finally:
        for module in modules:
            module.best_threshold = best_threshold


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and its CPU seconds."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def threshold_speedup(frame: PredictionFrame, *, repeats: int = 5) -> float:
    """Both sides in full; ours is the median of a few runs, as a single one takes milliseconds."""
    labels, scores = frame.labels, frame.scores.mean(axis=1)
    ours = [timed(lambda: best_threshold(labels, scores)) for _ in range(repeats)]
    seconds = float(np.median([each for _, each in ours]))
    grid, grid_seconds = timed(lambda: grid_threshold(labels, scores))
    print(f"threshold   ours {seconds:.4f} CPU-s, F1 {ours[0][0].f1:.6f}; grid {grid_seconds:.2f}, F1 {grid.f1:.6f}")
    assert ours[0][0].f1 >= grid.f1, "the exact cut cannot be worse than one of a grid"
    return grid_seconds / seconds


def selection_speedup(name: str, work: Callable[[], object], frame: PredictionFrame, *, n_steps: int) -> float:
    """`work` with our cuts, in full, against its cuts on the grid, extrapolated from `n_steps` of them."""
    with counted_cuts() as cuts:
        _, seconds = timed(work)
    rows = min(frame.n_rows, cuts.n_rows // cuts.n_cuts)
    labels, columns = frame.labels[:rows], [frame.scores[:rows, step % frame.n_learners] for step in range(n_steps)]
    _, step_seconds = timed(lambda: [grid_threshold(labels, column) for column in columns])
    slow = step_seconds / (n_steps * rows) * cuts.n_rows + (seconds - cuts.seconds)
    print(
        f"{name:<11} ours {seconds:.2f} CPU-s ({cuts.seconds:.2f} in {cuts.n_cuts:,} cuts of {rows:,} rows); grid "
        f"{slow:,.0f}, extrapolated from {n_steps} of its cuts, {step_seconds / n_steps:.2f} CPU-s each",
        flush=True,
    )
    return slow / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--learners", type=int, default=10)
    parser.add_argument("--picks", type=int, default=20, help="rounds of greedy selection")
    parser.add_argument("--trials", type=int, default=200, help="trials of the blend")
    parser.add_argument("--steps", type=int, default=2, help="cuts of the slow side that are run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    frame = make_frame(args.rows, args.learners, seed=args.seed)
    print(f"{args.rows:,} rows, {args.learners} learners, {args.picks} picks, {args.trials} trials", flush=True)
    labels, scores = frame.labels, frame.scores
    threshold = threshold_speedup(frame)
    greedy = selection_speedup(
        "greedy", lambda: greedy_weights(labels, scores, n_rounds=args.picks), frame, n_steps=args.steps
    )
    recipe = OptunaBlend(n_trials=args.trials, seed=args.seed)
    blend = selection_speedup("blend", lambda: recipe.choose(frame), frame, n_steps=args.steps)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB:.2f} GiB")
    print(f"RESULT threshold_speedup {threshold:.0f}")
    print(f"RESULT greedy_speedup {greedy:.0f}")
    print(f"RESULT blend_speedup {blend:.0f}")


if __name__ == "__main__":
    main()
