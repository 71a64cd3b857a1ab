"""Model input: the query as written, its translation, or both."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import english, query_text

TEXT = st.text(max_size=6)


def rows_of(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["query", "query_en"], dtype="str")


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_the_views_follow_their_definition_row_by_row(pairs: list[tuple[str, str]]) -> None:
    rows = rows_of(pairs)
    translated = [translation or query for query, translation in pairs]
    assert query_text(rows, "original").tolist() == [query for query, _ in pairs]
    assert query_text(rows, "english").tolist() == english(rows).tolist() == translated
    joined = [q if q == t else f"{q} - {t}" for (q, _), t in zip(pairs, translated, strict=True)]
    assert query_text(rows, "both").tolist() == joined


@pytest.mark.parametrize("view", ["original", "english", "both"])
def test_without_translations_every_view_is_the_query(view: str) -> None:
    rows = pd.DataFrame({"query": ["zapatos", ""]})
    assert query_text(rows, view).tolist() == ["zapatos", ""]  # type: ignore[arg-type]


@pytest.mark.parametrize("view", ["original", "english", "both"])
def test_the_text_is_aligned_with_the_rows(view: str) -> None:
    rows = rows_of([("a", "x"), ("b", ""), ("c", "c")]).iloc[[2, 0, 1]]
    assert query_text(rows, view).index.tolist() == [2, 0, 1]  # type: ignore[arg-type]
