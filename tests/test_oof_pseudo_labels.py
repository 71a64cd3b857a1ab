"""Pseudo-labels: sure, balanced in languages and labels, and the same whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError
from oof.pseudo_labels import select_pseudo_labels
from oof.weights import sigmoid


def make(seed: int, n_rows: int = 4000) -> tuple[pd.DataFrame, np.ndarray]:
    """An easy language (sure scores), a hard one, and one that is not sure of anything."""
    rng = np.random.default_rng(seed)
    language = rng.choice(["easy", "hard", "none"], n_rows)
    spread = pd.Series(language).map({"easy": 6.0, "hard": 2.0, "none": 0.1}).to_numpy()
    rows = pd.DataFrame({"id": rng.permutation(n_rows), "language": language})
    return rows, sigmoid(rng.normal(0.7, 1.0, n_rows) * spread)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.6, 0.99), st.floats(1.0, 3.0))
def test_the_rules_hold(seed: int, confidence: float, balance: float) -> None:
    rows, scores = make(seed, 600)
    chosen = select_pseudo_labels(rows, scores, confidence=confidence, balance=balance)
    assert chosen["id"].is_unique
    assert (np.where(chosen["label"] == 1, chosen["score"], 1 - chosen["score"]) >= confidence).all()
    by_id = pd.Series(scores, index=rows["id"])
    assert (by_id.loc[chosen["id"]].to_numpy() == chosen["score"].to_numpy()).all()
    assert "none" not in set(chosen["language"])


def test_an_easy_language_does_not_crowd_out_a_hard_one() -> None:
    rows, scores = make(0)
    strict, loose = (
        select_pseudo_labels(rows, scores, balance=balance)["language"].value_counts() for balance in (1.0, 100.0)
    )
    assert strict["easy"] < loose["easy"]
    assert strict["hard"] == loose["hard"]
    share = strict / rows["language"].value_counts()
    assert share["easy"] <= loose.sum() / len(rows) + 1 / 1000


def test_the_share_of_positives_is_what_the_scores_expect() -> None:
    rows, scores = make(1)
    chosen = select_pseudo_labels(rows, scores)
    for language in ("easy", "hard"):
        expected = scores[rows["language"] == language].mean()
        assert chosen[chosen["language"] == language]["label"].mean() == pytest.approx(expected, abs=0.01)


def test_the_order_of_the_rows_changes_nothing_ties_included() -> None:
    rows, scores = make(2)
    scores = np.round(scores, 2)
    shuffle = np.random.default_rng(0).permutation(len(rows))
    there = select_pseudo_labels(rows, scores).sort_values("id", ignore_index=True)
    again = select_pseudo_labels(rows.iloc[shuffle].reset_index(drop=True), scores[shuffle])
    pd.testing.assert_frame_equal(there, again.sort_values("id", ignore_index=True))


def test_the_surest_rows_are_taken() -> None:
    rows = pd.DataFrame({"id": range(8), "language": "en"})
    scores = np.array([0.99, 0.95, 0.91, 0.98, 0.01, 0.5, 0.5, 0.5])
    chosen = select_pseudo_labels(rows, scores)
    assert chosen["id"].tolist() == [0, 3, 4]  # two thirds expected positive: one sure negative allows two positives


def test_nothing_sure_gives_no_rows_and_bad_input_is_refused() -> None:
    rows = pd.DataFrame({"id": [1, 2], "language": "en"})
    assert select_pseudo_labels(rows, np.array([0.5, 0.6])).empty
    assert select_pseudo_labels(rows.iloc[:0], np.empty(0)).empty
    with pytest.raises(CompetitionError) as caught:
        select_pseudo_labels(rows, np.array([2.0]), confidence=0.2, balance=0.5)
    assert all(word in str(caught.value) for word in ("scores", "confidence", "balance", "2.0"))
