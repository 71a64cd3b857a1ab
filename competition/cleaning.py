"""Cleaning: named presets that turn a file's texts into what models see, and what repeats among the rows."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from competition.categories import SEPARATOR
from competition.errors import CompetitionError
from competition.mapping import GROUP
from competition.rows import COLUMNS
from competition.tasks import Task

WHITESPACE = re.compile(r"\s+")
N_LISTED = 20
"""How many conflicting or repeated pairs a report lists; it counts all."""


@dataclass(frozen=True)
class Cleaning:
    """What a preset does to queries and targets."""

    strip: bool
    collapse_spaces: bool
    lower_case: bool
    drop_empty_queries: bool


PRESETS = {
    "none": Cleaning(strip=False, collapse_spaces=False, lower_case=False, drop_empty_queries=False),
    "winner": Cleaning(strip=True, collapse_spaces=True, lower_case=True, drop_empty_queries=True),
}
"""Preset name -> what it does. "winner" is the cleaning of the CIKM 2025 AnalytiCup winner."""


def get_preset(name: str) -> Cleaning:
    """The preset called `name`.

    Raises
    ------
    CompetitionError
        There is none of that name.
    """
    if name not in PRESETS:
        raise CompetitionError(f"no cleaning preset is called {name!r}", advice=f"name one of {', '.join(PRESETS)}")
    return PRESETS[name]


def clean_text(text: str, cleaning: Cleaning) -> str:
    """`text` as models see it.

    Examples
    --------
    >>> clean_text("  Red   SHOES ", PRESETS["winner"])
    'red shoes'
    >>> clean_text("  Red   SHOES ", PRESETS["none"])
    '  Red   SHOES '
    """
    if cleaning.collapse_spaces and cleaning.strip:
        text = " ".join(text.split())  # 4 times faster than the two steps below
    elif cleaning.collapse_spaces:
        text = WHITESPACE.sub(" ", text)
    elif cleaning.strip:
        text = text.strip()
    return text.lower() if cleaning.lower_case else text


def clean_path(path: str, cleaning: Cleaning) -> str:
    """The category path `path` as models see it: level by level, so that it keeps its number of levels.

    Examples
    --------
    >>> clean_path(" Home ,Kitchen,  Dining &  Bar,\\tPans", PRESETS["winner"])
    'home,kitchen, dining & bar,pans'
    """
    if not (cleaning.strip or cleaning.collapse_spaces):
        return clean_text(path, cleaning)
    # A level that begins with a space would join the one before it, and a comma at its end, which the space
    # after it made part of the name, would become a separator.
    names = [clean_text(name, cleaning).strip().rstrip(", ") for name in SEPARATOR.split(path)]
    return ",".join(names)


def clean(rows: pd.DataFrame, preset: str, task: Task, *, may_drop: bool) -> pd.DataFrame:
    """The rows with clean `query` and `target`, and with `raw_query` and `raw_target` as in the file.

    Parameters
    ----------
    rows
        As `competition.rows.read_rows` gives them; a null target becomes "".
    may_drop
        Rows whose clean query is empty are dropped if the preset says so: right for train, never for dev and
        test, where each id needs a prediction.

    Raises
    ------
    CompetitionError
        No preset is called `preset`.
    """
    assert "raw_query" not in rows, "these rows are clean already"
    cleaning = get_preset(preset)
    clean_target = clean_path if task.target_is_category else clean_text
    cleaned = rows[[*COLUMNS, *rows.columns.intersection([GROUP])]].assign(
        query=map_distinct(rows["query"], lambda text: clean_text(text, cleaning)),
        target=map_distinct(rows["target"].fillna(""), lambda text: clean_target(text, cleaning)),
        raw_query=rows["query"],
        raw_target=rows["target"],
    )
    if may_drop and cleaning.drop_empty_queries:
        cleaned = cleaned[cleaned["query"] != ""]
    return cleaned.reset_index(drop=True)


def map_distinct(texts: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """`function` of every text, called once for each different text; keeps the index.

    Examples
    --------
    >>> map_distinct(pd.Series(["b", "a", "b"]), str.upper).tolist()
    ['B', 'A', 'B']
    """
    codes, distinct = pd.factorize(texts)
    assert (codes >= 0).all(), "a null is no text"
    results = pa.array([function(text) for text in distinct.tolist()], type=pa.large_string())
    return pd.Series(results, dtype="str").take(codes).set_axis(texts.index)


def normalise_query(text: str) -> str:
    """`text` without differences that nobody means: width, case, spaces (NFKC, case folding).

    Examples
    --------
    >>> normalise_query(" ＵＳＢ  Straße")
    'usb strasse'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


@dataclass(frozen=True)
class DuplicateReport:
    """What repeats among the rows of one file; a pair is (language, query, target), texts as they are.

    Attributes
    ----------
    n_rows, n_pairs
        Rows, and different pairs among them.
    n_repeats
        Rows that repeat the pair of an earlier row: the sum of the three numbers that follow.
    n_repeats_same_label
        Of these, rows of pairs whose rows all have one label.
    n_repeats_conflicting
        Of these, rows of pairs that have both labels.
    n_repeats_unlabelled
        Of these, the rest: pairs with a row that has no label, and no conflict.
    n_conflicting_pairs
        Pairs that have both labels.
    conflicts
        The first `N_LISTED` of them: ``language, query, target, n_rows, n_positive, ids`` (tuple).
    n_cross_language_pairs, n_cross_language_rows
        Different (normalised query, target) that stand under more than one language, and their rows.
    cross_language
        The first `N_LISTED` of them: ``query`` (normalised), ``target, languages, n_rows, ids`` (tuples).
    """

    n_rows: int
    n_pairs: int
    n_repeats: int
    n_repeats_same_label: int
    n_repeats_conflicting: int
    n_repeats_unlabelled: int
    n_conflicting_pairs: int
    conflicts: pd.DataFrame
    n_cross_language_pairs: int
    n_cross_language_rows: int
    cross_language: pd.DataFrame


def duplicate_report(rows: pd.DataFrame) -> DuplicateReport:
    """What repeats among `rows` (``id, language, query, target, label``), before or after cleaning."""
    pair = rows.groupby(["language", "query", "target"], sort=False, dropna=False).ngroup()
    labels = rows["label"].astype("Int8")
    by_pair = labels.groupby(pair)
    counts = pd.DataFrame(
        {"n_rows": by_pair.size(), "n_labels": by_pair.count(), "n_positive": by_pair.sum()}, dtype="int64"
    )
    conflicting = (counts["n_positive"] > 0) & (counts["n_positive"] < counts["n_labels"])
    same = (counts["n_labels"] == counts["n_rows"]) & ~conflicting
    repeats = counts["n_rows"] - 1
    across, n_across_rows, listed = _cross_language(rows)
    return DuplicateReport(
        n_rows=len(rows),
        n_pairs=len(counts),
        n_repeats=int(repeats.sum()),
        n_repeats_same_label=int(repeats[same].sum()),
        n_repeats_conflicting=int(repeats[conflicting].sum()),
        n_repeats_unlabelled=int(repeats[~same & ~conflicting].sum()),
        n_conflicting_pairs=int(conflicting.sum()),
        conflicts=_list_conflicts(rows, pair, conflicting),
        n_cross_language_pairs=across,
        n_cross_language_rows=n_across_rows,
        cross_language=listed,
    )


def _list_conflicts(rows: pd.DataFrame, pair: pd.Series, conflicting: pd.Series) -> pd.DataFrame:
    first = conflicting.index[conflicting][:N_LISTED]
    chosen = rows[pair.isin(first)]
    groups = chosen.groupby(pair[pair.isin(first)], sort=True)
    return pd.DataFrame(
        {
            **groups[["language", "query", "target"]].first(),
            "n_rows": groups.size(),
            "n_positive": groups["label"].sum().astype("int64"),
            "ids": groups["id"].agg(tuple),
        }
    ).reset_index(drop=True)


def _cross_language(rows: pd.DataFrame) -> tuple[int, int, pd.DataFrame]:
    """(pairs, rows, the first pairs) of the same normalised query and target under several languages."""
    normal = rows[["id", "language", "target"]].assign(query=map_distinct(rows["query"], normalise_query))
    pair = normal.groupby(["query", "target"], sort=False, dropna=False).ngroup()
    n_languages = normal.groupby(pair)["language"].nunique()
    across = n_languages.index[n_languages > 1]
    chosen = normal[pair.isin(across[:N_LISTED])]
    groups = chosen.groupby(pair[pair.isin(across[:N_LISTED])], sort=True)
    listed = pd.DataFrame(
        {
            **groups[["query", "target"]].first(),
            "languages": groups["language"].agg(tuple).map(lambda each: tuple(dict.fromkeys(each))),
            "n_rows": groups.size(),
            "ids": groups["id"].agg(tuple),
        }
    ).reset_index(drop=True)
    return len(across), int(pair.isin(across).sum()), listed
