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
from pipelines.run_folder import RunFolder, read_translations_of, without_labels

if TYPE_CHECKING:
    from pipelines.translation.protocol import Translator
    from pipelines.translation.work import Translating

log = logging.getLogger(__name__)

COLUMNS = ("id", "language", "query", "target", "query_en")
MOST_RECENT = 100_000
WITHOUT_DETECTOR = "pip install 'relstack[langid]' to have them guessed, or give a column `language`"


def columns_of(task: Task) -> dict[str, tuple[str, ...]]:
    """What each of `COLUMNS` may be called in what a user hands over: our name, or that of the task's files."""
    return {
        "id": ("id", task.id),
        "language": ("language", task.language),
        "query": ("query", task.query),
        "target": ("target", task.target),
        "query_en": ("query_en",),
    }


def checked_pairs(
    records: Sequence[Mapping[str, object]], lines: Sequence[int], task: Task, *, name: str
) -> tuple[pd.DataFrame, list[Fault]]:
    """The records as pairs, columns `COLUMNS`, and all that is wrong with them; with faults the frame is of no use.

    `language` and `query_en` are None where they are not given, a missing target is "", a missing id the line.

    Parameters
    ----------
    lines
        Where each record stands, ``(n_records,)``.
    name
        What they stand in.
    """
    values = {
        column: [next((record[name] for name in names if name in record), MISSING) for record in records]
        for column, names in columns_of(task).items()
    }
    faults = [
        Fault(f"{name}:{line}", f"{column} is {'missing' if value is MISSING else describe(value)}", expected)
        for place, line in enumerate(lines)
        for column, (accepts, expected) in EXPECTED.items()
        if not accepts(value := values[column][place])
    ]
    given = {
        "id": [line if _is_nothing(value) else value for line, value in zip(lines, values["id"], strict=True)],
        "language": [value or None if isinstance(value, str) else None for value in values["language"]],
        "query": values["query"],
        "target": ["" if _is_nothing(value) else value for value in values["target"]],
        "query_en": [None if _is_nothing(value) else value for value in values["query_en"]],
    }
    return pd.DataFrame({column: pd.Series(given[column], dtype="object") for column in COLUMNS}), faults


def given_pairs(pairs: pd.DataFrame | Iterable[Mapping[str, object]], task: Task) -> pd.DataFrame:
    """A frame or records as pairs, see `checked_pairs`; a record without an id gets its place, from 1.

    Raises
    ------
    CompetitionError
        With every fault.
    """
    if isinstance(pairs, pd.DataFrame):
        pairs = records_of(pairs)
    records = list(pairs)
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
        names = ", ".join(" or ".join(dict.fromkeys(columns_of(task)[column])) for column in ("query", "target"))
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
