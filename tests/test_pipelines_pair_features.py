"""Lexical pair features: hand-computed cases, and properties that hold for any two texts."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.backbones.pair_features import FEATURES, NONE, PairFeatures, WordWeights, cut_up, pair_features

TARGETS = ["red running shoes size 42", "blue shirt", "Sony WH-1000XM4 headphones, 2.5 mm", "掃除機 コードレス"]
WEIGHTS = WordWeights.of(TARGETS)
TEXT = (
    st.text(max_size=20) | st.sampled_from(TARGETS) | st.lists(st.sampled_from(["red", "42", "x1", "靴"])).map(" ".join)
)


def named(query: str, target: str) -> dict[str, float]:
    return dict(zip(FEATURES, pair_features(query, target, WEIGHTS), strict=True))


def test_every_feature_has_one_name() -> None:
    assert len(set(FEATURES)) == len(FEATURES) == len(pair_features("a", "b", WEIGHTS))


def test_the_weight_of_a_word_is_its_inverse_document_frequency() -> None:
    assert WEIGHTS["shoes"] == pytest.approx(np.log(5 / 2) + 0.1)
    assert WEIGHTS["unheard"] == pytest.approx(np.log(5 / 1) + 0.1)


def test_overlap_of_words_by_hand() -> None:
    found = named("Red shoes 43", TARGETS[0])
    one, rare = np.log(5 / 2) + 0.1, np.log(5) + 0.1  # in one target, in none
    assert (found["words_query"], found["words_target"], found["common_words"]) == (3, 5, 2)
    assert found["query_covered"] == pytest.approx(2 * one / (2 * one + rare))
    assert found["target_covered"] == pytest.approx(2 / 5)
    assert found["jaccard"] == pytest.approx(2 / 6)
    assert (found["first_word_found"], found["last_word_found"], found["same_last_word"]) == (1, 0, 0)
    assert found["equal"] == 0
    # 43 is not in the target; its nearest word there is 42: one of two characters.
    assert found["soft_worst"] == pytest.approx(0.8 * 0.5)
    assert found["missing_weight"] == found["missing_weight_sum"] == pytest.approx(0.6 * rare)
    assert found["soft_covered"] == pytest.approx((2 * one + 0.4 * rare) / (2 * one + rare))
    assert found["plain_words_covered"] == 1


def test_codes_and_numbers_by_hand() -> None:
    found = named("wh1000xm4 2.5", TARGETS[2])
    assert (found["codes_query"], found["codes_target"]) == (2, 2)
    assert found["codes_found"] == 0.5  # 2.5 as a word; the other only inside
    assert (found["codes_inside"], found["codes_missing"]) == (1, 0)
    assert (found["target_codes_inside"], found["target_codes_missing"]) == (1, 0)
    assert (found["longest_code_length"], found["longest_code_match"]) == (9, 1)
    assert (found["numbers_common"], found["numbers_query"], found["numbers_target"]) == (1, 1, 1)
    assert found["plain_words_covered"] == NONE


def test_a_code_that_is_another_model_is_missing() -> None:
    found = named("WH-1000XM5", TARGETS[2])
    assert (found["codes_found"], found["codes_inside"], found["codes_missing"]) == (0, 0, 1)
    assert found["longest_code_match"] == pytest.approx(6 / 7)  # 1000xm
    assert found["numbers_query"] == 0.5  # 1000 of {1000, 5}


def test_scripts_without_blanks_share_pairs_of_characters() -> None:
    found = named("掃除", TARGETS[3])
    assert found["common_words"] == 1
    assert found["query_covered"] == 1
    assert cut_up("コード掃除").words == ("コー", "ード", "ド掃", "掃除")


def test_width_case_and_punctuation_do_not_count() -> None:
    assert named("ＳＯＮＹ　wh 1000xm4 HEADPHONES 2.5-mm", TARGETS[2])["equal"] == 1
    assert named("ＲＥＤ running-shoes, size 42!", TARGETS[0])["equal"] == 1
    assert named("ＲＥＤ running-shoes, size 42!", TARGETS[0])["ratio"] == 1


@given(TEXT, TEXT)
def test_any_two_texts_have_finite_features_in_range(query: str, target: str) -> None:
    found = named(query, target)
    assert np.isfinite(list(found.values())).all()
    assert min(found.values()) >= NONE
    shares = [name for name in FEATURES if "covered" in name or ("ratio" in name and name != "length_ratio")]
    assert all(found[name] <= 1 + 1e-9 for name in shares)


@given(TEXT)
def test_a_text_covers_itself(text: str) -> None:
    found = named(text, text)
    assert found["equal"] == 1
    if cut_up(text).words:
        assert found["query_covered"] == pytest.approx(1)
        assert found["soft_covered"] == pytest.approx(1)
        assert found["codes_missing"] == found["target_codes_missing"] == 0


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.randoms())
def test_a_pair_has_the_same_features_in_any_table(pairs: list[tuple[str, str]], random: object) -> None:
    queries, targets = [query for query, _ in pairs], [target for _, target in pairs]
    table = PairFeatures.over(TARGETS).table(queries, targets)
    assert table.shape == (len(pairs), len(FEATURES))
    assert table.dtype == np.float32
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = PairFeatures.over(TARGETS).table([queries[i] for i in order], [targets[i] for i in order])
    np.testing.assert_array_equal(again, table[order])


def test_features_are_the_same_bit_for_bit_in_every_process() -> None:
    """Sets of words have another order in every process; sums over them must not show it."""
    code = (
        "from pipelines.backbones.pair_features import WordWeights, pair_features\n"
        "words = [f'w{i}' for i in range(60)]\n"
        "weights = WordWeights.of([' '.join(words[: i + 1]) for i in range(60)])\n"
        "features = pair_features(' '.join(words[::2]), ' '.join(words[::3]), weights)\n"
        "print([float(value).hex() for value in features])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
