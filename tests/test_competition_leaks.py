"""The leak check: what may be learned from when some rows are held out, and the proof afterwards."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.cleaning import normalise_query
from competition.errors import CompetitionError
from competition.leaks import Dropped, refuse_leak, shares_query, trail_of, without_held_out

WORDS = st.sampled_from(["", "red shoes", "Red  Shoes", "zapatos", "靴", "dog toy"])
ROWS = st.lists(st.tuples(WORDS, WORDS), max_size=8)


def rows_of(pairs: list[tuple[str, str]], *, first_id: int = 0) -> pd.DataFrame:
    rows = pd.DataFrame(pairs, columns=["query", "query_en"], dtype="str")
    return rows.assign(id=range(first_id, first_id + len(rows)), target="x", language="en", label=1)


@given(ROWS, ROWS)
def test_a_row_shares_a_query_if_any_of_its_texts_is_one_of_theirs(
    pairs: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    known = {normalise_query(text) for pair in others for text in pair} - {""}
    expected = [any(normalise_query(text) in known for text in pair) for pair in pairs]
    assert shares_query(rows_of(pairs), rows_of(others)).tolist() == expected


@given(ROWS, ROWS)
def test_what_is_kept_passes_the_proof_and_what_is_dropped_is_counted(
    pairs: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    rows, held_out = rows_of(pairs), rows_of(others, first_id=4)
    kept, dropped = without_held_out(rows, held_out, same_task=True)
    refuse_leak(trail_of(kept, "QC"), held_out, task="QC", what="weights")
    assert len(kept) + dropped.by_id + dropped.by_query == len(rows)
    assert dropped.by_id == len(set(rows["id"]) & set(held_out["id"]))


def test_equal_ids_of_different_tasks_are_different_rows() -> None:
    rows, held_out = rows_of([("dog toy", "")]), rows_of([("red shoes", "")])
    assert without_held_out(rows, held_out, same_task=False)[1] == Dropped(0, 0)
    assert without_held_out(rows, held_out, same_task=True)[1] == Dropped(1, 0)
    refuse_leak(trail_of(rows, "QI"), held_out, task="QC", what="weights")
    with pytest.raises(CompetitionError, match=r"weights: 1 rows that are held out: id 0"):
        refuse_leak(trail_of(rows, "QC"), held_out, task="QC", what="weights")


def test_a_held_out_query_in_english_is_found_in_the_trail() -> None:
    seen, held_out = rows_of([("靴", "red shoes")], first_id=7), rows_of([("Red Shoes", "")])
    with pytest.raises(CompetitionError, match=r"1 rows with a query of a held-out row: id 7"):
        refuse_leak(trail_of(seen, "QI"), held_out, task="QC", what="weights")
