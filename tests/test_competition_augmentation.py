"""Noise keeps labels and groups, names its parent, and depends on a row's id alone."""

from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA
from tiny import PATHS, make_rows

from competition.augmentation import (
    SHOWN,
    casing_noise,
    draws,
    fresh_ids,
    random_suffix,
    typo_noise,
    with_casing,
    with_extra,
    with_suffixes,
    with_typos,
)
from competition.categories import levels


def rows_of_paths(n_rows: int, *, seed: int) -> pd.DataFrame:
    """Rows of category paths, grouped by query."""
    rows = make_rows(n_rows, seed=seed, targets=PATHS)
    return rows.assign(group=rows["query"])


@settings(deadline=None)
@given(st.text(alphabet="abcdefghij xyzñßжλ123-掃ン", max_size=40), st.integers(0, 99))
def test_a_word_has_at_most_one_typo_and_keeps_its_first_letter(text: str, seed: int) -> None:
    noisy = typo_noise(text, Random(seed), rate=1.0)
    assert typo_noise(text, Random(seed), rate=1.0) == noisy
    words, changed = text.split(" "), noisy.split(" ")
    assert len(words) == len(changed)
    for word, other in zip(words, changed, strict=True):
        assert OSA.distance(word, other) <= 1
        assert word[:1] == other[:1]


@pytest.mark.parametrize("text", ["wh-1000xm4", "42mm", "usb", "掃除機", "ワイヤレス", "청소기", "เครื่องดูดฝุ่น", ""])
def test_codes_short_words_and_scripts_without_letters_stay(text: str) -> None:
    assert all(typo_noise(text, Random(seed), rate=1.0) == text for seed in range(20))


@pytest.mark.parametrize("text", ["наушники", "ακουστικά", "سماعات", "headphones", "auriculares"])
def test_every_alphabet_gets_typos(text: str) -> None:
    assert all(OSA.distance(text, typo_noise(text, Random(seed), rate=1.0)) == 1 for seed in range(20))


def test_all_kinds_of_typos_are_made() -> None:
    lengths = {len(typo_noise("wireless", Random(seed), rate=1.0)) for seed in range(50)}
    assert lengths == {7, 8, 9}
    same_letters = [typo_noise("wireless", Random(seed), rate=1.0) for seed in range(50)]
    assert any(sorted(text) == sorted("wireless") for text in same_letters)  # a swap
    assert any(len(text) == 8 and sorted(text) != sorted("wireless") for text in same_letters)  # a neighbouring key


def test_casing_changes_case_alone() -> None:
    found = {casing_noise("red Shoes", Random(seed)) for seed in range(20)}
    assert found == {"RED SHOES", "red shoes", "Red shoes", "Red Shoes"}
    assert casing_noise("掃除機", Random(0)) == "掃除機"


@pytest.mark.parametrize("path", ["home & garden,kitchen, dining & bar,cookware", "pets,dogs"])
def test_a_suffix_is_the_end_of_the_path(path: str) -> None:
    names = levels(path)
    for seed in range(10):
        kept = levels(random_suffix(path, Random(seed)))
        assert 1 <= len(kept) < len(names)
        assert kept == names[-len(kept) :]
    assert random_suffix("pets", Random(0)) == "pets"


def test_copies_keep_label_group_and_target_and_name_their_parent() -> None:
    rows = rows_of_paths(300, seed=1)
    for copies in (
        with_typos(rows, share=0.5, rate=0.5, seed=0),
        with_casing(rows, share=0.5, seed=0),
        with_suffixes(rows, share=0.5, seed=0),
    ):
        assert 50 < len(copies) < 200
        parents = rows.set_index("id").loc[copies["parent"]]
        for column in ("label", "group", "target", "language"):
            np.testing.assert_array_equal(copies[column], parents[column])
    shown = with_suffixes(rows, share=1.0, seed=0)
    assert all(t.endswith(s) and s != t for t, s in zip(shown["target"], shown[SHOWN], strict=True))


def test_what_happens_to_a_row_depends_on_its_id_alone() -> None:
    rows = rows_of_paths(200, seed=2)
    whole = with_typos(rows, share=0.5, rate=0.5, seed=3).set_index("parent")["query"]
    part = rows.sample(90, random_state=1)
    some = with_typos(part, share=0.5, rate=0.5, seed=3).set_index("parent")["query"]
    assert some.to_dict() == whole[whole.index.isin(part["id"])].to_dict()
    other = with_typos(rows, share=0.5, rate=0.5, seed=4).set_index("parent")["query"]
    assert other.to_dict() != whole.to_dict()


def test_extra_rows_come_last_with_new_ids_whatever_the_order() -> None:
    rows = rows_of_paths(100, seed=2)
    extra = [with_typos(rows, share=0.3, rate=0.9, seed=0), with_suffixes(rows, share=0.3, seed=0)]
    together = with_extra(rows, extra)
    pd.testing.assert_frame_equal(together[list(rows)][: len(rows)], rows)
    assert together["parent"][: len(rows)].isna().all()
    assert together["parent"][len(rows) :].isin(rows["id"]).all()
    assert together["id"].is_unique
    assert (together[SHOWN][: len(rows)] == "").all()
    back = rows[::-1]
    turned = with_extra(back, [with_typos(back, share=0.3, rate=0.9, seed=0), with_suffixes(back, share=0.3, seed=0)])
    pd.testing.assert_frame_equal(turned[len(rows) :], together[len(rows) :])


def test_ids_that_are_texts_get_texts() -> None:
    rows = rows_of_paths(30, seed=2)
    rows["id"] = "row " + rows["id"].astype("str")
    together = with_extra(rows, [with_typos(rows, share=1.0, rate=0.9, seed=0)])
    assert together["id"].is_unique
    assert together["id"].dtype == rows["id"].dtype
    assert fresh_ids(pd.Series([-5, 3]), 2).tolist() == [-6, -7]


def test_draws_are_even() -> None:
    found = draws(pd.Series(range(4000)), "typos", seed=0)
    assert abs(found.mean() - 0.5) < 0.02
    assert np.bincount((found * 4).astype(int)).min() > 900
