"""The report stage: everything about a finished run in one HTML file."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from competition.artefacts import write_text
from competition.errors import CompetitionError, Fault
from competition.progress import progress
from pipelines.report import N_ROWS
from pipelines.report.auditing import audit_section
from pipelines.report.blocks import Section
from pipelines.report.browsing import Choice, Pool, choose_rows, packed, pool_of
from pipelines.report.cutting import calibration_section, learning_section, threshold_section
from pipelines.report.effort import effort_section
from pipelines.report.members import agreement_section, ensemble_section
from pipelines.report.quality import breakdown_section, confusion_section, leaderboard_section
from pipelines.report.rendering import Browsed, Page, render
from pipelines.report.students import student_section
from pipelines.report.views import TaskView, views_of
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

SECTIONS: tuple[Callable[[TaskView], Section], ...] = (
    leaderboard_section,
    student_section,
    breakdown_section,
    confusion_section,
    agreement_section,
    ensemble_section,
    threshold_section,
    calibration_section,
    learning_section,
    audit_section,
)
"""What is said of every task, in the order of the page; one without blocks is left out. A new section is an entry."""

MB = 1e6


def report(run: RunFolder, *, out: Path | None = None, n_rows: int = N_ROWS) -> Path:
    """The path of the report, written whole or not at all; ``report.html`` in the run folder unless `out` is given.

    Parameters
    ----------
    n_rows
        How many rows the error browser takes along, over all tasks.

    Raises
    ------
    CompetitionError
        No task has a base learner with all its parts, or `n_rows` is negative.
    """
    if n_rows < 0:
        raise CompetitionError("this report cannot be", faults=[Fault("--rows", f"{n_rows}", "0 or more")])
    text = render(make_page(run, n_rows=n_rows))
    path = out or run.report_file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    log.info("report: %.1f MB, %s", path.stat().st_size / MB, path)
    return path


def make_page(run: RunFolder, *, n_rows: int) -> Page:
    """What the report of a run says."""
    views, bare = views_of(run)
    if not views:
        raise CompetitionError(
            f"{run.root} has nothing to report: no base learner has all its parts",
            advice=f"see what is missing: relstack status --run {run.root}",
        )
    rows = _rows(views, n_rows, seed=run.settings().seed)
    tasks: dict[str, tuple[Section, ...]] = {}
    with progress("report sections", total=len(views) * len(SECTIONS)) as advance:
        for view in views:
            made = []
            for section in SECTIONS:
                made.append(section(view))
                advance(1)
            tasks[view.task.name] = tuple(each for each in made if each.blocks)
    return Page(
        title=run.root.resolve().name,
        facts=_facts(run, views),
        tasks=tasks,
        bare=tuple(task.name for task in bare),
        effort=effort_section(run, views),
        browsed=tuple(Browsed(pool.task, len(choice.positions), len(pool.rows), choice.kinds) for pool, choice in rows),
        rows=packed(rows),
    )


def _rows(views: Sequence[TaskView], n_rows: int, *, seed: int) -> tuple[tuple[Pool, Choice], ...]:
    """The rows of every task; tasks share the room evenly, and a small one leaves the rest of its share to others."""
    pools = sorted((pool_of(view) for view in views), key=lambda pool: len(pool.rows))
    chosen, left = {}, n_rows
    for place, pool in enumerate(pools):
        choice = choose_rows(pool, min(left // (len(pools) - place), len(pool.rows)), seed=seed)
        left -= len(choice.positions)
        chosen[pool.task] = (pool, choice)
    return tuple(chosen[view.task.name] for view in views)


def _facts(run: RunFolder, views: Sequence[TaskView]) -> tuple[tuple[str, str], ...]:
    """What the head of the page says of the run."""
    settings = run.settings()
    rows = ", ".join(f"{view.task.name} {view.train.n_rows:,}" for view in views)
    plans = ", ".join(dict.fromkeys(run.folds(view.task.name).plan.kind for view in views))
    learners = list(dict.fromkeys(name for view in views for name in view.train.learners))
    return (
        ("training rows", rows),
        ("folds", f"{settings.folds}, {plans}"),
        ("base learners", ", ".join(learners)),
        ("seed", str(settings.seed)),
    )
