"""Adversarial validation: chance where files are alike, certainty where they are not, and the reason named."""

import numpy as np
import pandas as pd
import pytest

from competition.adversarial import adversarial_validation, auc_interval
from competition.adversarial_features import row_features
from competition.dealing import deal
from competition.errors import CompetitionError
from competition.folds import Dealt, FoldPlan
from competition.metrics import auc
from competition.tasks import QC, QI

WORDS = ("red", "blue", "shoe", "lamp", "usb", "cable", "pan", "chair", "desk", "cup")


def make_rows(n_rows: int, *, seed: int, odd: int = 0, languages: tuple[str, ...] = ("en", "fr")) -> pd.DataFrame:
    """Rows of queries of three words and a number, even or odd; otherwise of the same kind."""
    rng = np.random.default_rng(seed)
    draw = rng.integers(0, n_rows // 4, n_rows)
    words = np.array(WORDS)[np.random.default_rng(odd).integers(0, len(WORDS), (n_rows // 4, 3))]
    frame = {
        "id": pd.Series(range(n_rows)),
        "language": pd.Series(np.array(languages)[draw % len(languages)], dtype="str"),
        "query": pd.Series([f"{' '.join(words[d])} {10_000 + 2 * d + odd}" for d in draw], dtype="str"),
        "target": pd.Series([f"top {t % 4},leaf {t}" for t in rng.integers(0, 60, n_rows)], dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


def query_folds(rows: pd.DataFrame, n_splits: int = 5) -> Dealt:
    return deal(FoldPlan("query-group", n_splits=n_splits), rows, task=QC)


def test_files_that_are_alike_cannot_be_told_apart():
    train, other = make_rows(2000, seed=1), make_rows(2000, seed=2, odd=1)
    found = adversarial_validation(train, other, task=QC, dealt=query_folds(train))
    assert found.auc.low < 0.53
    assert found.auc.estimate < 0.56
    assert (found.features["auc"] < 0.56).all()


def test_another_language_is_found_and_named():
    train = make_rows(1500, seed=1)
    other = make_rows(1500, seed=2, odd=1, languages=("en", "th"))
    found = adversarial_validation(train, other, task=QC, dealt=query_folds(train))
    assert found.auc.low > 0.7
    assert found.features["feature"].head(3).str.contains("th|language: stands in train|fr").all()
    assert found.blocks.set_index("block")["auc"]["language"] > 0.7
    assert found.languages["language"].tolist() == ["en"]
    assert found.languages["auc"][0] < 0.62


def test_a_word_and_a_script_of_one_file_are_named():
    train, other = make_rows(1000, seed=1), make_rows(1000, seed=2, odd=1)
    other["query"] = "ไทย " + other["query"]
    found = adversarial_validation(train, other, task=QI, dealt=query_folds(train))
    assert found.auc.estimate > 0.99
    assert found.words.loc[0, ["text", "word", "train", "other"]].tolist() == ["query", "ไทย", 0.0, 1.0]
    assert found.features["feature"].head(5).str.contains("share of thai letters").any()


def test_the_overlap_of_folds_is_told_from_that_of_test():
    train, other = make_rows(2000, seed=1), make_rows(2000, seed=2, odd=1)
    matched = adversarial_validation(train, other, task=QC, dealt=query_folds(train)).blocks.set_index("block")
    plan = FoldPlan("category-group", depth=1, n_splits=3)
    unlike = adversarial_validation(train, other, task=QC, dealt=deal(plan, train, task=QC)).blocks.set_index("block")
    assert matched.loc["overlap", "auc"] < 0.56
    assert unlike.loc["overlap", "auc"] > 0.95


def test_labels_are_not_looked_at():
    train, other = make_rows(600, seed=1), make_rows(600, seed=2)
    flipped = train.assign(label=1 - train["label"])
    first, second = (adversarial_validation(rows, other.drop(columns="label"), task=QC) for rows in (train, flipped))
    assert first.auc == second.auc
    assert first.features.equals(second.features)


def test_what_stands_in_train_is_counted_by_hand():
    rows = pd.DataFrame(
        {"language": ["en", "en", "fr", "en"], "query": ["a", "a", "b", "a"], "target": ["x", "y", "x", "z"]}
    )
    origin = np.array([0, 0, 0, 1], dtype=np.int8)
    alone = row_features(rows, origin, task=QI)["overlap"]
    assert alone["language: stands in train"].tolist() == [1, 1, 0, 1]
    assert np.expm1(alone["query: rows of train with it"]).round(9).tolist() == [1, 1, 0, 2]
    assert alone["target: stands in train"].tolist() == [1, 0, 1, 0]
    folds = Dealt(pd.Series([0, 0, 1]), pd.Series(["a", "a", "b"]))
    held_out = row_features(rows, origin, task=QI, dealt=folds)["overlap"]
    assert held_out["language: stands in train"].tolist() == [0, 0, 0, 1]
    assert held_out["target: stands in train"].tolist() == [1, 0, 1, 0]
    assert np.expm1(held_out["target: rows of train with it"]).round(9).tolist() == [3, 0, 1.5, 0]


def test_the_interval_holds_the_auc_and_widens_with_dependent_rows():
    rng = np.random.default_rng(0)
    origin = rng.integers(0, 2, 400).astype(np.int8)
    scores = np.round(rng.random(400) + 0.3 * origin, 2)
    alone = auc_interval(origin, scores, np.arange(400))
    assert alone.estimate == auc(origin, scores)
    assert alone.low < alone.estimate < alone.high
    copies = auc_interval(np.tile(origin, 4), np.tile(scores, 4), np.tile(np.arange(400), 4))
    assert copies.standard_error == pytest.approx(alone.standard_error, rel=1e-9)


def test_files_of_a_few_queries_are_refused_by_name():
    with pytest.raises(CompetitionError, match=r"the other file: 1 queries"):
        adversarial_validation(make_rows(200, seed=1), make_rows(200, seed=1)[:1], task=QC)
