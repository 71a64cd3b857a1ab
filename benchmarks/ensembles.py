"""Every combiner where the truth is known: F1 on fresh rows, what the default loses to the best, and how honest it is.

    python benchmarks/ensembles.py [--seeds 20] [--rows 5000,20000,50000,100000] [--learners 3,6,12] [--quality ...]

A cell is a quality (`alike`: a learner is equally good in all languages; `by-language`: it is not), a number of
learners and of out-of-fold rows; its worlds come from `oof.simulate`, one per seed. Each combiner is cross-fitted and
fitted on all out-of-fold rows, and its decisions on fresh rows of the same world are scored.

    f1           on fresh rows, mean over seeds, in points, with the standard error over seeds
    regret       the best simple combiner's mean F1 (best single, mean, rank mean, logit mean, hard vote, greedy,
                 convex, logistic, logistic by language) minus its own: below 0 it beats them all
    nested bias  the cross-fitted F1 minus that on fresh rows: above 0 it flatters itself. Out-of-fold rows may be
                 luckier than fresh ones for everybody: the same difference for a rule that nothing was fitted for
                 (the mean score cut at one half), whose expectation is 0, is taken off
    seconds      of CPU; the blend's are those beside the stack's, whose fits it shares
    gain         the default's F1 minus that of the best simple combiner that does not know languages

`--noise N` adds N learners that know nothing. The last lines give, over all cells: the default's worst regret; its
nested bias where rows are `HONEST_FROM` or more (mean over cells); how far it stays below the plain mean at worst; and
its least gain where quality differs by language and rows are `LARGE_FROM` or more.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from competition.metrics import f1
from oof.blend import BestSingle, ConvexBlend, Greedy, HardVote, LogitMean, Mean, RankMean
from oof.combiner import NOTHING, Combiner, Fits, FittedCombiner
from oof.crossfit import cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.logistic import LanguageLogistic, LogisticStacker
from oof.mix import TunedBlend
from oof.simulate import Simulated, simulate
from oof.threshold import decide

QUALITIES = ("alike", "by-language")
DEFAULT = "blend"
KNOWS_LANGUAGES = "logistic-by-language"
NOT_SIMPLE = ["stack", DEFAULT]
HONEST_FROM = 20_000  # rows, from where on the bias of the nested estimate is asked for
LARGE_FROM = 50_000  # rows, from where on a gain is asked for where quality differs by language


@dataclass(frozen=True)
class Made:
    """A combiner whose fits are there already: the stacker is fitted as a member of the blend anyway."""

    name: str
    fits: Fits
    kind: str = "made"

    def fit(self, frame: PredictionFrame) -> FittedCombiner:
        """The fit on all rows."""
        return self.fits.fit_without(NOTHING)

    def over(self, frame: PredictionFrame) -> Fits:
        """The fits, which are those of this frame."""
        return self.fits


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation."""

    quality: str
    n_learners: int
    n_rows: int

    def world(self, seed: int, *, noise: int, n_fresh: int) -> Simulated:
        """The out-of-fold and the fresh rows of one seed."""
        return simulate(
            self.n_rows,
            self.n_learners,
            seed,
            language_quality=self.quality == "by-language",
            correlation=0.3,
            noise_learners=noise,
            n_fresh=n_fresh,
        )


def simple_combiners(seed: int) -> list[Combiner]:
    """What the default must not lose to."""
    means = [Mean(), RankMean(), LogitMean()]
    linear = [ConvexBlend(), LogisticStacker(), LanguageLogistic()]
    return [BestSingle(), *means, HardVote(), Greedy(seed=seed), *linear]


def measure(cell: Cell, seed: int, *, noise: int, n_fresh: int) -> Iterator[dict[str, object]]:
    """One line per combiner."""
    world = cell.world(seed, noise=noise, n_fresh=n_fresh)
    luck = 100 * (unfitted_f1(world.oof) - unfitted_f1(world.fresh))
    blend = TunedBlend(seed=seed).over(world.oof)
    for combiner in [*simple_combiners(seed), Made("stack", blend.members["trees"]), Made(DEFAULT, blend)]:
        began = time.process_time()
        crossed = cross_fit(combiner, world.oof)
        fitted = fit_final(combiner, world.oof, cross_fitted=crossed)
        yield {
            "combiner": combiner.name,
            "seed": seed,
            "fresh": 100 * f1(world.fresh.labels, fitted.decide(world.fresh.without_labels())),
            "nested": 100 * f1(world.oof.labels, crossed.decisions) - luck,
            "seconds": time.process_time() - began,
        }


def unfitted_f1(frame: PredictionFrame) -> float:
    """F1 of the mean score cut at one half."""
    return f1(frame.labels, decide(frame.scores.mean(axis=1), 0.5))


def summarise(lines: pd.DataFrame) -> pd.DataFrame:
    """One line per combiner of a cell, the highest mean F1 first."""
    lines = lines.assign(bias=lines["nested"] - lines["fresh"])
    grouped = lines.groupby("combiner")
    table = pd.DataFrame(
        {
            "f1": grouped["fresh"].mean(),
            "error": grouped["fresh"].sem(),
            "nested_bias": grouped["bias"].mean(),
            "bias_error": grouped["bias"].sem(),
            "seconds": grouped["seconds"].mean(),
        }
    )
    best_simple = table["f1"].drop(NOT_SIMPLE).max()
    return table.assign(regret=best_simple - table["f1"]).sort_values("f1", ascending=False)


def run_cell(cell: Cell, *, n_seeds: int, noise: int, n_fresh: int) -> pd.DataFrame:
    """The summary of one cell; prints it."""
    lines = [line for seed in range(n_seeds) for line in measure(cell, seed, noise=noise, n_fresh=n_fresh)]
    table = summarise(pd.DataFrame(lines))
    print(f"\n{cell.quality}, {cell.n_learners} learners (+ {noise} of noise), {cell.n_rows:,} rows, {n_seeds} seeds")
    print(table[["f1", "error", "regret", "nested_bias", "bias_error", "seconds"]].round(3).to_string(), flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", default="5000,20000,50000,100000")
    parser.add_argument("--learners", default="3,6,12")
    parser.add_argument("--quality", default=",".join(QUALITIES))
    parser.add_argument("--noise", type=int, default=0, help="learners that know nothing, beside the others")
    parser.add_argument("--fresh", type=int, default=200_000, help="fresh rows")
    args = parser.parse_args()
    cells = [Cell(*each) for each in product(args.quality.split(","), _numbers(args.learners), _numbers(args.rows))]
    tables = {cell: run_cell(cell, n_seeds=args.seeds, noise=args.noise, n_fresh=args.fresh) for cell in cells}
    report(tables, n_seeds=args.seeds)


def report(tables: dict[Cell, pd.DataFrame], *, n_seeds: int) -> None:
    """The last lines."""
    regret = {cell: table.loc[DEFAULT, "regret"] for cell, table in tables.items()}
    bias = [table.loc[DEFAULT, "nested_bias"] for cell, table in tables.items() if cell.n_rows >= HONEST_FROM]
    below_mean = max(table.loc["mean", "f1"] - table.loc[DEFAULT, "f1"] for table in tables.values())
    gains = [
        table.loc[DEFAULT, "f1"] - table["f1"].drop([*NOT_SIMPLE, KNOWS_LANGUAGES]).max()
        for cell, table in tables.items()
        if cell.n_rows >= LARGE_FROM and cell.quality == "by-language"
    ]
    worst = max(regret, key=lambda cell: regret[cell])
    print(f"\n{len(tables)} cells, {n_seeds} seeds; worst: {worst.quality}, {worst.n_learners} x {worst.n_rows:,}")
    print(f"RESULT below_mean_pt {below_mean:.3f}")
    print(f"RESULT least_gain_by_language_pt {min(gains, default=float('nan')):.3f}")
    print(f"RESULT worst_nested_bias_pt {max(bias, key=abs, default=float('nan')):.3f}")
    print(f"RESULT worst_regret_pt {regret[worst]:.3f}")
    print(f"RESULT nested_bias_pt {np.mean(bias) if bias else float('nan'):.3f}")


def _numbers(text: str) -> Sequence[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
