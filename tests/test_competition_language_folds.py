"""Whole languages, or families of them, held out: once each, and nowhere on their own training side."""

import numpy as np
import pandas as pd
import pytest

from competition.dealing import deal
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.language_folds import family
from competition.tasks import QC, QI

LANGUAGES = ("en", "de", "es", "fr", "pt", "ja")
SHARES = (0.3, 0.1, 0.2, 0.15, 0.15, 0.1)


def make_rows(n_rows: int = 900, *, seed: int = 0) -> pd.DataFrame:
    """Rows in six languages of unlike sizes; some queries are spelled alike in several languages."""
    rng = np.random.default_rng(seed)
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(rng.choice(LANGUAGES, n_rows, p=SHARES), dtype="str"),
        "query": pd.Series([f"Query {q}" for q in rng.integers(0, n_rows // 5, n_rows)], dtype="str"),
        "target": pd.Series([f"top {t % 4},leaf {t}" for t in rng.integers(0, 40, n_rows)], dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


@pytest.mark.parametrize("n_splits", [3, 4, 6])
def test_every_language_is_held_out_in_one_fold_and_unknown_there(n_splits):
    rows = make_rows()
    dealt = deal(FoldPlan("language-holdout", n_splits=n_splits), rows, task=QC)
    assert (dealt.fold.groupby(rows["language"]).nunique() == 1).all()
    assert set(dealt.fold) == set(range(n_splits))
    for fold in range(n_splits):
        held_out = set(rows["language"][dealt.fold == fold])
        assert not held_out & set(rows["language"][dealt.training(fold)])
        assert (dealt.training(fold) == (dealt.fold != fold)).all()


def test_as_many_folds_as_languages_hold_out_one_each():
    rows = make_rows()
    dealt = deal(FoldPlan("language-holdout", n_splits=6), rows, task=QC)
    assert (rows["language"].groupby(dealt.fold).nunique() == 1).all()


def test_languages_are_dealt_evenly_by_rows():
    rows = make_rows(6000)
    sizes = deal(FoldPlan("language-holdout", n_splits=3), rows, task=QI).fold.value_counts()
    assert sizes.max() < 1.35 * sizes.min()  # the best of all ways to deal .3 .2 .15 .15 .1 .1: .35, .35, .3


def test_families_stay_together():
    rows = make_rows()
    dealt = deal(FoldPlan("family-holdout", n_splits=3), rows, task=QC)
    fold = dealt.fold.groupby(rows["language"]).first()
    assert fold["es"] == fold["fr"] == fold["pt"]
    assert fold["en"] == fold["de"]
    assert len({fold["es"], fold["en"], fold["ja"]}) == 3


@pytest.mark.parametrize("kind", ["language-holdout", "family-holdout"])
def test_groups_are_queries_in_their_language_and_row_order_changes_nothing(kind):
    rows, plan = make_rows(), FoldPlan(kind, n_splits=3)
    dealt = deal(plan, rows, task=QC)
    assert dealt.group.nunique() == len(rows[["language", "query"]].drop_duplicates())
    assert (dealt.fold.groupby(dealt.group).nunique() == 1).all()
    shuffled = rows.sample(frac=1, random_state=1)
    again = deal(plan, shuffled, task=QC)
    assert again.fold.sort_index().equals(dealt.fold)


def test_more_folds_than_languages_are_refused_with_a_way_out():
    with pytest.raises(CompetitionError, match=r"6 languages make at most 6 folds[\s\S]*--plan QC=query-group"):
        deal(FoldPlan("language-holdout", n_splits=7), make_rows(), task=QC)
    with pytest.raises(CompetitionError, match="3 language families make at most 3 folds"):
        deal(FoldPlan("family-holdout", n_splits=4), make_rows(), task=QC)


def test_a_language_with_one_label_is_no_fold():
    rows = make_rows()
    rows.loc[rows["language"] == "ja", "label"] = 1
    with pytest.raises(CompetitionError, match="do not fill 6 folds with both labels") as caught:
        deal(FoldPlan("language-holdout", n_splits=6), rows, task=QC)
    assert [fault.found for fault in caught.value.faults] == ["only rows labelled 1"]


def test_an_unknown_code_is_a_family_of_its_own():
    assert family("tlh") == "tlh"
    assert family("vn") == family("vi") != family("id")
