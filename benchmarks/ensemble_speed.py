"""What finding the best-F1 cut exactly buys: ours beside scikit-learn's `f1_score` on a grid, in one process.

    python benchmarks/ensemble_speed.py [--rows 1000000] [--learners 10] [--picks 20] [--trials 200] [--full]

Three things are timed in CPU seconds (process_time): one threshold; greedy selection for best-threshold F1; the
search for the tuned blend's structure over as many members as it has. The other side cuts by the best of 99
thresholds that `f1_score` tries, once for every threshold, for every trial of greedy selection, for every trial of
the blend. Its threshold is run in full. Greedy and blend would take it hours: they are extrapolated from `--steps`
of its cuts of the rows in question, times the rows that the algorithm cuts in all, plus what the algorithm does
beside cutting, which both sides share.

The search of the tuned blend is by log-loss, on a sample of the rows where there are many, so that it cuts once at
the end; the other side is a blend tuned the usual way, by the F1 of all rows at the best cut of every trial.

With `--full`: seconds and peak memory of the default stack and blend, cross-fitted and fitted, with all features.
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

import oof.weights
from oof.combiner import Combiner
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.mix import MEMBERS, Trials, TunedBlend
from oof.simulate import simulate
from oof.stack import LightGBMStacker
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
    """Every cut that greedy selection makes inside is counted."""
    cuts = Cuts()
    oof.weights.best_threshold = cuts.cut
    try:
        yield cuts
    finally:
        oof.weights.best_threshold = best_threshold


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


def greedy_speedup(frame: PredictionFrame, *, n_picks: int, n_steps: int) -> float:
    """Greedy selection with our cuts, in full, against its cuts on the grid, extrapolated from `n_steps` of them."""
    labels, scores = frame.labels, frame.scores
    with counted_cuts() as cuts:
        _, seconds = timed(lambda: greedy_weights(labels, scores, n_rounds=n_picks))
    each = step_seconds(frame, n_steps=n_steps)
    slow = each * cuts.n_cuts + (seconds - cuts.seconds)
    print(
        f"greedy      ours {seconds:.2f} CPU-s ({cuts.seconds:.2f} in {cuts.n_cuts:,} cuts); grid {slow:,.0f}, "
        f"extrapolated from {n_steps} of its cuts, {each:.2f} CPU-s each",
        flush=True,
    )
    return slow / seconds


def blend_speedup(frame: PredictionFrame, *, n_trials: int, n_steps: int, seed: int) -> float:
    """Our search and its one cut, in full, against as many trials that mix all rows and cut them on the grid."""
    chosen = frame.with_learners(frame.learners[: len(MEMBERS)])
    trials = Trials(chosen.labels, np.ascontiguousarray(chosen.logits().T), chosen.group)

    def ours() -> Cut:
        found = trials.simplest_as_good_as(trials.search(n_trials, seed=seed, storage=None, name="speed"))
        return best_threshold(chosen.labels, sigmoid(found.shares() @ trials.logits))

    cut, seconds = timed(ours)
    _, mixing = timed(lambda: sigmoid(np.full(len(MEMBERS), 1 / len(MEMBERS)) @ trials.logits))
    slow = n_trials * (mixing + step_seconds(frame, n_steps=n_steps))
    mean = best_threshold(chosen.labels, sigmoid(trials.logits.mean(axis=0)))
    print(
        f"blend       ours {seconds:.2f} CPU-s for {n_trials} trials, F1 {cut.f1:.6f} (plain mean {mean.f1:.6f}); grid "
        f"{slow:,.0f}, extrapolated from {n_steps} of its cuts",
        flush=True,
    )
    return slow / seconds


def step_seconds(frame: PredictionFrame, *, n_steps: int) -> float:
    """CPU seconds of one cut of all rows on the grid, the mean of `n_steps` of them."""
    columns = [frame.scores[:, step % frame.n_learners] for step in range(n_steps)]
    return timed(lambda: [grid_threshold(frame.labels, column) for column in columns])[1] / n_steps


def full_ensembles(n_rows: int, n_learners: int, *, seed: int) -> None:
    """The default stack and blend, honest estimate included; prints seconds and peak memory."""
    frame = simulate(n_rows, n_learners, seed, language_quality=True, correlation=0.3, n_fresh=10).oof
    print(f"full        {n_rows:,} x {n_learners}, {peak_gib():.2f} GiB before", flush=True)
    for combiner in (LightGBMStacker(seed=seed), TunedBlend(seed=seed)):
        seconds, passed = fit_in_full(combiner, frame)
        print(f"{combiner.name:<11} {seconds:,.0f} CPU-s, {passed:,.0f} s; peak {peak_gib():.2f} GiB", flush=True)


def fit_in_full(combiner: Combiner, frame: PredictionFrame) -> tuple[float, float]:
    """CPU seconds and seconds of a cross-fit and the final fit; what they made is gone afterwards."""
    began = time.perf_counter()
    crossed, seconds = timed(lambda: cross_fit(combiner, frame))
    _, final_seconds = timed(lambda: fit_final(combiner, frame, cross_fitted=crossed))
    return seconds + final_seconds, time.perf_counter() - began


def peak_gib() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--learners", type=int, default=10)
    parser.add_argument("--picks", type=int, default=20, help="rounds of greedy selection")
    parser.add_argument("--trials", type=int, default=200, help="trials of the blend")
    parser.add_argument("--steps", type=int, default=2, help="cuts of the slow side that are run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the default stack and blend in full as well")
    args = parser.parse_args()
    frame = make_frame(args.rows, args.learners, seed=args.seed)
    print(f"{args.rows:,} rows, {args.learners} learners, {args.picks} picks, {args.trials} trials", flush=True)
    threshold = threshold_speedup(frame)
    greedy = greedy_speedup(frame, n_picks=args.picks, n_steps=args.steps)
    blend = blend_speedup(frame, n_trials=args.trials, n_steps=args.steps, seed=args.seed)
    print(f"peak memory {peak_gib():.2f} GiB")
    if args.full:
        full_ensembles(args.rows, args.learners, seed=args.seed)
    print(f"RESULT threshold_speedup {threshold:.0f}")
    print(f"RESULT greedy_speedup {greedy:.0f}")
    print(f"RESULT blend_speedup {blend:.0f}")


if __name__ == "__main__":
    main()
