"""Folds matched to a test file: the wanted rates come out, no row is left, and labels are not looked at."""

import numpy as np
import pandas as pd
import pytest

from competition.dealing import deal
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.tasks import QC, QI
from competition.test_matching import match_table, overlap

KNOWN, NEW = ("en", "es", "fr", "ja"), ("de", "th")
TOLERANCE = 0.03


def make_rows(
    n_rows: int, *, languages: tuple[str, ...] = KNOWN, first_query: int = 0, n_targets: int = 300, seed: int = 0
) -> pd.DataFrame:
    """Rows of a category task: queries of about five rows, concepts in several languages, targets some of them rare."""
    rng = np.random.default_rng(seed)
    language = rng.choice(languages, n_rows)
    concept = first_query + rng.integers(0, n_rows // 10, n_rows)
    target = np.minimum(rng.geometric(6 / n_targets, n_rows), n_targets)
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(language, dtype="str"),
        "query": pd.Series([f"{code} {c}" for code, c in zip(language, concept, strict=True)], dtype="str"),
        "query_en": pd.Series([f"concept {c}" for c in concept], dtype="str"),
        "target": pd.Series([f"top {t % 5},leaf {t}" for t in target], dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


def like_new_concepts(n_rows: int = 900) -> pd.DataFrame:
    """A test file of new concepts, half of it in languages that train does not know, a tenth with new targets."""
    rows = make_rows(n_rows, languages=KNOWN[:2] + NEW, first_query=10_000, seed=7)
    return rows.assign(target=rows["target"].where(np.arange(n_rows) % 10 > 0, "top 1,quite new"))


def like_same_queries(n_rows: int = 900) -> pd.DataFrame:
    """A test file of train's languages that asks most of train's queries again."""
    return make_rows(n_rows, seed=8)


@pytest.mark.parametrize("like", [like_new_concepts, like_same_queries])
@pytest.mark.parametrize("n_splits", [3, 5, 6])
def test_held_out_rows_share_what_test_rows_share(like, n_splits):
    rows = make_rows(4000)
    dealt = deal(FoldPlan("test-matched", n_splits=n_splits), rows, task=QC, like=like())
    table = match_table(rows, dealt, like=like()).set_index("key")
    assert table["difference"].abs().max() < TOLERANCE, table
    assert set(dealt.fold) == set(range(n_splits))
    assert dealt.fold.index.equals(rows.index)


def test_the_rates_to_match_are_unlike_those_of_query_groups():
    rows, like = make_rows(4000), like_new_concepts()
    table = match_table(rows, deal(FoldPlan("query-group", n_splits=5), rows, task=QC), like=like).set_index("key")
    assert table.loc["language", "difference"] > 0.4
    assert table.loc["query", "difference"] > 0.4


def test_every_fold_matches_the_languages_not_only_their_mean():
    rows, like = make_rows(4000), like_new_concepts()
    dealt = deal(FoldPlan("test-matched", n_splits=4), rows, task=QC, like=like)
    wanted = overlap(like, rows)
    for fold in range(4):
        found = overlap(rows[dealt.fold == fold], rows[dealt.training(fold)])
        assert found.language == pytest.approx(wanted.language, abs=0.1)
        assert found.query == pytest.approx(wanted.query, abs=0.05)


def test_no_group_spans_two_folds_and_closed_groups_are_queries():
    rows = make_rows(2000)
    dealt = deal(FoldPlan("test-matched", n_splits=4), rows, task=QC, like=like_new_concepts())
    assert (dealt.fold.groupby(dealt.group).nunique() == 1).all()
    assert dealt.group.nunique() == rows["query"].nunique()


def test_open_queries_are_dealt_one_target_at_a_time():
    rows = make_rows(2000)
    dealt = deal(FoldPlan("test-matched", n_splits=4), rows, task=QC, like=like_same_queries())
    assert (dealt.fold.groupby(dealt.group).nunique() == 1).all()
    assert (dealt.fold.groupby(rows["query"]).nunique() > 1).mean() > 0.5


def test_row_order_and_labels_change_nothing_but_balance():
    rows, plan = make_rows(2000), FoldPlan("test-matched", n_splits=4)
    like = like_new_concepts()
    dealt = deal(plan, rows, task=QC, like=like)
    order = np.random.default_rng(1).permutation(len(rows))
    again = deal(plan, rows.iloc[order], task=QC, like=like.iloc[::-1])
    assert again.fold.equals(dealt.fold.iloc[order])
    assert (again.withheld == dealt.withheld[order]).all()
    other_labels = like.assign(label=pd.Series(1 - like["label"], dtype="Int8"))
    assert deal(plan, rows, task=QC, like=other_labels).fold.equals(dealt.fold)
    assert deal(plan, rows, task=QC, like=like.drop(columns="label")).fold.equals(dealt.fold)


def test_a_competition_in_one_language_says_that_languages_are_not_matched():
    rows = make_rows(1000, languages=("en",))
    dealt = deal(FoldPlan("test-matched", n_splits=3), rows, task=QI, like=like_new_concepts())
    table = match_table(rows, dealt, like=like_new_concepts()).set_index("key")
    assert table.loc["language", "achieved"] == 1.0
    assert table.loc["language", "difference"] > 0.5


def test_what_cannot_be_matched_is_refused():
    rows, plan = make_rows(400), FoldPlan("test-matched", n_splits=3)
    with pytest.raises(CompetitionError, match="no rows of dev or test to match"):
        deal(plan, rows, task=QC)
    with pytest.raises(CompetitionError, match="no rows to match"):
        deal(plan, rows, task=QC, like=rows[:0])
    with pytest.raises(CompetitionError, match="cannot deal rows without"):
        plan.assign(rows, QC)
    few = rows.assign(query="q", language=["en", "fr"] * 200)
    with pytest.raises(CompetitionError, match="2 queries make at most 2 folds"):
        deal(plan, few, task=QC, like=like_new_concepts())


def test_a_fold_with_one_label_is_refused():
    rows = make_rows(400).assign(label=pd.Series([0] + [1] * 399, dtype="Int8"))
    with pytest.raises(CompetitionError, match="do not fill 3 folds with both labels"):
        deal(FoldPlan("test-matched", n_splits=3), rows, task=QC, like=like_new_concepts())
