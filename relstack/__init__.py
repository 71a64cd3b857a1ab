"""relstack in Python: what the command line does, as objects that notebooks show.

>>> import relstack as rs                                                          # doctest: +SKIP
>>> rs.sample("demo/data")                                                         # doctest: +SKIP
>>> run = rs.Run.create("demo/run", data="demo/data", folds=4)                     # doctest: +SKIP
>>> run.split()                                                                    # doctest: +SKIP
>>> run.train("QI", "lexical")                                                     # doctest: +SKIP
>>> run.ensemble("QI", "stack")                                                    # doctest: +SKIP
>>> run.leaderboard()                                                              # doctest: +SKIP
>>> rs.Ensemble.load(run, "QI").score([{"query": "red shoes", "target": "shoes"}]) # doctest: +SKIP

Importing it costs nothing: names are looked up when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from competition.errors import CompetitionError, Fault
    from competition.folds import FoldPlan
    from competition.tasks import QC, QI, Task
    from pipelines.api import Ensemble, Run, Student, check, sample
    from submissions.leaderboard import Leaderboard

__all__ = [
    "QC",
    "QI",
    "CompetitionError",
    "Ensemble",
    "Fault",
    "FoldPlan",
    "Leaderboard",
    "Run",
    "Student",
    "Task",
    "check",
    "sample",
]

_HOMES = {
    "competition.errors": ("CompetitionError", "Fault"),
    "competition.folds": ("FoldPlan",),
    "competition.tasks": ("QC", "QI", "Task"),
    "pipelines.api": ("Ensemble", "Run", "Student", "check", "sample"),
    "submissions.leaderboard": ("Leaderboard",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'relstack' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
