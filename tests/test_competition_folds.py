import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError, MismatchError
from competition.fold_report import imbalance
from competition.folds import (
    FoldPlan,
    Folds,
    assign_groups,
    digest_folds,
    load_folds,
    map_distinct,
    save_folds,
)
from competition.tasks import QC, QI

CATEGORY = FoldPlan("category-group", n_splits=3)
QUERY = FoldPlan("query-group", n_splits=3)


def make_rows(n_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Rows of a category task: 4 x 5 x 6 categories, three languages, queries of about four rows."""
    rng = np.random.default_rng(seed)
    path = [
        f"top {a},middle {b},low {c}, or so,leaf {d}"
        for a, b, c, d in rng.integers(0, [4, 5, 6, 3], (n_rows, 4))
    ]
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(rng.choice(["en", "fr", "ja"], n_rows), dtype="str"),
        "query": pd.Series([f"query {q}" for q in rng.integers(0, n_rows // 4 + 1, n_rows)], dtype="str"),
        "target": pd.Series(path, dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


@st.composite
def groups_and_strata(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n_rows = draw(st.integers(5, 60))
    groups = draw(st.lists(st.integers(0, 20), min_size=n_rows, max_size=n_rows))
    strata = draw(st.lists(st.integers(0, 5), min_size=n_rows, max_size=n_rows))
    return pd.factorize(np.array(groups))[0], pd.factorize(np.array(strata))[0]


# The splitter


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.integers(2, 5), st.integers(0, 3))
def test_every_group_gets_one_fold_in_range(drawn, n_splits, seed):
    groups, strata = drawn
    folds = assign_groups(groups, strata, n_splits=n_splits, seed=seed)
    assert folds.shape == (groups.max() + 1,)
    assert folds.dtype == np.int8
    assert folds.min() >= 0
    assert folds.max() < n_splits


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.integers(2, 5))
def test_no_fold_is_empty_when_there_are_enough_groups(drawn, n_splits):
    groups, strata = drawn
    folds = assign_groups(groups, strata, n_splits=n_splits, seed=0)
    assert len(set(folds)) == min(n_splits, groups.max() + 1)


@settings(max_examples=60, deadline=None)
@given(groups_and_strata(), st.randoms(use_true_random=False))
def test_shuffled_rows_give_every_group_the_same_fold(drawn, random):
    groups, strata = drawn
    order = list(range(len(groups)))
    random.shuffle(order)
    folds = assign_groups(groups, strata, n_splits=3, seed=1)
    assert np.array_equal(folds, assign_groups(groups[order], strata[order], n_splits=3, seed=1))


def test_single_row_groups_are_dealt_as_evenly_as_can_be():
    strata = np.repeat([0, 1, 2], [50, 25, 7])
    folds = assign_groups(np.arange(82), strata, n_splits=5, seed=0)
    counts = np.array([np.bincount(folds[strata == stratum], minlength=5) for stratum in range(3)])
    assert counts[0].tolist() == [10] * 5
    assert counts[1].tolist() == [5] * 5
    assert sorted(counts[2]) == [1, 1, 1, 2, 2]
    assert sorted(counts.sum(axis=0)) == [16, 16, 16, 17, 17]


def theirs(groups: np.ndarray, strata: np.ndarray, *, shuffle: bool) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(5, shuffle=shuffle, random_state=0 if shuffle else None)
    folds = np.empty(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fold, (_, held_out) in enumerate(splitter.split(groups, strata, groups)):
            folds[held_out] = fold
    return folds


def skewed(seed: int, *, n_rows: int, n_groups: int, n_strata: int) -> tuple[np.ndarray, np.ndarray]:
    """Few large groups and many small ones, each mostly of a stratum of its own."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0, 1.5, n_groups)
    groups = pd.factorize(rng.choice(n_groups, n_rows, p=size / size.sum()))[0]
    share = 1 / np.arange(1, n_strata + 1)
    own = rng.choice(n_strata, n_groups, p=share / share.sum())[groups]
    strata = np.where(rng.random(n_rows) < 0.6, own, rng.choice(n_strata, n_rows, p=share / share.sum()))
    return groups, pd.factorize(strata)[0]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n_groups", "n_strata"), [(80, 12), (300, 40), (600, 80)])
def test_balance_is_no_worse_than_scikit_learn(shuffle, n_groups, n_strata):
    ours, other = [], []
    for seed in range(3):
        groups, strata = skewed(seed, n_rows=2_000, n_groups=n_groups, n_strata=n_strata)
        strata_of_row = pd.Series(strata)
        folds = assign_groups(groups, strata, n_splits=5, seed=0)[groups]
        ours.append(imbalance(strata_of_row, pd.Series(folds)))
        other.append(imbalance(strata_of_row, pd.Series(theirs(groups, strata, shuffle=shuffle))))
    assert np.mean(ours) <= np.mean(other)
    assert (np.array(ours) <= 1.02 * np.array(other)).all()


# The plan


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


def test_map_distinct_keeps_the_index_and_calls_once_per_text():
    calls = []
    mapped = map_distinct(
        pd.Series(["b", "a", "b"], index=[7, 3, 5], dtype="str"),
        lambda text: calls.append(text) or text + "!",
    )
    assert mapped.to_dict() == {7: "b!", 3: "a!", 5: "b!"}
    assert sorted(calls) == ["a", "b"]


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


# Folds on disk


def save(folder: Path, rows: pd.DataFrame, plan: FoldPlan = QUERY, *, digest: str = "d1") -> Folds:
    folds = plan.assign(rows, QC)
    return save_folds(folder, "plan", rows=rows, folds=folds, plan=plan, task=QC, rows_digest=digest)


@pytest.mark.parametrize("as_text", [False, True])
def test_saved_folds_come_back(tmp_path, as_text):
    rows = make_rows(200)
    if as_text:
        rows["id"] = rows["id"].astype("str")
    saved = save(tmp_path / "folds" / "QC", rows)
    loaded = load_folds(tmp_path / "folds" / "QC", "plan")
    assert (loaded.task, loaded.plan, loaded.rows_digest, loaded.digest) == ("QC", QUERY, "d1", saved.digest)
    assert loaded.ids.equals(rows["id"])
    assert loaded.fold.equals(QUERY.assign(rows, QC))
    assert loaded.group.equals(QUERY.group(rows, QC))


def test_nothing_but_the_two_files_is_left(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "plan.parquet"]
    manifest = json.loads((tmp_path / "plan.json").read_text())
    assert manifest["counts"]["rows"] == 200
    assert sum(manifest["counts"]["positives_per_fold"]) == (rows["label"] == 1).sum()


def test_saving_the_same_folds_again_writes_nothing(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    written = (tmp_path / "plan.parquet").stat().st_mtime_ns
    save(tmp_path, rows)
    assert (tmp_path / "plan.parquet").stat().st_mtime_ns == written


def test_other_folds_are_refused_with_the_difference_spelled_out(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    before = (tmp_path / "plan.parquet").read_bytes()
    with pytest.raises(MismatchError) as caught:
        save(tmp_path, rows[:150], dataclasses.replace(QUERY, seed=5), digest="d2")
    text = str(caught.value)
    assert "plan.seed: 5, saved 0" in text
    assert "rows_digest: d2, saved d1" in text
    assert f"50 of the saved folds are missing: id {rows['id'][150]}" in text
    assert (tmp_path / "plan.parquet").read_bytes() == before


def test_the_same_rows_in_another_order_are_refused(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    with pytest.raises(MismatchError, match="another order"):
        save(tmp_path, rows[::-1])


def test_a_changed_parquet_is_refused(tmp_path):
    save(tmp_path, make_rows(200))
    path = tmp_path / "plan.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    table.to_parquet(path, index=False)
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


def test_a_changed_plan_is_refused(tmp_path):
    save(tmp_path, make_rows(200))
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


@pytest.mark.parametrize("name", ["plan.json", "plan.parquet"])
def test_a_truncated_file_is_refused(tmp_path, name):
    save(tmp_path, make_rows(200))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


def test_folds_without_a_manifest_do_not_exist_and_may_be_written_anew(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CompetitionError, match="no folds are saved"):
        load_folds(tmp_path, "plan")
    save(tmp_path, rows, dataclasses.replace(QUERY, seed=5))
    assert load_folds(tmp_path, "plan").plan.seed == 5


def test_align_finds_folds_by_id_not_by_place(tmp_path):
    rows = make_rows(200)
    saved = save(tmp_path, rows)
    shuffled = rows.sample(frac=1, random_state=2)
    assert saved.align(shuffled).equals(QUERY.assign(rows, QC)[shuffled.index])


def test_align_names_rows_without_a_fold_and_folds_without_a_row(tmp_path):
    rows = make_rows(200)
    saved = save(tmp_path, rows)
    other = rows[1:].assign(id=rows["id"].where(rows["id"] != rows["id"][9], 5))
    with pytest.raises(MismatchError) as caught:
        saved.align(other)
    text = str(caught.value)
    assert "1 are not in the saved folds: id 5" in text
    assert f"2 of the saved folds are missing: id {rows['id'][0]}, {rows['id'][9]}" in text


def test_a_group_in_two_folds_is_refused(tmp_path):
    rows = make_rows(200)
    folds = pd.Series(np.arange(200) % 3, index=rows.index, name="fold").astype("int8")
    with pytest.raises(CompetitionError, match="span several folds"):
        save_folds(tmp_path, "plan", rows=rows, folds=folds, plan=QUERY, task=QC, rows_digest="d1")
    assert list(tmp_path.iterdir()) == []


def test_digest_sees_the_type_of_an_id():
    fold, group = pd.Series([0], dtype="int8"), pd.Series(["a"], dtype="str")
    digests = {digest_folds(QUERY, ids=pd.Series([one]), fold=fold, group=group) for one in (1, "1")}
    assert len(digests) == 2
