"""Leaks and shift: verdicts on the rows of a task as the run has them, and what its folds share."""

import numpy as np
import pandas as pd

from competition.fold_report import compare_overlaps, fold_report
from competition.verdicts import LEVELS, Audited, Subject
from pipelines.check import AUDITS
from pipelines.report.blocks import Cell, Note, Section, Table, share, table_of
from pipelines.report.views import TaskView

ASKED = (
    "conflicting labels",
    "what dev shares with train",
    "what test shares with train",
    "rows per language",
    "category shift",
    "category coverage",
    "near-duplicates",
    "label prior per language",
    "train or test",
    "expected F1",
)
"""The audits of `relstack check` that bear on how far the figures of a finished run can be trusted."""


def audit_section(view: TaskView) -> Section:
    """Verdicts on leaks and shift, and the folds of the run."""
    subject = subject_of(view)
    found = [audited for audit in AUDITS if audit.name in ASKED and (audited := audit.look(subject)) is not None]
    worst = max((each.verdict.level for each in found), key=LEVELS.index, default="ok")
    told = sum(each.verdict.level == worst for each in found)
    lead = "Nothing found." if worst == "ok" else f"{told} of {len(found)} points are a {worst}."
    source = Note("Of the run's cleaned rows; a place like train:17 is the 17th of them. The files: relstack check.")
    return Section("audit", "Leaks and shift", lead, (_verdict_table(found), source, *fold_tables_of(view)))


def subject_of(view: TaskView) -> Subject:
    """The rows of the run as audits see them."""
    rows = {
        split: frame.assign(line=np.arange(1, len(frame) + 1), null_target=False)
        for split, frame in view.run.rows(view.task.name).items()
    }
    return Subject(view.task, rows, {split: split for split in rows})


def fold_tables_of(view: TaskView) -> tuple[Table, ...]:
    """Rows and positives per fold; what held-out rows share with what their models were trained on."""
    rows, folds = view.run.rows(view.task.name), view.run.folds(view.task.name)
    report = fold_report(rows["train"], folds.dealt(rows["train"]), plan=folds.plan, task=view.task)
    overlaps = compare_overlaps(report, rows, task=view.task)
    shares = {name: share for name in overlaps.columns if name != "key"}
    return (
        table_of(report.folds, f"Folds by {folds.plan.kind}", words={"positive_rate": share}),
        table_of(
            overlaps, "Share of rows whose key stands in what the models were trained on", words=shares, folded=True
        ),
    )


def _verdict_table(found: list[Audited]) -> Table:
    verdicts = [each.verdict for each in found]
    table = table_of(
        pd.DataFrame(
            {
                "point": [each.point for each in verdicts],
                "verdict": [each.level for each in verdicts],
                "found": [each.found for each in verdicts],
                "advice": [each.advice for each in verdicts],
            }
        ),
        "Verdicts",
    )
    rows = tuple(
        (point, Cell(verdict.text, tone=each.level), *words)
        for (point, verdict, *words), each in zip(table.rows, verdicts, strict=True)
    )
    return Table(table.caption, table.head, rows, table.numeric, style="stacked")
