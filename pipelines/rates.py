"""Measured rates: what a part of a base learner, or a stage, took per row and besides; from runs, else from a table.

The table ``rates.toml`` comes with relstack; each entry has its source; `benchmarks/rates.py` makes entries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from oof.store import PartKey
from pipelines.config import digest_values, read_toml
from pipelines.networks import networks
from pipelines.run_folder import RunFolder
from pipelines.timing import read_timings
from pipelines.workload import rows_of_parquet

TABLE = Path(__file__).with_name("rates.toml")
PLAIN_STAGES = ("prepare", "split", "leaderboard", "submit")
ENSEMBLES = ("stack", "blend")  # `pipelines.ensembling.DEFAULTS`, which is dear to import
APART = 1.5  # two sizes tell a fixed part from a part per row where one is so many times the other
MIB = 2**20


@dataclass(frozen=True)
class Line:
    """``fixed + per_row * n``: seconds or bytes for n rows.

    Examples
    --------
    >>> Line(2.0, 0.01).at(1000)
    12.0
    """

    fixed: float = 0.0
    per_row: float = 0.0

    def at(self, n_rows: float) -> float:
        """The value for so many rows."""
        return self.fixed + self.per_row * n_rows

    def times(self, factor: float) -> "Line":
        """The line `factor` times as high."""
        return Line(self.fixed * factor, self.per_row * factor)

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]], known: "Line | None" = None) -> "Line":
        """The line nearest to (rows, value) points by relative error, neither part below 0.

        Where the points are of about one size they cannot tell the two parts apart: then `known` is scaled to meet
        them, or without it all is taken as a part per row.

        Examples
        --------
        >>> Line.through([(100, 3.0), (200, 4.0)])
        Line(fixed=2.0, per_row=0.01)
        >>> Line.through([(100, 6.0)], known=Line(2.0, 0.01))
        Line(fixed=4.0, per_row=0.02)
        """
        from scipy.optimize import nnls

        rows, values = (np.array(column, dtype="float64") for column in zip(*points, strict=True))
        if rows.max() < APART * max(rows.min(), 1.0):
            if known is not None and known.at(rows.mean()) > 0:
                return known.times(float(values.mean() / known.at(rows.mean())))
            return cls(0.0, float(values.mean() / max(rows.mean(), 1.0)))
        weights = 1 / np.maximum(values, 1e-3 * max(values.max(), 1e-9))
        design = np.column_stack([weights, rows * weights])
        scale = design.max(axis=0)
        fixed, per_row = nnls(design / scale, values * weights)[0] / scale
        return cls(round(float(fixed), 9), round(float(per_row), 12))


@dataclass(frozen=True)
class Rate:
    """What parts of one base learner take on one task.

    Attributes
    ----------
    fit, predict
        Seconds over rows fitted on, and over rows scored; saving and reading count with fitting.
    first
        Seconds over all rows of the task that the first part takes besides: texts embedded, the corpus looked at.
    kept
        Bytes of a finished part over rows scored.
    memory
        Peak resident MiB over all rows.
    """

    fit: Line = Line()
    predict: Line = Line()
    first: Line = Line()
    kept: Line = Line()
    memory: Line = Line()


@dataclass(frozen=True)
class Observation:
    """One finished part: how many rows, and what it took."""

    key: PartKey
    recipe: Mapping[str, Any]
    device: str
    n_rows: int
    n_fitted: int
    n_scored: int
    fit_seconds: float
    predict_seconds: float
    kept_bytes: int
    peak_mib: float | None

    def made_by(self, recipe: Mapping[str, Any]) -> bool:
        """Whether it was made with this recipe; what else its origin names is not compared."""
        same = {name: value for name, value in self.recipe.items() if name in recipe}
        return digest_values(same) == digest_values(recipe)


@dataclass(frozen=True)
class Table:
    """The rates that come with relstack.

    Attributes
    ----------
    learners
        (Base learner, task) -> rate on one CPU thread.
    stages
        Stage -> seconds over rows of all tasks, or for ensembles over training rows of their task.
    gpu_share
        Share of a GPU's peak that training and scoring reach.
    cpu_flops
        Operations a second of one thread, (training, scoring).
    cards
        Part of a GPU's name -> peak operations a second, bf16 dense.
    """

    learners: Mapping[tuple[str, str], Rate]
    stages: Mapping[str, Line]
    gpu_share: float
    cpu_flops: tuple[float, float]
    cards: Mapping[str, float]
    start_seconds: float


@cache
def shipped() -> Table:
    """The table ``rates.toml``."""
    values = read_toml(TABLE)
    names = ("fit", "predict", "first", "kept", "memory")
    computed = values["computed"]
    return Table(
        learners={
            (entry["name"], entry["task"]): Rate(*(Line(*entry[name]) for name in names)) for entry in values["learner"]
        },
        stages={entry["name"]: Line(*entry["seconds"]) for entry in values["stage"]},
        gpu_share=gpu_share(**computed["gpu"]),
        cpu_flops=(computed["cpu"]["train_gflops"] * 1e9, computed["cpu"]["score_gflops"] * 1e9),
        cards={entry["name"]: entry["tflops"] * 1e12 for entry in values["card"]},
        start_seconds=computed["start"]["seconds"],
    )


def gpu_share(*, network: str, tokens_per_second: float, tflops: float, source: str) -> float:
    """Model operations that training did, as a share of the card's peak: 4 N a token behind adapters."""
    assert source, "a rate names its source"
    return 4.0 * networks()[network].n_linear * tokens_per_second / (tflops * 1e12)


def observed(run: RunFolder) -> list[Observation]:
    """All finished parts of a run, in the order in which they were made."""
    stages = _timings(run)
    found: list[tuple[float, Observation]] = []
    for task in run.tasks():
        counts = {split: rows_of_parquet(run.rows_file(task.name, split)) for split in run.splits(task.name)}
        for path in run.parts.root.glob(f"{task.name}/*/fold-*/manifest.json"):
            if path.parent.suffix == ".partial":
                continue
            key = PartKey(task.name, path.parent.parent.name, int(path.parent.name.removeprefix("fold-")))
            found.append((path.stat().st_mtime, _observation(run, key, counts, stages.get(f"train {key}"))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _observation(
    run: RunFolder, key: PartKey, counts: Mapping[str, int], timing: tuple[float, float] | None
) -> Observation:
    manifest = run.parts.manifest(key)
    folder = run.parts.folder(key)
    seconds = manifest.fit_seconds + manifest.predict_seconds
    if timing is not None:
        seconds = max(seconds, timing[0])
    return Observation(
        key=key,
        recipe=manifest.origin.recipe,
        device="gpu" if manifest.device.startswith("cuda") else "cpu",
        n_rows=sum(counts.values()),
        n_fitted=counts["train"] - manifest.n_oof - int(manifest.details.get("rows_withheld", 0)),
        n_scored=manifest.n_scored,
        fit_seconds=seconds - manifest.predict_seconds,
        predict_seconds=manifest.predict_seconds,
        kept_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        peak_mib=timing and timing[1],
    )


def _timings(run: RunFolder) -> dict[str, tuple[float, float]]:
    """Stage -> seconds and peak MiB of its longest time: the others found their work done."""
    if not run.timings_file.is_file():
        return {}
    table = read_timings(run.timings_file).sort_values("seconds").drop_duplicates("stage", keep="last")
    return dict(zip(table["stage"], zip(table["seconds"], table["peak_mb"], strict=True), strict=True))


def rate_of(parts: Sequence[Observation], known: Rate | None) -> Rate:
    """The rate that parts of one base learner and one task tell, of one run or of several of different size.

    `known`, the rate of the table, tells fixed parts from parts per row where all parts are of one size, and what only
    a first part takes where there is no other.
    """
    known = known or Rate()
    firsts, others = _first_and_others(parts)
    if not others and known != Rate():
        return _scaled(known, firsts)
    rest = others or firsts
    fit = Line.through([(part.n_fitted, part.fit_seconds) for part in rest], known.fit)
    predict = Line.through([(part.n_scored, part.predict_seconds) for part in rest], known.predict)
    peaks = [(part.n_rows, part.peak_mib) for part in parts if part.peak_mib is not None]
    return Rate(
        fit=fit,
        predict=predict,
        first=Line.through([(part.n_rows, _beyond(part, fit, predict)) for part in firsts], known.first),
        kept=Line.through([(part.n_scored, part.kept_bytes) for part in parts], known.kept),
        memory=Line.through(peaks, known.memory) if peaks else known.memory,
    )


def _scaled(known: Rate, firsts: Sequence[Observation]) -> Rate:
    """The known rate, its seconds as many times as high as first parts were."""
    told = sum(known.fit.at(p.n_fitted) + known.predict.at(p.n_scored) + known.first.at(p.n_rows) for p in firsts)
    factor = sum(part.fit_seconds + part.predict_seconds for part in firsts) / max(told, 1e-9)
    seconds = {name: getattr(known, name).times(factor) for name in ("fit", "predict", "first")}
    return replace(known, **seconds)


def _beyond(part: Observation, fit: Line, predict: Line) -> float:
    """Seconds of a first part that others like it do not take."""
    return max(0.0, part.fit_seconds + part.predict_seconds - fit.at(part.n_fitted) - predict.at(part.n_scored))


def _first_and_others(parts: Iterable[Observation]) -> tuple[list[Observation], list[Observation]]:
    """The parts that were made first in their run, and the others; runs are told apart by their rows."""
    seen: set[int] = set()
    firsts: list[Observation] = []
    others: list[Observation] = []
    for part in parts:
        (others if part.n_rows in seen else firsts).append(part)
        seen.add(part.n_rows)
    return firsts, others


def observed_stages(run: RunFolder) -> dict[str, tuple[float, float]]:
    """Stage -> size and seconds, for the stages besides training; the sizes are those of `Table.stages`."""
    timings, tasks = _timings(run), [task.name for task in run.tasks()]
    n_train = {name: rows_of_parquet(run.rows_file(name, "train")) for name in tasks}
    n_all = sum(rows_of_parquet(run.rows_file(name, split)) for name in tasks for split in run.splits(name))
    sizes = dict.fromkeys(PLAIN_STAGES, n_all)
    sizes |= {f"{name} {task}": rows for task, rows in n_train.items() for name in ENSEMBLES}
    return {stage: (float(size), timings[stage][0]) for stage, size in sizes.items() if stage in timings}
