"""Students of a task: what was distilled from its ensembles, and how good it is where that can be told."""

import pandas as pd

from pipelines.distilling import students
from pipelines.report.blocks import Section, Words, table_of
from pipelines.report.views import TaskView
from pipelines.scoreboard import student_entry

WORDS: dict[str, Words] = {"rows per second": "{:,.0f}".format}


def student_section(view: TaskView) -> Section:
    """Every student of the task as on the leaderboard; a section without blocks where there is none."""
    names = students(view.run, view.task.name)
    entries = [student_entry(view.run, view.task, name, view.gathered.frames) for name in names]
    frame = pd.DataFrame(
        {
            "model": [each.name for each in entries],
            "F1 on dev": [each.dev_f1 for each in entries],
            "in languages of train": [each.dev_f1_seen_languages for each in entries],
            "cut": [each.threshold for each in entries],
            "rows per second": [each.rows_per_second for each in entries],
        }
    )
    frame = frame.astype(dict.fromkeys(frame.columns[1:], float))
    lead = "A student has learnt from all rows of train: it has no out-of-fold F1, labelled rows of dev alone judge it."
    blocks = (table_of(frame, f"Students of {view.task.name}", words=WORDS),) if entries else ()
    return Section("students", "Students", lead, blocks)
