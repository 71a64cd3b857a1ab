"""Pairs that no file of the run has: checked, cleaned and translated as the run's own rows were."""

import logging
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from competition.cleaning import clean, map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.languages import UNKNOWN, relabel_unknown
from competition.raw_rows import MISSING, describe
from competition.tasks import Task
from pipelines.pair_columns import COLUMNS, NEEDED, Fields, PairColumns, PairFault
from pipelines.run_folder import RunFolder, read_translations_of, without_labels

if TYPE_CHECKING:
    from pipelines.translation.protocol import Translator
    from pipelines.translation.work import Translating

log = logging.getLogger(__name__)

MOST_RECENT = 100_000
WITHOUT_DETECTOR = "pip install 'relstack[langid]' to have them guessed, or give a column `language`"


def checked_pairs(
    records: Sequence[Mapping[str, object]], lines: Sequence[int], task: Task, *, name: str
) -> tuple[pd.DataFrame, list[Fault]]:
    """The records as pairs, columns `COLUMNS`, and all that is wrong with them; with faults the frame is of no use.

    `language` and `query_en` are None where they are not given, a missing target is "", a missing id the line. Fields
    that are called as in the contest's files become what they become there: a language's code, a target of several.

    Parameters
    ----------
    lines
        Where each record stands, ``(n_records,)``.
    name
        What they stand in.
    """
    columns = PairColumns(task)
    values: dict[str, list[object]] = {column: [] for column in COLUMNS}
    faults: list[Fault] = []
    plans: dict[tuple[str, ...], dict[str, list[Fields]]] = {}
    for line, record in zip(lines, records, strict=True):
        keys = tuple(record)
        plan = plans.get(keys) or plans.setdefault(keys, {each: columns.present(each, keys) for each in COLUMNS})
        for column, ways in plan.items():
            value = columns.value(column, ways[0], record) if ways else MISSING
            values[column].append(value)
            if told := _told(columns, column, ways, record, value):
                faults.append(PairFault(f"{name}:{line}", f"{told[0]} {told[1]}", told[2], line, told[0]))
    unnamed = task.layout.language_is or None
    given = {
        "id": [line if _is_nothing(value) else value for line, value in zip(lines, values["id"], strict=True)],
        "language": [value if isinstance(value, str) and value else unnamed for value in values["language"]],
        "query": values["query"],
        "target": ["" if _is_nothing(value) else value for value in values["target"]],
        "query_en": [None if _is_nothing(value) else value for value in values["query_en"]],
    }
    return pd.DataFrame({column: pd.Series(given[column], dtype="object") for column in COLUMNS}), faults


def _told(
    columns: PairColumns, column: str, ways: Sequence[Fields], record: Mapping[str, object], value: object
) -> tuple[str, str, str] | None:
    """The field, what is wrong with it, and what was expected; None if nothing is."""
    if len(ways) > 1:
        first, *others = (" with ".join(fields) for fields in ways)
        return first, f"stands beside {' and '.join(others)}, which means the same", "one of them"
    field = " with ".join(ways[0]) if ways else column
    if column == "language" and ways and (strange := columns.strange_language(ways[0], record)):
        return field, f"is {strange[0]}", strange[1]
    accepts, expected = EXPECTED[column]
    if accepts(value):
        return None
    return field, "is missing" if value is MISSING else f"is {describe(value)}", expected


def given_pairs(pairs: pd.DataFrame | Iterable[Mapping[str, object]], task: Task) -> pd.DataFrame:
    """A frame or records as pairs, see `checked_pairs`; a record without an id gets its place, from 1.

    Raises
    ------
    CompetitionError
        With every fault.
    """
    if isinstance(pairs, pd.DataFrame):
        columns, names = PairColumns(task), [str(name) for name in pairs.columns]
        refuse(columns.header_faults(names, "the frame"), task)
        pairs = records_of(pairs)
    if isinstance(pairs, Mapping | str | bytes) or not isinstance(pairs, Iterable):
        refuse(
            [
                Fault(
                    "pairs",
                    "one record" if isinstance(pairs, Mapping) else describe(pairs),
                    "a list of records, a data frame, or the path of a file",
                )
            ],
            task,
        )
    records = list(pairs)
    strangers = [
        Fault(f"pair:{line}", f"it is {describe(record)}", "a record: {'query': ..., 'target': ...}")
        for line, record in enumerate(records, start=1)
        if not isinstance(record, Mapping)
    ]
    refuse(strangers, task)
    found, faults = checked_pairs(records, range(1, len(records) + 1), task, name="pair")
    refuse(faults, task)
    return found


def records_of(frame: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a frame as plain values; None where there is no value."""
    plain = frame.astype("object").where(frame.notna(), None)
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.itertuples(index=False, name=None)]


def refuse(faults: Sequence[Fault], task: Task) -> None:
    """Raise what is wrong with pairs, if anything is."""
    if faults:
        names = " and ".join(map(PairColumns(task).words, NEEDED))
        advice = f"every pair has {names}; language, query_en and id may be left out"
        raise CompetitionError("these pairs cannot be scored", faults=faults, advice=advice)


@dataclass(frozen=True, eq=False)
class Preparation:
    """Turns pairs into rows as the run's own.

    Attributes
    ----------
    cleaning
        The preset.
    relabels
        Queries that say English and are not become ``unk``.
    languages
        Those of the run: one of them is guessed where none is given.
    english
        (language, normalised query) -> English, of the run.
    recent
        The same, of up to `MOST_RECENT` queries that were translated since; those before are in the cache on the disk.
    work
        What queries that the run has no translation of are translated with; without it they have none.
    """

    task: Task
    cleaning: str
    relabels: bool
    languages: tuple[str, ...]
    english: dict[tuple[str, str], str] = field(repr=False)
    work: "Translating | None" = None
    recent: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, run: RunFolder, task: Task, *, work: "Translating | None" = None) -> "Preparation":
        """That of a run."""
        settings = run.settings()
        languages = {str(code) for rows in run.rows(task.name).values() for code in rows["language"].unique()}
        english: dict[tuple[str, str], str] = {}
        if run.translations_file.is_file():
            table = read_translations_of(run)
            keys = zip(table["language"], table["query"], strict=True)
            english = dict(zip(keys, table["query_en"], strict=True))
        chosen = tuple(sorted(languages - {UNKNOWN}))
        return cls(task, settings.cleaning, settings.relabel_unknown, chosen, english, work)

    def rows(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Rows without labels, as backbones and combiners see them; `id` is the place among `pairs`."""
        texts = {name: pairs[name].astype("str") for name in ("query", "target")}
        language = self._languages(pairs["language"], texts["query"])
        raw = pd.DataFrame({"id": np.arange(len(pairs)), "language": language, **texts, "label": pd.NA})
        rows = clean(raw, self.cleaning, self.task, may_drop=False)
        rows["query_en"] = self._english(rows, pairs["query_en"])
        if self.relabels:
            rows = rows.assign(raw_language=rows["language"], language=relabel_unknown(rows))
        return without_labels(rows)

    def _languages(self, given: pd.Series, queries: pd.Series) -> pd.Series:
        unknown = given.isna()
        if not unknown.any():
            return given.astype("str")
        return given.where(~unknown, self._guessed(queries[unknown])).astype("str")

    def _guessed(self, queries: pd.Series) -> pd.Series:
        from pipelines.language_id import identify

        if not _has_detector():
            return pd.Series(UNKNOWN, index=queries.index)
        return identify(queries, self.languages)["language"]

    def _english(self, rows: pd.DataFrame, given: pd.Series) -> pd.Series:
        keys = list(zip(rows["language"], map_distinct(rows["query"], normalise_query), strict=True))
        known = ChainMap(self.recent, self.english)
        if self.work is not None:
            asked = given.isna().to_numpy()
            unknown = [place for place, key in enumerate(keys) if asked[place] and key not in known]
            if unknown:
                self._translate(rows.iloc[unknown])
        texts = [known.get(key, "") if own is None else str(own) for key, own in zip(keys, given.tolist(), strict=True)]
        while len(self.recent) > MOST_RECENT:
            del self.recent[next(iter(self.recent))]
        return pd.Series(texts, index=rows.index, dtype="str")

    def _translate(self, rows: pd.DataFrame) -> None:
        from pipelines.translation.stage import distinct_queries, translate_queries

        assert self.work is not None, "asked for with a recipe alone"
        found = translate_queries(
            distinct_queries([rows]), self.work, english=self.relabels, translator=self._translator
        )
        keys = zip(found["language"], found["query"], strict=True)
        self.recent.update(zip(keys, found["query_en"], strict=True))

    @cached_property
    def _translator(self) -> "Translator":
        assert self.work is not None, "asked for with a recipe alone"
        return self.work.translator()


@cache
def _has_detector() -> bool:
    """Whether languages can be guessed; if not, that is said, once."""
    found = find_spec("lingua") is not None
    if not found:
        log.warning("queries without a language count as %s: %s", UNKNOWN, WITHOUT_DETECTOR)
    return found


def _is_nothing(value: object) -> bool:
    return value is None or value is MISSING


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON may spell half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_id(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and value != "" and _is_unicode(value))


def _is_query(value: object) -> bool:
    return isinstance(value, str) and value.strip() != "" and _is_unicode(value)


EXPECTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "id": (lambda value: _is_nothing(value) or _is_id(value), "a whole number or text, or no id at all"),
    "language": (lambda value: _is_nothing(value) or _is_text(value), "text, or nothing: then it is guessed"),
    "query": (_is_query, "text"),
    "target": (lambda value: value is None or _is_text(value), "text or null"),
    "query_en": (lambda value: _is_nothing(value) or _is_text(value), "text, or nothing"),
}
