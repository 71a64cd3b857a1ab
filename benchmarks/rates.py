"""Entries of `pipelines/rates.toml` from finished runs of different size, and how well they foretell another run.

    python benchmarks/rates.py --runs RUN-A RUN-B [--source "2026-11-24, ..."]      # prints TOML
    python benchmarks/rates.py --runs RUN-A --foretell RUN-B                        # predicted and actual seconds

Made with ``relstack sample DATA --train-rows 3000 --dev-rows 750 --test-rows 750`` (and 6000, 12000) and ``relstack
run`` with an empty `$RELSTACK_CACHE` each, one thread. A foretelling uses the runs named, else the shipped table.
In such a run memory is that of all base learners so far: `--peaks` names runs whose parts ``relstack train`` made, each
in a process of its own.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipelines.rates import Line, Observation, observed, observed_stages, rate_of
from pipelines.run_folder import RunFolder

LARGE = {"stack": (1_600_000, 1418.0), "blend": (1_000_000, 534.0)}
"""Training rows and seconds of a larger case, as small runs do not tell: one base learner (benchmarks/load.py), and 10
(benchmarks/ensemble_speed.py, CPU seconds of one thread, without reading and the choice of cuts)."""


def learner_entries(runs: Sequence[RunFolder], peaks: Sequence[RunFolder], source: str) -> list[str]:
    """One ``[[learner]]`` entry per task and base learner."""
    measured, alone = by_place(runs), by_place(peaks)
    entries = []
    for (task, learner), parts in measured.items():
        rate = rate_of(parts, None)
        lines = {"fit": rate.fit, "predict": rate.predict, "first": rate.first, "kept": rate.kept}
        lines["memory"] = rate_of(alone.get((task, learner), parts), None).memory
        values = [f"{name} = {numbers(line)}" for name, line in lines.items()]
        words = [f"name = {json.dumps(learner)}", f'task = "{task}"', *values, f"source = {json.dumps(source)}"]
        entries.append("\n".join(["[[learner]]", *words]))
    return entries


def by_place(runs: Sequence[RunFolder]) -> dict[tuple[str, str], list[Observation]]:
    """(Task, base learner) -> the finished parts of all runs."""
    places: dict[tuple[str, str], list[Observation]] = defaultdict(list)
    for run in runs:
        for part in observed(run):
            places[part.key.task, part.key.learner].append(part)
    return places


def stage_entries(runs: Sequence[RunFolder], source: str) -> list[str]:
    """One ``[[stage]]`` entry per stage besides training."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        for stage, point in observed_stages(run).items():
            points[stage].append(point)
    for stage, found in points.items():
        if stage.partition(" ")[0] in LARGE:
            found.append(LARGE[stage.partition(" ")[0]])
    return [
        f'[[stage]]\nname = "{stage}"\nseconds = {numbers(Line.through(found))}\nsource = {json.dumps(source)}'
        for stage, found in points.items()
    ]


def numbers(line: Line) -> list[float]:
    """Fixed part and part per row, four digits each."""
    return [float(f"{value:.4g}") for value in (line.fixed, line.per_row)]


def foretold(run: RunFolder, others: Sequence[RunFolder]) -> pd.DataFrame:
    """Stage, predicted and actual seconds of a finished run, estimated as if it had not begun."""
    from pipelines.planning import plan_run

    settings = run.settings()
    plan = plan_run(RunFolder(run.root / "not-begun"), settings, others)
    predicted: dict[str, float] = defaultdict(float)
    for job in plan:
        predicted[job.group] += job.seconds
    actual: dict[str, float] = defaultdict(float)
    for part in observed(run):
        actual[f"train {part.key.task}/{part.key.learner}"] += part.fit_seconds + part.predict_seconds
    for stage, (_, seconds) in observed_stages(run).items():
        actual[stage] += seconds
    table = pd.DataFrame({"predicted": predicted, "actual": actual}).dropna()
    table.loc["total"] = table.sum()
    table["ratio"] = table["predicted"] / table["actual"]
    return table.round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", default=[], type=Path, help="finished runs")
    parser.add_argument("--foretell", type=Path, help="a finished run to compare the estimate with")
    parser.add_argument("--source", default="measured on this machine", help="what the entries say of themselves")
    parser.add_argument("--peaks", nargs="*", default=[], type=Path, help="runs with a process for every part")
    args = parser.parse_args()
    runs, peaks = ([RunFolder(root) for root in roots] for roots in (args.runs, args.peaks))
    if args.foretell is None:
        print("\n\n".join([*learner_entries(runs, peaks, args.source), *stage_entries(runs, args.source)]))
        return
    table = foretold(RunFolder(args.foretell), runs)
    print(table.to_string())
    largest = table.drop(index="total")["ratio"]
    print(f"RESULT estimate_over_actual_total {table.loc['total', 'ratio']:.2f}")
    print(f"RESULT estimate_over_actual_least {largest.min():.2f}")
    print(f"RESULT estimate_over_actual_most {largest.max():.2f}")


if __name__ == "__main__":
    main()
