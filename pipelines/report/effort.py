"""What a run cost: time and memory of its jobs, and what each base learner's parts were made on."""

import pandas as pd

from oof.store import PartKey
from pipelines.report.blocks import Block, Note, Section, Words, table_of
from pipelines.report.views import TaskView
from pipelines.run_folder import RunFolder
from pipelines.timing import duration, read_timings, timing_table

SECONDS: dict[str, Words] = {"seconds": "{:,.1f}".format, "peak_mb": "{:,.0f}".format}


def effort_section(run: RunFolder, views: list[TaskView]) -> Section:
    """Seconds and peak memory of every stage, and of every job."""
    table = timing_table(run)
    if table.empty:
        return Section("effort", "Time and memory", "", (Note("This run has no timings.csv."), *_parts(views)))
    total = float(table["seconds"].sum())
    lead = f"{duration(total)} in all, {table['peak_mb'].max():,.0f} MB at the most."
    jobs = read_timings(run.timings_file)
    blocks: tuple[Block, ...] = (
        table_of(table, "Per stage, folds together", words=SECONDS, tinted=["seconds"], style="bars"),
        table_of(jobs, "Every job, in the order of the work", words=SECONDS, folded=True),
        *_parts(views),
    )
    return Section("effort", "Time and memory", lead, blocks)


def _parts(views: list[TaskView]) -> tuple[Block, ...]:
    lines = [_part(view, name) for view in views for name in view.train.learners]
    words = {"fit_seconds": SECONDS["seconds"], "rows_per_second": SECONDS["peak_mb"]}
    return (table_of(pd.DataFrame(lines), "Base learners, all folds", words=words),) if lines else ()


def _part(view: TaskView, name: str) -> dict[str, object]:
    folds = sorted(set(view.train.fold.tolist()))
    parts = [view.run.parts.manifest(PartKey(view.task.name, name, fold)) for fold in folds]
    return {
        "base_learner": name,
        "task": view.task.name,
        "fit_seconds": sum(part.fit_seconds for part in parts),
        "rows_per_second": view.gathered.rates[name],
        "device": ", ".join(sorted({part.device for part in parts})),
    }
