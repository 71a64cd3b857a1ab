"""A made-up competition of any size through the whole pipeline: time and memory of every stage, and how they grow.

    python benchmarks/load.py --rows 200000 2000000 [--task QC] [--folds 3] [--learners lexical] [--folder F]

`--rows` are those of all files: dev and test have a tenth each, train the rest. Every stage is a `relstack` command of
its own, as a user would call it, with the translations of the sample and an empty cache: wall and CPU seconds, and the
greatest resident memory of any process in it (`wait4`; pages of mapped files count). Folds are trained one command
each. What was measured is kept in ``F/<rows>/load.csv``, so that the same command goes on where it was stopped.
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

from competition.tasks import SPLITS

ROOT = Path(__file__).parents[1]
MIB_PER_KIB = 1 / 1024


@dataclass(frozen=True)
class Measured:
    """One stage: wall seconds, CPU seconds of all its processes, greatest resident memory of one of them."""

    stage: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Load:
    """A competition of one size and the run that is made of it."""

    folder: Path
    n_rows: int
    task: str
    folds: int
    learners: tuple[str, ...]

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Every stage and the arguments of `relstack` for it, in the order of the work."""
        data, run = str(self.folder / "data"), ["--run", str(self.folder / "run")]
        translations = ["--translations", str(self.folder / "data" / "translations.csv")]
        files = ["--data", data, "--tasks", self.task, *translations]
        tenth = self.n_rows // 10
        sizes = dict(zip(SPLITS, (self.n_rows - 2 * tenth, tenth, tenth), strict=True))
        rows = [word for split, size in sizes.items() for word in (f"--{split}-rows", str(size))]
        yield "sample", ["sample", data, *rows, "--tasks", self.task]
        yield "check", ["check", *files]
        yield "split", ["split", *files, *run, "--folds", str(self.folds)]
        for learner in self.learners:
            for fold in range(self.folds):
                part = ["--task", self.task, "--model", learner, "--fold", str(fold)]
                yield f"train {learner}/fold-{fold}", ["train", *run, *part]
        yield "stack", ["stack", *run]
        yield "leaderboard", ["leaderboard", *run]
        yield "submit", ["submit", *run]
        yield "validate", ["validate", str(self.folder / "run" / "submissions" / "final"), *run]

    def measure(self) -> list[Measured]:
        """All stages; those that were measured before are not done again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = {each.stage: each for each in read_measured(self.folder / "load.csv")}
        for stage, arguments in self.commands():
            if stage not in known:
                known[stage] = run_stage(stage, arguments, cache=self.folder / "cache", log=self.folder / "load.log")
                write_measured(list(known.values()), self.folder / "load.csv")
                print(f"{self.n_rows:>10,}  {line(known[stage])}", flush=True)
        return list(known.values())


def run_stage(stage: str, arguments: Sequence[str], *, cache: Path, log: Path) -> Measured:
    """Run one command; what it prints goes to the log, and the benchmark ends where it fails."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "RELSTACK_CACHE": str(cache)}
    began = time.perf_counter()
    with log.open("ab") as output:
        command = [sys.executable, "-m", "pipelines.cli", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{stage} failed with exit code {os.waitstatus_to_exitcode(status)}: see {log}")
    seconds, peak = time.perf_counter() - began, usage.ru_maxrss * MIB_PER_KIB
    return Measured(stage, round(seconds, 2), round(usage.ru_utime + usage.ru_stime, 2), round(peak))


def read_measured(path: Path) -> list[Measured]:
    """What `write_measured` wrote; nothing if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [Measured(row.pop("stage"), **{name: float(row[name]) for name in row}) for row in csv.DictReader(file)]


def write_measured(measured: Sequence[Measured], path: Path) -> None:
    """Write a table of stages."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Measured)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in measured)


def folds_together(measured: Sequence[Measured]) -> list[Measured]:
    """The stages with all folds of a base learner as one: the sum of seconds, the greatest peak."""
    by_name: dict[str, list[Measured]] = {}
    for each in measured:
        by_name.setdefault(each.stage.split("/")[0], []).append(each)
    return [
        Measured(
            name,
            sum(each.seconds for each in found),
            sum(each.cpu_seconds for each in found),
            max(each.peak_mb for each in found),
        )
        for name, found in by_name.items()
    ]


def exponent(before: float, after: float, growth: float) -> float:
    """The power of the number of rows with which a quantity grew; `growth` is how many times the rows are.

    Examples
    --------
    >>> exponent(2.0, 20.0, 10.0)
    1.0
    """
    return math.log(after / before) / math.log(growth)


def line(measured: Measured) -> str:
    return (
        f"{measured.stage:<32} {measured.seconds:9.1f} s {measured.cpu_seconds:9.1f} CPU-s {measured.peak_mb:8,.0f} MB"
    )


def print_growth(sizes: tuple[int, int], smaller: Sequence[Measured], larger: Sequence[Measured]) -> None:
    """How many times the CPU seconds and the peak of every stage are, and with which power of the rows they grew."""
    growth = sizes[1] / sizes[0]
    before = {each.stage: each for each in smaller}
    n_log_n = math.log(growth * math.log(sizes[1]) / math.log(sizes[0])) / math.log(growth)
    print(f"\nfrom {sizes[0]:,} to {sizes[1]:,} rows; n log n has the power {n_log_n:.2f}")
    for each in larger:
        first = before[each.stage]
        times, power = (
            each.cpu_seconds / first.cpu_seconds,
            exponent(first.cpu_seconds, each.cpu_seconds, growth),
        )
        print(
            f"{each.stage:<24} CPU x {times:6.1f} (power {power:.2f})  peak x {each.peak_mb / first.peak_mb:5.1f}"
            f" (power {exponent(first.peak_mb, each.peak_mb, growth):.2f})"
        )
        print(f"RESULT {_key(each)}_growth {power:.2f}")


def print_results(measured: Sequence[Measured]) -> None:
    """The figures of one size."""
    print()
    for each in measured:
        print(line(each))
    for each in measured:
        print(f"RESULT {_key(each)}_seconds {each.seconds:.1f}")
        print(f"RESULT {_key(each)}_peak_mb {each.peak_mb:.0f}")
    print(f"RESULT total_seconds {sum(each.seconds for each in measured):.0f}")
    print(f"RESULT peak_mb {max(each.peak_mb for each in measured):.0f}")


def _key(measured: Measured) -> str:
    return measured.stage.replace(" ", "_").replace("-", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000], help="of all files; several sizes in turn")
    parser.add_argument("--task", choices=["QC", "QI"], default="QC")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--learners", default="lexical", help="recipes, comma-separated")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relstack-load-") as temporary:
        root = args.folder or Path(temporary)
        found = {}
        for n_rows in args.rows:
            load = Load(root / str(n_rows), n_rows, args.task, args.folds, tuple(args.learners.split(",")))
            found[n_rows] = folds_together(load.measure())
            print_results(found[n_rows])
        for smaller, larger in pairwise(args.rows):
            print_growth((smaller, larger), found[smaller], found[larger])


if __name__ == "__main__":
    main()
