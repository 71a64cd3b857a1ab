"""Purged folds: category groups whose training sides share no query with the held-out side."""

import numpy as np
import pandas as pd
import pytest

from competition.dealing import deal
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.leaks import shares_query
from competition.purging import QueryCodes
from competition.tasks import QC, QI

PLAN = FoldPlan("purged", n_splits=4, depth=2)


def make_rows(n_rows: int = 800, *, seed: int = 0) -> pd.DataFrame:
    """Rows whose queries stand with several categories; of two spellings and, half of them, with a translation."""
    rng = np.random.default_rng(seed)
    concept = rng.integers(0, n_rows // 4, n_rows)
    foreign = rng.random(n_rows) < 0.5
    spelled = [f"wort {c}" if f else f"WORD  {c}" for c, f in zip(concept, foreign, strict=True)]
    english = [f"word {c}" if f else "" for c, f in zip(concept, foreign, strict=True)]
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(np.where(foreign, "de", "en"), dtype="str"),
        "query": pd.Series(spelled, dtype="str"),
        "query_en": pd.Series(english, dtype="str"),
        "target": pd.Series([f"top {a},middle {b}" for a, b in rng.integers(0, 6, (n_rows, 2))], dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


def test_no_held_out_query_stands_on_the_training_side_as_written_or_in_english():
    rows = make_rows()
    dealt = deal(PLAN, rows, task=QC)
    for fold in range(PLAN.n_splits):
        held_out, trained = rows[dealt.fold == fold], rows[dealt.training(fold)]
        assert not shares_query(trained, held_out).any()
        assert not set(trained["target"]) & set(held_out["target"])
        others = rows[(dealt.fold != fold).to_numpy() & ~dealt.training(fold)]
        assert len(others) > 0
        assert shares_query(others, held_out).all(), "no row is withheld without a reason"


def test_folds_and_groups_are_those_of_category_groups():
    rows = make_rows()
    plain = FoldPlan("category-group", n_splits=4, depth=2)
    dealt = deal(PLAN, rows, task=QC)
    assert dealt.fold.equals(plain.assign(rows, QC))
    assert dealt.group.equals(plain.group(rows, QC))


def test_without_translations_the_query_as_written_is_purged():
    rows = make_rows().drop(columns="query_en")
    dealt = deal(PLAN, rows, task=QC)
    for fold in range(PLAN.n_splits):
        assert not set(rows["query"][dealt.fold == fold]) & set(rows["query"][dealt.training(fold)])


def test_row_order_changes_nothing():
    rows = make_rows()
    order = np.random.default_rng(1).permutation(len(rows))
    dealt, again = deal(PLAN, rows, task=QC), deal(PLAN, rows.iloc[order], task=QC)
    assert again.fold.equals(dealt.fold.iloc[order])
    assert (again.withheld == dealt.withheld[order]).all()


def test_an_empty_text_is_no_query_to_share():
    rows = pd.DataFrame({"query": ["", "", "a"], "query_en": ["", "", ""]}, dtype="str")
    assert QueryCodes.of(rows).sharing(np.array([True, False, False])).tolist() == [False] * 3


def test_codes_share_what_texts_share():
    rows = make_rows(200)
    held_out = np.random.default_rng(2).random(len(rows)) < 0.2
    assert (QueryCodes.of(rows).sharing(held_out) == shares_query(rows, rows[held_out])).all()


def test_a_training_side_that_is_purged_empty_is_refused():
    rows = make_rows().assign(query="one query for all")
    with pytest.raises(CompetitionError, match=r"leaves too little to train on[\s\S]*query-group") as caught:
        deal(PLAN, rows, task=QC)
    assert len(caught.value.faults) == PLAN.n_splits


def test_a_target_that_is_no_category_is_refused():
    with pytest.raises(CompetitionError, match="item_title"):
        deal(PLAN, make_rows(), task=QI)
