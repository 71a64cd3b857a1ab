"""Cleaning: presets do what they say, levels of category paths survive, repeats are counted exactly."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.categories import levels
from competition.cleaning import (
    N_LISTED,
    PRESETS,
    Cleaning,
    clean,
    clean_path,
    clean_text,
    duplicate_report,
    map_distinct,
    normalise_query,
)
from competition.errors import CompetitionError
from competition.tasks import QC, QI

WINNER = PRESETS["winner"]
QUICK = settings(max_examples=200, deadline=None, derandomize=True)
PATHS = st.text(st.sampled_from(", aB\t\u3000\u00a0&"), max_size=14)
CLEANINGS = st.builds(Cleaning, *(st.booleans() for _ in range(4)))


def make_rows(*rows: tuple) -> pd.DataFrame:
    """Rows (language, query, target, label) with ids 1, 2, 3, ..."""
    frame = pd.DataFrame(rows, columns=["language", "query", "target", "label"])
    frame.insert(0, "id", range(1, len(rows) + 1))
    return frame.astype({"language": "str", "query": "str", "target": "str", "label": "Int8"})


# Texts and paths


@QUICK
@given(text=st.text(max_size=30), cleaning=CLEANINGS)
def test_cleaning_twice_changes_nothing_more(text, cleaning):
    once = clean_text(text, cleaning)
    assert clean_text(once, cleaning) == once


@QUICK
@given(text=st.text(st.sampled_from(" \t\n\u3000\x1caB"), max_size=20))
def test_the_winner_leaves_single_spaces_between_lower_case_words(text):
    assert clean_text(text, WINNER) == " ".join(text.lower().split())


@QUICK
@given(path=PATHS, cleaning=CLEANINGS)
def test_a_clean_path_has_the_levels_of_the_raw_one(path, cleaning):
    cleaned = clean_path(path, cleaning)
    assert len(levels(cleaned)) == len(levels(path))
    assert clean_path(cleaned, cleaning) == cleaned


@QUICK
@given(path=PATHS)
def test_the_levels_of_a_clean_path_are_the_clean_levels(path):
    expected = [clean_text(level, WINNER).rstrip(", ") for level in levels(path)]
    assert levels(clean_path(path, WINNER)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Home & Garden,Kitchen, Dining & Bar,Pans", "home & garden,kitchen, dining & bar,pans"),
        (" Home , Pans ", "home , pans"),
        ("Home,\tPans", "home,pans"),
        ("Home, ,Pans", "home,pans"),
        ("Home,,Pans", "home,,pans"),
        ("", ""),
    ],
)
def test_separators_of_paths_stay_separators(path, expected):
    assert clean_path(path, WINNER) == expected


@QUICK
@given(text=st.text(max_size=30))
def test_normalising_a_query_twice_changes_nothing_more(text):
    assert normalise_query(normalise_query(text)) == normalise_query(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＵＳＢ　ケーブル", "usb ケーブル"),
        ("STRASSE", "straße"),
        (" a\tb ", "A B"),
        ("cafe\u0301", "CAFÉ"),
    ],
)
def test_queries_that_look_the_same_are_the_same(one, other):
    assert normalise_query(one) == normalise_query(other)


@settings(QUICK, max_examples=60)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=12))
def test_mapping_distinct_texts_equals_mapping_each(texts):
    series = pd.Series(texts, dtype="str", index=pd.RangeIndex(5, 5 + len(texts)))
    mapped = map_distinct(series, lambda text: text + "!")
    assert mapped.tolist() == [text + "!" for text in texts]
    assert mapped.index.equals(series.index)


def test_map_distinct_calls_once_per_text():
    calls = []
    mapped = map_distinct(
        pd.Series(["b", "a", "b"], index=[7, 3, 5], dtype="str"),
        lambda text: calls.append(text) or text + "!",
    )
    assert mapped.to_dict() == {7: "b!", 3: "a!", 5: "b!"}
    assert sorted(calls) == ["a", "b"]


# Rows

RAW = make_rows(
    ("en", "  Red  Shoes ", "A ,B, C", 1),
    ("ja", " \u3000", "A", 0),
    ("vn", "giày", None, None),
    ("en", "", "B", 1),
)


def test_clean_rows_keep_the_raw_texts_beside_them():
    rows = clean(RAW, "winner", QC, may_drop=False)
    names = ["id", "language", "query", "target", "label", "raw_query", "raw_target"]
    assert list(rows.columns) == names
    assert [str(dtype) for dtype in rows.dtypes] == ["int64", "str", "str", "str", "Int8", "str", "str"]
    assert rows["query"].tolist() == ["red shoes", "", "giày", ""]
    assert rows["target"].tolist() == ["a,b, c", "a", "", "b"]
    assert rows["raw_query"].equals(RAW["query"].rename("raw_query"))
    assert rows["raw_target"].isna().tolist() == [False, False, True, False]


def test_free_text_targets_are_not_treated_as_paths():
    rows = clean(RAW, "winner", QI, may_drop=False)
    assert rows["target"].tolist() == ["a ,b, c", "a", "", "b"]


def test_empty_queries_are_dropped_from_train_only():
    train = clean(RAW, "winner", QI, may_drop=True)
    assert train["id"].tolist() == [1, 3]
    assert isinstance(train.index, pd.RangeIndex)
    assert clean(RAW, "winner", QI, may_drop=False)["id"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("task", [QC, QI])
def test_the_preset_none_changes_no_text_and_drops_no_row(task):
    rows = clean(RAW, "none", task, may_drop=True)
    assert rows["query"].tolist() == RAW["query"].tolist()
    assert rows["target"].tolist() == RAW["target"].fillna("").tolist()


def test_cleaning_leaves_its_input_alone():
    before = RAW.copy(deep=True)
    clean(RAW, "winner", QC, may_drop=True)
    pd.testing.assert_frame_equal(RAW, before)


def test_an_unknown_preset_names_the_choices():
    with pytest.raises(CompetitionError, match=r"'best'(?s:.*)none, winner"):
        clean(RAW, "best", QI, may_drop=False)


# Repeats


def test_repeats_are_counted_by_hand():
    report = duplicate_report(
        make_rows(
            ("en", "pan", "A", 1),
            ("en", "pan", "A", 1),  # same label
            ("en", "pan", "A", 1),  # same label
            ("en", "pot", "A", 1),
            ("en", "pot", "A", 0),  # conflict
            ("en", "pot", "A", None),  # a pair in conflict
            ("fr", "pan", "A", 0),  # other language: no repeat
            ("en", "pan", None, 1),
            ("en", "pan", None, None),  # no label, no conflict
            ("en", "Pan ", "A", 0),  # other text
        )
    )
    assert (report.n_rows, report.n_pairs, report.n_repeats) == (10, 5, 5)
    assert report.n_repeats_same_label == 2
    assert report.n_repeats_conflicting == 2
    assert report.n_repeats_unlabelled == 1
    assert report.n_conflicting_pairs == 1
    assert report.conflicts.to_dict("records") == [
        {"language": "en", "query": "pot", "target": "A", "n_rows": 3, "n_positive": 1, "ids": (4, 5, 6)}
    ]
    assert (report.n_cross_language_pairs, report.n_cross_language_rows) == (1, 5)
    assert report.cross_language.to_dict("records") == [
        {"query": "pan", "target": "A", "languages": ("en", "fr"), "n_rows": 5, "ids": (1, 2, 3, 7, 10)}
    ]


def test_lists_are_capped_and_counts_are_not():
    n_pairs = N_LISTED + 15
    pairs = [("en", f"q{number}", "t", label) for number in range(n_pairs) for label in (0, 1)]
    others = [("fr", f"Q{number}", "t", 1) for number in range(n_pairs)]
    report = duplicate_report(make_rows(*pairs, *others))
    assert report.n_conflicting_pairs == report.n_cross_language_pairs == n_pairs
    assert report.n_cross_language_rows == 3 * n_pairs
    assert report.conflicts["query"].tolist() == [f"q{number}" for number in range(N_LISTED)]
    assert len(report.cross_language) == N_LISTED


def test_rows_without_repeats_or_labels_give_an_empty_report():
    report = duplicate_report(make_rows(("en", "a", "t", None), ("en", "b", "t", None)))
    assert (report.n_repeats, report.n_conflicting_pairs, report.n_cross_language_pairs) == (0, 0, 0)
    assert report.conflicts.empty
    assert report.cross_language.empty


@settings(QUICK, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["en", "fr"]),
            st.sampled_from("aAb"),
            st.sampled_from(["t", "u", None]),
            st.sampled_from([0, 1, None]),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_the_report_equals_counting_in_plain_python(rows):
    report = duplicate_report(make_rows(*rows))
    labels: dict[tuple, list] = {}
    languages: dict[tuple, set] = {}
    for language, query, target, label in rows:
        labels.setdefault((language, query, target), []).append(label)
        languages.setdefault((query.lower(), target), set()).add(language)
    conflicting = [each for each in labels.values() if {0, 1} <= set(each)]
    same = [each for each in labels.values() if len(set(each)) == 1 and None not in each]
    assert report.n_repeats == len(rows) - len(labels)
    assert report.n_conflicting_pairs == len(report.conflicts) == len(conflicting)
    assert report.n_repeats_conflicting == sum(len(each) - 1 for each in conflicting)
    assert report.n_repeats_same_label == sum(len(each) - 1 for each in same)
    assert report.n_repeats_unlabelled == (
        report.n_repeats - report.n_repeats_same_label - report.n_repeats_conflicting
    )
    assert report.n_cross_language_pairs == sum(len(each) > 1 for each in languages.values())
