import dataclasses

import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.tasks import QC, QI

CATEGORY = FoldPlan("category-group", n_splits=3)
QUERY = FoldPlan("query-group", n_splits=3)


def make_rows(n_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Rows of a category task: 4 x 5 x 6 categories, three languages, queries of about four rows."""
    rng = np.random.default_rng(seed)
    path = [f"top {a},middle {b},low {c}, or so,leaf {d}" for a, b, c, d in rng.integers(0, [4, 5, 6, 3], (n_rows, 4))]
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(rng.choice(["en", "fr", "ja"], n_rows), dtype="str"),
        "query": pd.Series([f"query {q}" for q in rng.integers(0, n_rows // 4 + 1, n_rows)], dtype="str"),
        "target": pd.Series(path, dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


@pytest.mark.parametrize("plan", [CATEGORY, QUERY])
def test_no_group_spans_two_folds_and_no_row_is_left(plan):
    rows = make_rows(600)
    folds = plan.assign(rows, QC)
    assert folds.name == "fold"
    assert folds.dtype == "int8"
    assert folds.index.equals(rows.index)
    assert set(folds) == {0, 1, 2}
    assert (folds.groupby(plan.group(rows, QC)).nunique() == 1).all()


@pytest.mark.parametrize("plan", [CATEGORY, QUERY])
def test_reordering_rows_gives_every_id_the_same_fold(plan):
    rows = make_rows(600)
    shuffled = rows.sample(frac=1, random_state=3)
    by_id = plan.assign(rows, QC).set_axis(rows["id"]).sort_index()
    again = plan.assign(shuffled, QC).set_axis(shuffled["id"]).sort_index()
    assert by_id.equals(again)


def test_seed_decides_the_folds():
    rows = make_rows(600)
    first = QUERY.assign(rows, QC)
    assert first.equals(QUERY.assign(rows, QC))
    assert not first.equals(dataclasses.replace(QUERY, seed=1).assign(rows, QC))


def test_one_query_in_several_spellings_is_one_group():
    rows = pd.DataFrame({"query": ["USB  Kabel", " usb kabel", "ＵＳＢ ＫＡＢＥＬ", "usb"]}, dtype="str")
    assert QUERY.group(rows, QI).tolist() == ["usb kabel"] * 3 + ["usb"]


def test_category_groups_are_the_first_levels_and_keep_commas_in_names():
    paths = [
        "home,kitchen, dining & bar,pans,iron",
        "home,kitchen, dining & bar,pans,steel",
        "home,garden",
        "",
    ]
    rows = pd.DataFrame({"target": paths}, dtype="str")
    expected = ["home,kitchen, dining & bar,pans"] * 2 + ["home,garden", ""]
    assert CATEGORY.group(rows, QC).tolist() == expected


def test_category_plan_is_refused_for_a_target_that_is_no_category():
    with pytest.raises(CompetitionError, match=r"item_title.*none[\s\S]*query-group"):
        CATEGORY.assign(make_rows(50), QI)


def test_plan_names_all_its_faults():
    with pytest.raises(CompetitionError) as caught:
        FoldPlan("by-luck", n_splits=1, depth=0, seed=-1)
    assert [fault.where for fault in caught.value.faults] == ["kind", "n_splits", "depth", "seed"]


def test_fewer_groups_than_folds_is_refused():
    rows = make_rows(200)
    with pytest.raises(CompetitionError, match=r"4 groups[\s\S]*fewer folds[\s\S]*query-group"):
        FoldPlan("category-group", depth=1).assign(rows, QC)


def test_a_fold_with_one_label_is_refused_and_named():
    rows = make_rows(300).assign(label=pd.Series([0] + [1] * 299, dtype="Int8"))
    with pytest.raises(CompetitionError) as caught:
        CATEGORY.assign(rows, QC)
    assert "groups do not fill 3 folds" in caught.value.summary
    assert [fault.found for fault in caught.value.faults] == ["only rows labelled 1"] * 2
    assert "query-group" in caught.value.advice


def test_rows_without_a_label_are_refused_by_id():
    rows = make_rows(100)
    rows.loc[7, "label"] = pd.NA
    with pytest.raises(CompetitionError, match=str(rows["id"][7])):
        QUERY.assign(rows, QC)
