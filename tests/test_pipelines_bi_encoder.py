"""The bi-encoder base learner: heads on pair features of frozen embeddings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny import PATHS, assert_probabilities, make_rows, odd_rows, one_by_one

from competition.tasks import QC, QI, Task
from pipelines.backbones import bi_encoder, load
from pipelines.backbones.bi_encoder import BiEncoder
from pipelines.backbones.pair_heads import PairVectors
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe

KINDS = ["logistic", "mlp", "lightgbm"]
TRAIN, FRESH = make_rows(400, seed=1, targets=PATHS), make_rows(150, seed=2, targets=PATHS)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("space")
    return Workspace(folder / "cache", folder / "scratch", Corpus.of([TRAIN, FRESH]), seed=3, threads=1)


def fit(model: Path, space: Workspace, *kinds: str, train: pd.DataFrame = TRAIN, task: Task = QI) -> BiEncoder:
    settings = [f"weights.name={model}", "encoder.max_length=96", f"head.kinds={list(kinds)}"]
    recipe = load_recipe(
        "e5-bi", [*settings, "head.hidden=16", "head.epochs=40", "head.network_learning_rate=1e-2", "head.rounds=60"]
    )
    return BiEncoder(recipe, space).fit(train, task)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_learns_a_label_that_the_query_tells(kind: str, bert: Path, space: Workspace) -> None:
    scores = fit(bert, space, kind).predict(FRESH.drop(columns="label"), QI)
    assert_probabilities(scores, FRESH)
    assert roc_auc_score(FRESH["label"].astype(int), scores) > 0.75


def test_shuffled_labels_leave_fresh_rows_at_chance(bert: Path, space: Workspace) -> None:
    found = []
    for seed in range(5):
        noise = TRAIN.assign(label=TRAIN["label"].sample(frac=1, random_state=seed).to_numpy())
        scores = fit(bert, space, "logistic", "lightgbm", train=noise).predict(FRESH, QI)
        found.append(roc_auc_score(FRESH["label"].astype(int), scores))
    assert 0.35 < np.mean(found) < 0.65


def test_the_score_is_the_mean_of_the_heads(bert: Path, space: Workspace) -> None:
    apart = [fit(bert, space, kind).predict(FRESH, QI) for kind in KINDS]
    np.testing.assert_allclose(fit(bert, space, *KINDS).predict(FRESH, QI), np.mean(apart, axis=0), atol=1e-6)


@pytest.mark.parametrize("task", [QC, QI], ids=lambda task: task.name)
def test_a_row_scores_the_same_alone_and_in_any_order(task: Task, bert: Path, space: Workspace) -> None:
    model = fit(bert, space, *KINDS, task=task)
    rows = pd.concat([FRESH[:20], odd_rows()], ignore_index=True)
    scores = model.predict(rows, task)
    assert_probabilities(scores, rows)
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(model.predict(shuffled, task), scores[shuffled.index], atol=1e-5)
    np.testing.assert_allclose(one_by_one(model, rows, task), scores, atol=1e-5)
    assert model.predict(rows[:0], task).shape == (0,)


def test_saved_and_loaded_scores_are_equal_bit_for_bit(bert: Path, space: Workspace, tmp_path: Path) -> None:
    model = fit(bert, space, *KINDS)
    model.save(tmp_path)
    bi_encoder.shared_embedder.cache_clear()
    again = load(tmp_path, space)
    np.testing.assert_array_equal(again.predict(FRESH, QI), model.predict(FRESH, QI))
    assert again.details() == model.details()


def test_the_same_seed_gives_the_same_scores_whatever_was_drawn_before(bert: Path, space: Workspace) -> None:
    import torch

    one = fit(bert, space, *KINDS).predict(FRESH, QI)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    other = fit(bert, space, *KINDS).predict(FRESH, QI)
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state), "fitting heads leaves the global generator alone"


def test_pair_features_are_u_v_difference_product_and_cosine() -> None:
    u, v, w = np.float32([[0.6, 0.8]]), np.float32([[1, 0]]), np.float32([[0, 1]])
    vectors = PairVectors(u, (v, w), np.array([0]), np.array([0]))
    expected = [0.6, 0.8, 1, 0, 0.4, 0.8, 0.6, 0, 0.6, 0, 1, 0.6, 0.2, 0, 0.8, 0.8]
    np.testing.assert_allclose(vectors.features(np.array([0]))[0], expected, atol=1e-6)
