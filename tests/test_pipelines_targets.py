"""What rows are learnt towards: soft labels and weights mean the same to every head; plain rows train as ever."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_rows

from competition.tasks import QC, QI
from pipelines.backbones import build
from pipelines.backbones.boosting import Boosting, probabilities
from pipelines.backbones.pair_heads import DenseRows, fit_head, score_head
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe
from pipelines.targets import EXTRA, SOFT, WEIGHT, Targets

PATHS = ["pets", "pets,dogs", "pets,dogs,toys", "pets,cats", "shoes"]
KINDS: list[tuple[str, list[str]]] = [
    ("lexical", ["head.rounds=20"]),
    ("lexical-linear", []),
    ("e5-bi", ["head.epochs=30", 'head.kinds=["logistic", "mlp", "lightgbm"]', "head.rounds=10"]),
    ("e5-tree", ["head.rounds=20"]),
    ("e5-tree-mlp", ["head.epochs=30"]),
]


def taught(rows: pd.DataFrame, soft: Any, weight: Any = 1.0) -> pd.DataFrame:
    """The rows with soft labels and weights."""
    return rows.assign(**{SOFT: np.asarray(soft, dtype=float), WEIGHT: weight, EXTRA: False})


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -labels * np.log(probabilities) - (1 - labels) * np.log(1 - probabilities)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 3), st.floats(0.01, 0.99)), min_size=1, max_size=20))
def test_halves_have_the_log_loss_of_the_soft_rows(rows: list[tuple[float, float, float]]) -> None:
    soft, weights, scores = (np.array(column) for column in zip(*rows, strict=True))
    places, labels, shares = Targets(soft, weights).halves()
    whole = (weights * cross_entropy(scores, soft)).sum()
    assert shares is not None
    assert (shares > 0).all()
    assert (shares * cross_entropy(scores[places], labels)).sum() == pytest.approx(whole)
    assert shares.sum() == pytest.approx(weights.sum())


def test_hard_labels_of_weight_one_are_plain() -> None:
    rows = make_rows(20, seed=1)
    plain, same = Targets.of(rows), Targets.of(taught(rows, rows["label"]))
    assert same.weights is plain.weights is None
    assert same.labels.dtype == plain.labels.dtype == np.int8
    assert plain.halves().weights is None
    weighted = Targets.of(taught(rows, rows["label"], 2.0)).halves()
    assert weighted.labels.tolist() == rows["label"].tolist()
    assert weighted.places.tolist() == list(range(20))


def test_joined_targets_keep_what_each_part_has() -> None:
    joined = Targets.joined([Targets(np.array([0.5])), Targets(np.array([1], dtype=np.int8), np.array([3.0]))])
    assert joined.labels.tolist() == [0.5, 1.0]
    assert joined.weights is not None
    assert joined.weights.tolist() == [1.0, 3.0]
    assert Targets.joined([Targets(np.array([1], dtype=np.int8))] * 2).weights is None


def scores_of(name: str, overrides: list[str], rows: pd.DataFrame, bert: Path, folder: Path) -> np.ndarray:
    own = [] if name.startswith("lexical") else [f"weights.name={bert}"]
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([rows]), 3, threads=1)
    task = QC if "tree" in name else QI
    return build(load_recipe(name, [*own, *overrides]), space).fit(rows, task).predict(rows, task)


@pytest.mark.parametrize(("name", "overrides"), KINDS, ids=lambda each: each if isinstance(each, str) else "")
def test_every_kind_honours_soft_labels_and_weights(
    name: str, overrides: list[str], bert: Path, tmp_path: Path
) -> None:
    rows = make_rows(150, seed=1, targets=PATHS if "tree" in name else None)
    labels = rows["label"].to_numpy(dtype=float)
    plain = scores_of(name, overrides, rows, bert, tmp_path)
    same = scores_of(name, overrides, taught(rows, labels), bert, tmp_path)
    np.testing.assert_array_equal(same, plain)
    doubting = scores_of(name, overrides, taught(rows, 0.5 + 0.5 * labels), bert, tmp_path)
    assert doubting.mean() > plain.mean() + 0.05
    leaning = scores_of(name, overrides, taught(rows, labels, 1 + 9 * labels), bert, tmp_path)
    assert leaning.mean() > plain.mean() + 0.05


def test_every_head_finds_the_rate_that_soft_labels_and_weights_say() -> None:
    """Nothing to see in the features: what is left is the weighted mean of the soft labels."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 2)).astype(np.float32)
    targets = Targets(np.tile([0.9, 0.2], 2000), np.tile([1.0, 3.0], 2000))
    trees = Boosting(30, 2, 0.1, 500, 3, 1).fit(features, targets)
    network = fit_head(DenseRows(features), targets, hidden=0, epochs=20, dropout=0.0, learning_rate=0.02,
                       weight_decay=0.0, seed=3, threads=1)  # fmt: skip
    for scores in (probabilities(trees, features, threads=1), score_head(network, DenseRows(features), threads=1)):
        assert scores.mean() == pytest.approx((0.9 + 3 * 0.2) / 4, abs=0.02)
