"""Level-2 features: hand-computed, blind to labels and to other folds, the same in any row order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from oof.features import SCRIPTS, language_codes, level2_features, percentile_ranks, text_features, with_novelty
from oof.frame import PredictionFrame
from oof.simulate import simulate

LOGITS = np.array([[2.0, 0.0], [1.0, 1.0], [-1.0, 3.0], [0.0, -2.0]])


def _by_hand(**columns: object) -> PredictionFrame:
    rows = pd.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "language": ["en", "en", "en", "fr"],
            "query": ["red shoe", "red shoe", "hat", "red shoe"],
            "target": ["a", "b", "b", "b"],
            **columns,
        }
    )
    return PredictionFrame(rows, 1 / (1 + np.exp(-LOGITS)), ("x", "y"))


def test_score_features_by_hand() -> None:
    features = level2_features(_by_hand(), languages=["en"])
    assert features["logit__x"].to_numpy() == pytest.approx(LOGITS[:, 0])
    assert features["rank__x"].tolist() == [0.875, 0.625, 0.125, 0.375]
    assert features["logit_mean"].to_numpy() == pytest.approx([1, 1, 1, -1])
    assert features["logit_std"].to_numpy() == pytest.approx([1, 0, 2, 1])
    assert features["logit_min"].to_numpy() == pytest.approx([0, 1, -1, -2])
    assert features["logit_max"].to_numpy() == pytest.approx([2, 1, 3, 0])
    scores = _by_hand().scores
    assert features["disagreement"].to_numpy() == pytest.approx(abs(scores[:, 0] - scores[:, 1]))


def test_disagreement_is_the_mean_over_all_pairs() -> None:
    rows = pd.DataFrame({"id": [1], "language": ["en"]})
    frame = PredictionFrame(rows, np.array([[0.1, 0.6, 0.9]]), ("a", "b", "c"))
    assert level2_features(frame, languages=[])["disagreement"].iloc[0] == pytest.approx((0.5 + 0.8 + 0.3) / 3)


def test_group_features_by_hand() -> None:
    features = level2_features(_by_hand(), languages=["en"])
    # query groups: rows 1 and 2 (en, red shoe), row 3 (en, hat), row 4 (fr, red shoe)
    assert features["query_size"].tolist() == [2, 2, 1, 1]
    assert features["query_median__x"].to_numpy() == pytest.approx([1.5, 1.5, -1, 0])
    assert features["query_min__x"].to_numpy() == pytest.approx([1, 1, -1, 0])
    assert features["query_max__y"].to_numpy() == pytest.approx([1, 1, 3, -2])
    assert features["query_gap__x"].to_numpy() == pytest.approx([0, 1, 0, 0])
    assert features["query_rank__y"].tolist() == [2, 1, 1, 1]
    assert features["query_rank__mean"].tolist()[2:] == [1, 1]
    # target groups: row 1, and rows 2 to 4, in any language
    assert features["target_size"].tolist() == [1, 3, 3, 3]
    assert features["target_median__x"].to_numpy() == pytest.approx([2, 0, 0, 0], abs=1e-12)
    assert features["target_gap__y"].to_numpy() == pytest.approx([0, 2, 0, 5])
    assert features["target_rank__x"].tolist() == [1, 1, 3, 2]


def test_equal_scores_share_the_better_rank() -> None:
    rows = pd.DataFrame({"id": [1, 2, 3], "language": "en", "query": "q"})
    frame = PredictionFrame(rows, np.array([[0.5], [0.5], [0.2]]), ("x",))
    assert level2_features(frame, languages=[])["query_rank__x"].tolist() == [1, 1, 3]


def test_text_features_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "query": ["Zapatos Rojos, rojos", "赤い 靴 A", "", "รองเท้า"],
            "query_en": ["red shoes", "red shoe", "", "shoes"],
            "target": ["Red Shoes", "fashion,kitchen, dining & bar,shoe", "x", None],
        }
    )
    features = text_features(rows)
    assert features["query_length"].tolist() == [20, 6, 0, 7]
    assert features["query_words"].tolist() == [3, 3, 0, 1]
    assert features["query_non_latin"].fillna(-1).tolist() == [0.0, 0.75, -1, 1.0]
    assert features["query_script"].fillna(-1).tolist() == [0, SCRIPTS.index("Han"), -1, SCRIPTS.index("Thai")]
    assert features["target_levels"].tolist() == [1, 3, 1, 1]
    assert features["query_overlap"].fillna(-1).tolist() == [0, 0, -1, 0]
    assert features["query_en_overlap"].fillna(-1).tolist() == [1.0, 0.5, -1, 0]


def test_absent_columns_give_no_features() -> None:
    frame = _by_hand()
    bare = PredictionFrame(frame.rows[["id", "language"]], frame.scores, frame.learners)
    assert not [name for name in level2_features(bare, languages=["en"]) if name.startswith(("query", "target"))]


def test_an_unseen_language_is_missing() -> None:
    assert language_codes(pd.Series(["fr", "vn"]), ["en", "fr"]).fillna(-1).tolist() == [1, -1]


def test_features_do_not_look_at_labels() -> None:
    frame = simulate(400, 3, 0, language_quality=True, correlation=0.2).oof
    with_labels = level2_features(frame, languages=["en"])
    pd.testing.assert_frame_equal(with_labels, level2_features(frame.without_labels(), languages=["en"]))


def test_features_of_a_fold_do_not_depend_on_other_folds() -> None:
    frame = _by_hand(fold=np.array([0, 1, 1, 0], dtype=np.int8), query="one query")
    together = level2_features(frame, languages=["en"])
    for k in (0, 1):
        alone = level2_features(frame.take(frame.fold == k), languages=["en"])
        pd.testing.assert_frame_equal(together[frame.fold == k].reset_index(drop=True), alone)


def test_reordering_rows_changes_nothing() -> None:
    frame = simulate(500, 3, 1, language_quality=True, correlation=0.2).oof
    order = np.random.default_rng(0).permutation(frame.n_rows)
    shuffled = level2_features(frame.take(order), languages=["en", "fr"])
    expected = level2_features(frame, languages=["en", "fr"]).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(shuffled, expected, rtol=1e-12)


def test_percentile_ranks_do_not_change_under_recalibration() -> None:
    frame = simulate(300, 2, 2, language_quality=False, correlation=0.2).oof
    squared = PredictionFrame(frame.rows, frame.scores**2, frame.learners)
    assert np.array_equal(percentile_ranks(frame), percentile_ranks(squared))


def test_what_the_models_of_a_row_had_not_seen_is_a_feature() -> None:
    learned = pd.DataFrame({"language": ["en"], "target": ["a"]})
    rows = with_novelty(_by_hand().rows, learned)
    assert rows["unseen_language"].tolist() == [False, False, False, True]
    assert rows["unseen_target"].tolist() == [False, True, True, True]
    features = level2_features(PredictionFrame(rows, _by_hand().scores, ("x", "y")), languages=["en"])
    assert features["unseen_target"].tolist() == [0, 1, 1, 1]


def test_texts_that_are_stored_in_pieces_have_the_same_features() -> None:
    """Columns of large files are: their rows must not be counted anew in every piece."""
    texts = {
        "query": ["red shoe", "掃除機", ""],
        "query_en": ["", "vacuum cleaner", ""],
        "target": ["shoe", "a,b", "red"],
    }
    whole = pd.DataFrame(texts, dtype="str")
    pieces = pd.concat([whole[:1], whole[1:]])
    assert pa.array(pieces["query"]).num_chunks == 2
    pd.testing.assert_frame_equal(text_features(pieces), text_features(whole))
