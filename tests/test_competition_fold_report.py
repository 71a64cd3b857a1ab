import numpy as np
import pandas as pd
import pytest

from competition.fold_report import compare_overlaps, fold_report, imbalance, split_overlaps
from competition.folds import Dealt, FoldPlan
from competition.tasks import QC, QI

PLAN = FoldPlan("query-group", n_splits=2)
COLUMNS = ["id", "language", "query", "target", "label", "fold"]
ROWS = [
    (1, "en", "usb cable", "tech,cables,usb", 1, 0),
    (2, "en", "usb cable", "tech,cables,hdmi", 0, 0),
    (3, "fr", "USB  Cable", "home,pans", 1, 1),
    (4, "fr", "", "", 0, 0),
    (5, "en", "", "", 1, 1),
    (6, "en", "pan", "home,pans", 1, 1),
    (7, "ja", "pan", "tech,screens", 0, 0),
]


def make_rows(lines: list[tuple] = ROWS) -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.DataFrame(lines, columns=COLUMNS)
    frame = frame.astype({"language": "str", "query": "str", "target": "str", "label": "Int8", "fold": "int8"})
    return frame.drop(columns="fold"), frame["fold"]


def dealt(rows: pd.DataFrame, folds: pd.Series) -> Dealt:
    return Dealt(folds, PLAN.group(rows, QI))


def shared(overlaps: pd.DataFrame) -> dict[str, list[int]]:
    """Shared rows by key: fold 0, fold 1, all."""
    return {key: table["shared_rows"].tolist() for key, table in overlaps.groupby("key", sort=False)}


def test_overlaps_are_the_hand_counted_ones():
    rows, folds = make_rows()
    overlaps = fold_report(rows, dealt(rows, folds), plan=PLAN, task=QC).overlaps
    assert shared(overlaps) == {
        # groups: "usb cable" has rows 1, 2 | 3; "" has 4 | 5; "pan" has 7 | 6
        "group": [4, 3, 7],
        "language": [3, 3, 6],  # all but ja
        "query in its language": [0, 0, 0],
        "query normalised": [3, 2, 5],  # the empty text is no key
        "target": [0, 0, 0],
        "category to level 1": [0, 0, 0],
        "category to level 2": [0, 0, 0],
        "category to level 3": [0, 0, 0],
    }
    line = overlaps[(overlaps["key"] == "query normalised") & (overlaps["fold"] == "all")].iloc[0]
    assert (line["rows"], line["share"]) == (7, 5 / 7)


def test_a_shared_prefix_is_found_at_its_depth_only():
    rows, folds = make_rows([(1, "en", "a", "tech,cables,usb", 1, 0), (2, "en", "b", "tech,cables,hdmi", 1, 1)])
    found = shared(fold_report(rows, dealt(rows, folds), plan=PLAN, task=QC).overlaps)
    assert found["category to level 1"] == [1, 1, 2]
    assert found["category to level 2"] == [1, 1, 2]
    assert found["category to level 3"] == [0, 0, 0]


def test_fold_table_is_the_hand_counted_one():
    rows, folds = make_rows()
    table = fold_report(rows, dealt(rows, folds), plan=PLAN, task=QC).folds
    assert table["rows"].tolist() == [4, 3]
    assert table["positives"].tolist() == [1, 3]
    assert table["positive_rate"].tolist() == [0.25, 1.0]
    assert table["groups"].tolist() == [3, 3]
    assert table["languages"].tolist() == [3, 2]


def test_language_table_shows_missing_languages_as_zero():
    rows, folds = make_rows()
    table = fold_report(rows, dealt(rows, folds), plan=PLAN, task=QC).languages.set_index(["fold", "language"])
    assert table.loc[(0, "en")].tolist() == [2, 1]
    assert table.loc[(1, "ja")].tolist() == [0, 0]
    assert table["rows"].sum() == len(rows)


def test_assigned_folds_share_no_group_and_a_broken_one_shows():
    rng = np.random.default_rng(0)
    queries = rng.integers(0, 60, 400)
    lines = [(n, "en", f"q{query}", f"t{n}", n % 2, 0) for n, query in enumerate(queries)]
    rows, _ = make_rows(lines)
    folds = PLAN.assign(rows, QI)
    assert shared(fold_report(rows, dealt(rows, folds), plan=PLAN, task=QI).overlaps)["group"] == [0, 0, 0]
    group_sizes = pd.Series(queries).value_counts()
    moved = int(np.flatnonzero(queries == group_sizes.index[0])[0])
    folds[moved] = 1 - folds[moved]
    assert (
        shared(fold_report(rows, dealt(rows, folds), plan=PLAN, task=QI).overlaps)["group"][-1] == group_sizes.iloc[0]
    )


def test_a_task_without_categories_has_no_category_keys():
    rows, folds = make_rows()
    keys = set(fold_report(rows, dealt(rows, folds), plan=PLAN, task=QI).overlaps["key"])
    assert keys == {"group", "language", "query in its language", "query normalised", "target"}


def test_imbalance_is_the_mean_std_of_shares():
    strata, folds = pd.Series(["a"] * 4 + ["b"] * 2), pd.Series([0, 0, 0, 1, 0, 1])
    assert imbalance(strata, folds) == pytest.approx((0.25 + 0.0) / 2)


def test_split_overlaps_are_the_hand_counted_ones():
    train, _ = make_rows()
    other, _ = make_rows(
        [
            (1, "en", "usb cable", "tech,cables,usb", 1, 0),
            (2, "de", "Usb Cable", "tech,cables,vga", 0, 0),
            (3, "de", "pfanne", "garden", 0, 0),
            (4, "it", "", "", 0, 0),
        ]
    )
    table = split_overlaps(train, other, task=QC).set_index("key")
    columns = ["shared_rows", "keys", "unseen_keys", "unseen"]
    assert table.loc["language", columns].tolist() == [1, 3, 2, "de; it"]
    assert table.loc["query in its language", columns].tolist() == [1, 3, 2, "de: Usb Cable; de: pfanne"]
    assert table.loc["query normalised", columns].tolist() == [2, 2, 1, "pfanne"]
    assert table.loc["target", columns].tolist() == [1, 3, 2, "tech,cables,vga; garden"]
    assert table.loc["category to level 1", columns].tolist() == [2, 2, 1, "garden"]
    assert table.loc["category to level 2", columns].tolist() == [2, 2, 1, "garden"]
    assert table["rows"].tolist() == [4] * len(table)
    assert table.loc["language", "share"] == 0.25


def test_split_overlaps_of_no_rows_are_zero():
    train, _ = make_rows()
    table = split_overlaps(train, train[:0], task=QC)
    assert (table["shared_rows"] == 0).all()
    assert (table["share"] == 0.0).all()


def test_many_unseen_keys_are_counted_but_not_named():
    train, _ = make_rows()
    other, _ = make_rows([(n, "en", f"new {n}", "home,pans", 0, 0) for n in range(30)])
    line = split_overlaps(train, other, task=QC).set_index("key").loc["query normalised"]
    assert (line["unseen_keys"], line["unseen"]) == (30, "")


def test_what_is_withheld_is_not_shared():
    rows, folds = make_rows()
    withheld = np.zeros((len(rows), 2), dtype=bool)
    withheld[2, 0] = withheld[6, 1] = True  # row 3 ("USB  Cable") for fold 0, row 7 ("pan") for fold 1
    report = fold_report(rows, Dealt(folds, PLAN.group(rows, QI), withheld), plan=PLAN, task=QC)
    assert shared(report.overlaps)["query normalised"] == [1, 1, 2]  # "pan" of fold 0, "USB  Cable" of fold 1
    assert report.folds["trained_on"].tolist() == [2, 3]


def test_translations_are_a_key_of_their_own():
    rows, folds = make_rows([(1, "en", "pan", "a", 1, 0), (2, "fr", "casserole", "b", 1, 1), (3, "fr", "x", "b", 0, 1)])
    rows["query_en"] = pd.Series(["pan", "Pan", ""], dtype="str")
    assert shared(fold_report(rows, dealt(rows, folds), plan=PLAN, task=QI).overlaps)["query in English"] == [1, 1, 2]
    assert split_overlaps(rows[:1], rows[1:], task=QI).set_index("key").loc["query in English", "shared_rows"] == 1


def test_folds_stand_beside_test():
    rows, folds = make_rows()
    test, _ = make_rows([(1, "en", "usb cable", "tech,cables,usb", 1, 0), (2, "de", "new", "garden", 0, 0)])
    report = fold_report(rows, dealt(rows, folds), plan=PLAN, task=QC)
    table = compare_overlaps(report, {"train": rows, "test": test}, task=QC).set_index("key")
    assert list(table) == ["held_out", "test"]
    assert table.loc["query normalised"].tolist() == [5 / 7, 0.5]
    assert table.loc["language"].tolist() == [6 / 7, 0.5]
    assert table.loc["group"].isna().tolist() == [False, True]
