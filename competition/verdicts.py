"""Verdicts: what an audit of a task's rows comes to, in one sentence, with the table behind it.

An audit is a name and a function of one task's rows by split (`Subject`) that gives a verdict and a table, or None
where the question does not arise. `pipelines.check` lists them all; a new one is one more entry in that list.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from competition.tasks import Task

Level = Literal["ok", "note", "warning", "fault"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "fault")
"""From harmless to what must be mended before anything else works."""

N_PLACES = 20
"""How many places a table names for one kind of oddity; it counts all."""
N_KINDS = 3
"""How many kinds of oddity a verdict's sentence names."""


@dataclass(frozen=True)
class Verdict:
    """What an audit found, and what to do about it.

    Attributes
    ----------
    point
        What was looked at.
    found
        One sentence with the figures.
    advice
        What to do next; "" where there is nothing to do.
    """

    point: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, eq=False)
class Audited:
    """A verdict and the table behind it, which may be empty."""

    verdict: Verdict
    table: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True, eq=False)
class Subject:
    """One task's rows as audits see them.

    Attributes
    ----------
    rows
        Split -> its sound rows: ``id, language, query, query_en, target, label, line, null_target``. A null target
        is "" in ``target``; ``query_en`` is "" where no translation is known; train is there and has rows.
    names
        Split -> the name of its file.
    """

    task: Task
    rows: Mapping[str, pd.DataFrame]
    names: Mapping[str, str]

    @property
    def judged(self) -> str | None:
        """The split that the leaderboard scores: test, or dev without a test, or None."""
        return next((split for split in ("test", "dev") if split in self.rows), None)

    def place(self, split: str, line: int) -> str:
        """Where a row stands: ``train_QC.txt:17``."""
        return f"{self.names[split]}:{line}"

    def places(self, split: str, rows: pd.DataFrame) -> list[str]:
        """Where each of `rows` of `split` stands."""
        return [self.place(split, line) for line in rows["line"]]


@dataclass(frozen=True)
class Audit:
    """A question about a task's rows, and the function that answers it."""

    name: str
    look: Callable[[Subject], Audited | None]


@dataclass(frozen=True)
class Oddity:
    """A kind of oddity, how much it matters, and all the places where it was seen."""

    kind: str
    level: Level
    places: Sequence[str]
    advice: str = ""


def verdict_on(point: str, oddities: Iterable[Oddity], *, fine: str) -> Audited:
    """The verdict on what was found at named places: `fine` where nothing was; the table has one line per kind.

    Examples
    --------
    >>> print(verdict_on("texts", [Oddity("an empty query", "note", ["dev_QC.txt:3"])], fine="no gaps").verdict.found)
    an empty query: 1 (dev_QC.txt:3)
    """
    seen = [oddity for oddity in oddities if oddity.places]
    if not seen:
        return Audited(Verdict(point, "ok", fine))
    seen.sort(key=lambda oddity: (-LEVELS.index(oddity.level), -len(oddity.places)))
    words = [f"{o.kind}: {len(o.places):,} ({name_places(o.places, limit=1)})" for o in seen[:N_KINDS]]
    more = f"; and {len(seen) - N_KINDS} kinds more" if len(seen) > N_KINDS else ""
    table = pd.DataFrame(
        [
            {"kind": o.kind, "level": o.level, "rows": len(o.places), "where": name_places(o.places, limit=N_PLACES)}
            for o in seen
        ]
    )
    advice = next((o.advice for o in seen if o.advice), "")
    return Audited(Verdict(point, seen[0].level, "; ".join(words) + more, advice), table)


def name_places(places: Sequence[str], *, limit: int) -> str:
    """The first `limit` places.

    Examples
    --------
    >>> name_places(["train_QC.txt:1", "train_QC.txt:5", "dev_QC.txt:2"], limit=2)
    'train_QC.txt:1, train_QC.txt:5, ...'
    """
    return ", ".join(places[:limit]) + (", ..." if len(places) > limit else "")
