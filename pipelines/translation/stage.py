"""``relstack translate``: the distinct queries of a competition or of a run, translated to English."""

import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from competition.artefacts import replacing
from competition.cleaning import PRESETS, clean_text, map_distinct, normalise_query
from competition.contest import BUILT_IN_CONTEST, Contest
from competition.languages import ENGLISH, UNKNOWN
from competition.rows import read_competition
from pipelines.prepare import TRANSLATION_COLUMNS, keep_translations
from pipelines.run_folder import RunFolder, read_split
from pipelines.translation.quality import quality_table
from pipelines.translation.work import Translating, translate_pairs

log = logging.getLogger(__name__)


def queries_of_data(folder: Path, tasks: Sequence[str], *, contest: Contest = BUILT_IN_CONTEST) -> pd.DataFrame:
    """The distinct queries of a competition's files, see `distinct_queries`."""
    data = read_competition(folder, [contest.task(name) for name in tasks])
    return distinct_queries(rows for splits in data.values() for rows in splits.values())


def queries_of_run(run: RunFolder) -> pd.DataFrame:
    """The distinct queries of a run, see `distinct_queries`."""
    return distinct_queries(
        read_split(run, task.name, split) for task in run.tasks() for split in run.splits(task.name)
    )


def distinct_queries(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Every (language, normalised query) once, sorted: ``language, query``, and the ``text`` to translate.

    The text is the query in lower case with single spaces; of several that are the same query when normalised, the
    first in the order of the alphabet. Queries without a text are left out.
    """
    pairs = pd.concat([frame[["language", "query"]].drop_duplicates() for frame in frames], ignore_index=True)
    pairs = pairs.rename(columns={"query": "text"}).drop_duplicates(ignore_index=True)
    texts = map_distinct(pairs["text"], lambda text: clean_text(text, PRESETS["winner"]))
    queries = pd.DataFrame(
        {"language": pairs["language"], "query": map_distinct(texts, normalise_query), "text": texts}
    )
    queries = queries[queries["query"] != ""].sort_values(["language", "query", "text"])
    return queries.drop_duplicates(["language", "query"], ignore_index=True)


def translate_queries(queries: pd.DataFrame, work: Translating, *, english: bool = False) -> pd.DataFrame:
    """The queries with ``query_en``, "" where there is no translation.

    Parameters
    ----------
    english
        Translate queries marked English too, as of a language that nobody knows (see
        `competition.languages.relabel_unknown`); only MADLAD can. Others leave them as they are.
    """
    languages = queries["language"].where(queries["language"] != ENGLISH, UNKNOWN) if english else queries["language"]
    translations = translate_pairs(queries.assign(language=languages), work)
    untouched = (queries["language"] == ENGLISH) & (translations == "")
    return queries.assign(query_en=translations.where(~untouched, queries["text"]))


def write_translations(translated: pd.DataFrame, path: Path) -> None:
    """A CSV file as ``relstack run --translations`` reads it; queries without a translation are left out."""
    has_one = translated[translated["query_en"] != ""]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(TRANSLATION_COLUMNS)
        table.writerows(has_one[["language", "text", "query_en"]].itertuples(index=False))
    log.info("%s: %s translations", path, f"{len(has_one):,}")


def translate_run(run: RunFolder, work: Translating, *, english: bool = False) -> pd.DataFrame:
    """`translate_queries` of a run, kept as its ``translations.parquet``.

    Raises
    ------
    MismatchError
        The run has other translations.
    """
    translated = translate_queries(queries_of_run(run), work, english=english)
    has_one = translated[translated["query_en"] != ""]
    keep_translations(has_one[["language", "query", "query_en"]].reset_index(drop=True), run)
    return translated


def translation_table(translated: pd.DataFrame, references: pd.DataFrame | None) -> pd.DataFrame:
    """Per language: distinct queries, those that stayed as they are, those without a translation; chrF if it can be."""
    marked = translated.assign(
        unchanged=translated["query_en"] == translated["text"], without=translated["query_en"] == ""
    )
    by_language = marked.groupby("language", sort=True)
    table = by_language.agg(queries=("query", "size"), unchanged=("unchanged", "sum"), without=("without", "sum"))
    table = table.reset_index()
    return table if references is None else table.merge(quality_table(translated, references), how="left")
