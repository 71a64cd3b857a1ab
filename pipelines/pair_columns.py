"""What the fields of new pairs may be called: our names, or those of the contest's files, whose values become ours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from competition.errors import Fault
from competition.mapping import comma_path, one_text
from competition.raw_rows import MISSING, describe
from competition.tasks import Task

COLUMNS = ("id", "language", "query", "target", "query_en")
NEEDED = ("query", "target")

Fields = tuple[str, ...]


@dataclass(frozen=True)
class PairFault(Fault):
    """What is wrong with one field of one pair.

    Attributes
    ----------
    line
        Of the pair, in what it stands in.
    field
        As whoever wrote the pair calls it.
    """

    line: int = 0
    field: str = ""


@dataclass(frozen=True)
class PairColumns:
    """The fields that the columns of a task's pairs are made of."""

    task: Task

    @cached_property
    def contests(self) -> dict[str, Fields]:
        """Column -> the fields of the contest's files that make it; none where the files do not have it."""
        task, layout = self.task, self.task.layout
        return {
            "id": () if layout.id_from_line else (task.id,),
            "language": () if layout.language_is else (task.language,),
            "query": (task.query,),
            "target": layout.targets or (task.target,),
            "query_en": (),
        }

    @cached_property
    def ways(self) -> dict[str, tuple[Fields, ...]]:
        """Column -> each way to give it, ours first; a name of ours that the contest means otherwise is its own."""
        task = self.task
        found = {}
        for column, own in self.contests.items():
            others = {name for other, fields in self.contests.items() if other != column for name in fields}
            others |= {task.label, task.task, task.layout.group}
            mine = () if column in others - {*own} else ((column,),)
            found[column] = tuple(dict.fromkeys((*mine, *([own] if own else []))))
        return found

    @property
    def known(self) -> set[str]:
        """All fields that are looked at."""
        return {name for ways in self.ways.values() for fields in ways for name in fields}

    def words(self, column: str) -> str:
        """How a column may be given, in the words of a message."""
        return " or ".join(" with ".join(fields) for fields in self.ways[column])

    def present(self, column: str, names: Iterable[str]) -> list[Fields]:
        """The ways by which a record or header with these names gives the column."""
        there = {*names}
        return [fields for fields in self.ways[column] if not there.isdisjoint(fields)]

    def twice(self, names: Iterable[str]) -> list[str]:
        """The columns that a record or header with these names gives in two ways, as messages say it."""
        given = {column: self.present(column, names) for column in COLUMNS}
        return [" and ".join(map(" with ".join, found)) for found in given.values() if len(found) > 1]

    def header_faults(self, names: Sequence[str], where: str) -> list[Fault]:
        """What is wrong with a header: a column is lacking, stands twice, or is given in two ways."""
        beside = f"it beside {', '.join(names)}"
        lacking = [column for column in NEEDED if not any({*fields} <= {*names} for fields in self.ways[column])]
        return [
            *(Fault(where, f"there is no column {self.words(column)}", beside) for column in lacking),
            *(
                Fault(where, f"column {name!r} stands {names.count(name)} times in the header", "once")
                for name in dict.fromkeys(names)
                if name in self.known and names.count(name) > 1
            ),
            *(Fault(where, f"there are {words}, which mean the same", "one of them") for words in self.twice(names)),
        ]

    def is_contests(self, names: Iterable[str]) -> bool:
        """Whether query and target are called as in the contest's files."""
        return all({*self.contests[column]} <= {*names} for column in NEEDED)

    def value(self, column: str, fields: Fields, record: Mapping[str, object]) -> object:
        """The value of a column, made of these fields of a record as the contest's rows are."""
        layout, task = self.task.layout, self.task
        if len(fields) > 1:
            return one_text([record.get(name, MISSING) for name in fields], layout.separator)
        value = record[fields[0]]
        if not isinstance(value, str) or fields != self.contests[column]:
            return value
        if column == "language":
            return layout.languages.get(value, value)
        if column == "target" and task.target_is_category and layout.category_separator != ",":
            return comma_path(value, layout.category_separator)
        return value

    def strange_language(self, fields: Fields, record: Mapping[str, object]) -> tuple[str, str] | None:
        """What is found and was expected, where the contest's language column holds a value that it does not know."""
        known = self.task.layout.languages
        value = record[fields[0]]
        if not known or fields != self.contests["language"] or not isinstance(value, str):
            return None
        return None if value in known or not value else (describe(value), f"one of {', '.join(known)}")
