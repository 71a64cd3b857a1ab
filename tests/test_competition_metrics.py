"""Metrics: hand-computed cases, scikit-learn as the second opinion, and intervals that cover what they claim."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from competition.errors import CompetitionError
from competition.metrics import auc, f1, f1_from_counts, f1_interval, paired_difference, score_table

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=60)


def test_f1_by_hand() -> None:
    # 3 true positives, 1 false positive, 2 false negatives: 6 / (6 + 1 + 2)
    assert f1([1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1, 0]) == pytest.approx(6 / 9)


def test_f1_is_zero_where_nothing_is_positive() -> None:
    assert f1([0, 0], [0, 0]) == 0.0
    assert f1([0, 0], [1, 1]) == 0.0
    assert f1([1, 1], [0, 0]) == 0.0


@given(ROWS)
def test_metrics_equal_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    labels, decisions, fifths = (np.array(column) for column in zip(*rows, strict=True))
    table = score_table(labels, decisions, fifths / 4, np.zeros(len(rows)))
    assert f1(labels, decisions) == pytest.approx(f1_score(labels, decisions, zero_division=0))
    assert table["precision"].iloc[0] == pytest.approx(precision_score(labels, decisions, zero_division=0))
    assert table["recall"].iloc[0] == pytest.approx(recall_score(labels, decisions, zero_division=0))
    if len(set(labels)) == 2:
        assert auc(labels, fifths) == pytest.approx(roc_auc_score(labels, fifths))
    else:
        assert np.isnan(auc(labels, fifths))


def test_auc_counts_a_tie_as_half() -> None:
    # pairs (positive, negative): .9>.4 .9>.1 .4=.4 .4>.1 -> 3.5 of 4
    assert auc([1, 1, 0, 0], [0.9, 0.4, 0.4, 0.1]) == 3.5 / 4
    assert auc([0, 1], [0.5, 0.5]) == 0.5


def test_score_table_has_one_line_per_segment_by_hand() -> None:
    table = score_table(
        labels=[1, 1, 0, 0, 1, 1],
        decisions=[1, 0, 1, 0, 1, 1],
        scores=[0.9, 0.3, 0.6, 0.1, 0.8, 0.7],
        by=["fr", "fr", "fr", "fr", "en", "en"],
    )
    assert table.index.tolist() == ["en", "fr"]
    assert table.loc["fr"].tolist() == [4, 2, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert table.loc["en"].tolist()[:6] == [2, 2, 1.0, 1.0, 1.0, 1.0]
    assert np.isnan(table.loc["en", "auc"])
    assert table.columns.tolist() == ["rows", "positives", "positive_rate", "f1", "precision", "recall", "auc"]


def test_bad_input_is_refused_with_every_fault() -> None:
    with pytest.raises(CompetitionError) as error:
        score_table([0, 2, 1], [0, 1, np.nan], [0.1, 0.2, np.inf], ["en", None, "fr"])
    assert [fault.where for fault in error.value.faults] == ["labels", "decisions", "scores", "by"]
    with pytest.raises(CompetitionError, match="labels 2, decisions 3"):
        f1([0, 1], [0, 1, 1])
    with pytest.raises(CompetitionError, match="at least one"):
        f1([], [])
    with pytest.raises(CompetitionError, match="0 or 1"):
        f1(pd.array([1, None], dtype="Int8"), [1, 1])


def _rows(n_groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, decisions and groups of 1 to 9 rows; the rows of a group share their accuracy."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 10, size=n_groups))
    labels = (rng.random(len(groups)) < 0.6).astype(int)
    right = rng.random(len(groups)) < rng.beta(4, 1, size=n_groups)[groups]
    return labels, np.where(right, labels, 1 - labels), groups


def test_interval_equals_the_plain_bootstrap_over_groups() -> None:
    labels, decisions, groups = _rows(200, seed=1)
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in range(200)]
    draws = []
    for _ in range(2000):
        rows = np.concatenate([members[group] for group in rng.integers(200, size=200)])
        draws.append(f1(labels[rows], decisions[rows]))
    interval = f1_interval(labels, decisions, groups, n_draws=2000)
    assert interval.estimate == f1(labels, decisions)
    assert interval.low == pytest.approx(np.quantile(draws, 0.025), abs=0.004)
    assert interval.high == pytest.approx(np.quantile(draws, 0.975), abs=0.004)
    assert interval.standard_error == pytest.approx(np.std(draws), rel=0.1)


def test_interval_covers_the_true_f1_about_95_times_in_100() -> None:
    truth = f1(*_rows(100_000, seed=99)[:2])
    intervals = [f1_interval(*_rows(150, seed=seed), n_draws=400) for seed in range(200)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.99


def test_intervals_do_not_depend_on_row_order_or_group_names() -> None:
    labels, decisions, groups = _rows(100, seed=3)
    order = np.random.default_rng(0).permutation(len(groups))
    names = np.array([f"q{group}" for group in groups], dtype=object)
    plain = f1_interval(labels, decisions, groups, seed=5)
    assert plain == f1_interval(labels[order], decisions[order], names[order], seed=5)
    assert plain != f1_interval(labels, decisions, groups, seed=6)


def test_paired_difference_is_signed_and_narrower_than_the_single_intervals() -> None:
    labels, decisions, groups = _rows(2000, seed=4)
    worse = decisions.copy()
    worse[::40] = 1 - worse[::40]
    gain = paired_difference(labels, decisions, worse, groups)
    single = f1_interval(labels, decisions, groups)
    assert gain.estimate == pytest.approx(f1(labels, decisions) - f1(labels, worse))
    assert 0 < gain.low < gain.high
    assert gain.high - gain.low < (single.high - single.low) / 2


def test_a_vector_does_not_differ_from_itself() -> None:
    labels, decisions, groups = _rows(50, seed=5)
    gain = paired_difference(labels, decisions, decisions, groups)
    assert (gain.estimate, gain.low, gain.high, gain.standard_error) == (0, 0, 0, 0)


def test_300_000_rows_take_less_than_a_second() -> None:
    labels, decisions, groups = _rows(60_000, seed=6)
    start = time.process_time()
    f1_interval(labels, decisions, groups)
    assert len(labels) > 290_000
    assert time.process_time() - start < 1.0


def test_f1_from_counts_is_elementwise() -> None:
    assert f1_from_counts([1, 0, 2], [0, 0, 2], [0, 0, 2]).tolist() == [1.0, 0.0, 0.5]
