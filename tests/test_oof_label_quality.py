"""Doubted labels: flipped labels are found, and the report adds up."""

from dataclasses import replace

import numpy as np
import pandas as pd

from oof.label_quality import doubt_table, doubted, doubted_rows
from oof.simulate import simulate
from oof.threshold import decide

FRAME = simulate(6000, 4, 0, language_quality=False, correlation=0.3, n_fresh=10).oof
DECISIONS = decide(FRAME.scores, 0.5)
LANGUAGE = FRAME.rows["language"].to_numpy()


def test_labels_that_were_turned_round_are_doubted_most() -> None:
    labels = FRAME.labels
    sure = np.flatnonzero(np.abs(FRAME.scores.mean(axis=1) - labels) < 0.1)[:200]
    turned = labels.copy()
    turned[sure] = 1 - turned[sure]
    assert doubted(turned, DECISIONS)[sure].all()
    assert not doubted(labels, DECISIONS)[sure].any()
    frame = replace(FRAME, rows=FRAME.rows.assign(label=pd.array(turned, dtype="Int8")))
    listed = doubted_rows(frame, DECISIONS, top=250)["id"]
    assert np.isin(listed, frame.rows["id"].iloc[sure]).mean() > 0.6  # the others are sure mistakes of the learners
    assert np.isin(doubted_rows(FRAME, DECISIONS, top=250)["id"], frame.rows["id"].iloc[sure]).sum() == 0


def test_the_languages_add_up_and_both_labels_do() -> None:
    table = doubt_table(FRAME.labels, DECISIONS, LANGUAGE)
    assert table["language"].tolist() == ["all", *sorted(set(LANGUAGE))]
    counts = table[["rows", "doubted", "doubted_positive", "doubted_negative"]]
    assert (counts.iloc[0] == counts.iloc[1:].sum()).all()
    assert (table["doubted"] == table["doubted_positive"] + table["doubted_negative"]).all()


def test_learners_that_err_independently_doubt_what_is_expected() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50_000).astype(np.int8)
    wrong = rng.random((50_000, 3)) < [0.2, 0.3, 0.4]
    decisions = np.where(wrong, 1 - labels[:, None], labels[:, None]).astype(np.int8)
    line = doubt_table(labels, decisions, np.repeat("en", 50_000)).iloc[0]
    assert abs(line["if_independent"] - 0.024) < 0.001
    assert abs(line["share"] - line["if_independent"]) < 0.003
    alike = np.repeat(decisions[:, :1], 3, axis=1)
    assert doubt_table(labels, alike, np.repeat("en", 50_000)).iloc[0]["share"] > 0.15


def test_a_language_of_one_label_and_no_doubts_at_all_work() -> None:
    table = doubt_table(np.ones(3, dtype=np.int8), np.ones((3, 2), dtype=np.int8), np.array(["en", "en", "fr"]))
    assert table["doubted"].tolist() == [0, 0, 0]
    perfect = np.repeat(FRAME.labels[:, None], 4, axis=1)
    assert doubted_rows(FRAME, perfect, top=5).empty
