"""Comparisons of two models: McNemar against scipy, and a table whose lines are those of the single functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from competition.comparison import difference_table
from competition.errors import CompetitionError
from competition.metrics import f1, mcnemar, paired_difference


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(first: int, second: int) -> None:
    labels = np.ones(first + second + 3)
    decisions, other = np.ones_like(labels), np.ones_like(labels)
    other[:first] = 0
    decisions[first : first + second] = 0
    found = mcnemar(labels, decisions, other)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert (found.only_first, found.only_second) == (first, second)
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_very_many_rows_does_not_underflow() -> None:
    labels = np.ones(400_000)
    other = np.arange(400_000) % 2
    assert mcnemar(labels, 1 - other, other).p_value == 1.0
    assert mcnemar(labels[:900], labels[:900], np.arange(900) >= 800).p_value == pytest.approx(2.0**-799)


def test_every_line_is_what_the_single_functions_say_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    labels, decisions, other = rng.integers(0, 2, (3, 600))
    groups, language = rng.integers(0, 90, 600), rng.choice(["th", "en", "fr"], 600)
    table = difference_table(labels, decisions, other, groups, language)
    assert table["segment"].tolist() == ["all", "en", "fr", "th"]
    assert table["rows"].iloc[0] == table["rows"].iloc[1:].sum() == 600
    french = language == "fr"
    line = table.set_index("segment").loc["fr"]
    gap = paired_difference(labels[french], decisions[french], other[french], groups[french])
    assert (line["difference"], line["low"], line["high"]) == (gap.estimate, gap.low, gap.high)
    assert line["f1"] - line["f1_other"] == pytest.approx(gap.estimate)
    assert line["f1"] == f1(labels[french], decisions[french])


def test_turning_the_comparison_round_turns_its_signs() -> None:
    rng = np.random.default_rng(1)
    labels, decisions, other = rng.integers(0, 2, (3, 200))
    there = difference_table(labels, decisions, other, np.arange(200), ["en"] * 200).iloc[0]
    back = difference_table(labels, other, decisions, np.arange(200), ["en"] * 200).iloc[0]
    assert there["difference"] == -back["difference"]
    assert (there["only_first"], there["p_value"]) == (back["only_second"], back["p_value"])


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(CompetitionError, match="lengths"):
        difference_table([1, 0], [1, 0], [1, 0], [1, 2], ["en"])
