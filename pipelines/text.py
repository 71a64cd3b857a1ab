"""From row to model input: the query as written, its English translation, or both."""

import pandas as pd

from pipelines.config import View


def english(rows: pd.DataFrame) -> pd.Series:
    """The query's English translation, ``(n_rows,)`` text; the query itself where there is none."""
    if "query_en" not in rows:
        return rows["query"]
    return rows["query_en"].where(rows["query_en"] != "", rows["query"])


def query_text(rows: pd.DataFrame, view: View) -> pd.Series:
    """The query side of the model input, ``(n_rows,)`` text.

    ``both`` joins as the CIKM 2025 AnalytiCup winner did, ``query - translation``, unless they are the same.

    Examples
    --------
    >>> rows = pd.DataFrame({"query": ["zapatos", "shoes"], "query_en": ["shoes", ""]})
    >>> query_text(rows, "both").tolist()
    ['zapatos - shoes', 'shoes']
    >>> query_text(rows, "english").tolist()
    ['shoes', 'shoes']
    """
    if view == "original":
        return rows["query"]
    translated = english(rows)
    if view == "english":
        return translated
    joined = rows["query"] + " - " + translated
    return rows["query"].where(rows["query"] == translated, joined)
