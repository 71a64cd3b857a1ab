"""The lexical base learner: learns a signal, finds none in noise, and scores each row for itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny import assert_probabilities, make_rows, odd_rows, one_by_one, read_sample

from competition.tasks import QC, QI
from pipelines.backbones import load
from pipelines.backbones.lexical import Lexical, target_texts
from pipelines.backbones.measures import Tfidf
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import NgramSection, load_recipe

RECIPES = ["lexical", "lexical-linear"]
TINY = ["head.rounds=60", "ngrams.max_features=5000"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_sample(tmp_path_factory.mktemp("sample"), QI, n_train=1500, n_dev=600)


def workspace(tmp_path: Path, *frames: pd.DataFrame, seed: int = 3) -> Workspace:
    return Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of(frames), seed, threads=1)


def fitted(name: str, train: pd.DataFrame, space: Workspace, task: object = QI) -> Lexical:
    return Lexical(load_recipe(name, TINY), space).fit(train, task)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_the_signal_of_the_sample_is_learnt_in_english(
    name: str, sample: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    train, fresh = sample
    scores = fitted(name, train, workspace(tmp_path, train, fresh)).predict(fresh.drop(columns="label"), QI)
    assert_probabilities(scores, fresh)
    english = (fresh["language"] == "en").to_numpy()
    assert roc_auc_score(fresh["label"][english].astype(int), scores[english]) > 0.8


@pytest.mark.parametrize("name", RECIPES)
def test_shuffled_labels_leave_fresh_rows_at_chance(
    name: str, sample: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    train, fresh = sample
    noise = train.assign(label=train["label"].sample(frac=1, random_state=0).to_numpy())
    scores = fitted(name, noise, workspace(tmp_path, train, fresh)).predict(fresh, QI)
    assert 0.4 < roc_auc_score(fresh["label"].astype(int), scores) < 0.6


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("task", [QC, QI], ids=lambda task: task.name)
def test_a_row_scores_the_same_alone_and_in_any_order(name: str, task: object, tmp_path: Path) -> None:
    rows = make_rows(150, seed=1)
    model = fitted(name, rows, workspace(tmp_path, rows), task)
    fresh = pd.concat([make_rows(30, seed=2), odd_rows()], ignore_index=True)
    scores = model.predict(fresh, task)  # type: ignore[arg-type]
    assert_probabilities(scores, fresh)
    shuffled = fresh.sample(frac=1, random_state=0)
    np.testing.assert_allclose(model.predict(shuffled, task), scores[shuffled.index], atol=1e-7)  # type: ignore[arg-type]
    np.testing.assert_allclose(one_by_one(model, fresh, task), scores, atol=1e-7)  # type: ignore[arg-type]
    assert model.predict(fresh[:0], task).shape == (0,)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("view", ["original", "english", "both"])
def test_saved_and_loaded_scores_are_equal_bit_for_bit(name: str, view: str, tmp_path: Path) -> None:
    rows = make_rows(150, seed=1)
    recipe = load_recipe(name, [*TINY, f"text.view={view}"])
    model = Lexical(recipe, workspace(tmp_path, rows)).fit(rows, QI)  # type: ignore[arg-type]
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path, rows))
    np.testing.assert_array_equal(again.predict(rows, QI), model.predict(rows, QI))


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    rows = make_rows(150, seed=1)
    one, other = (fitted(name, rows, workspace(tmp_path, rows)).predict(rows, QI) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_another_seed_gives_other_trees(tmp_path: Path) -> None:
    rows = make_rows(150, seed=1)
    spaces = (workspace(tmp_path, rows, seed=seed) for seed in (3, 4))
    one, other = (fitted("lexical", rows, space).predict(rows, QI) for space in spaces)
    assert (one != other).any()


def test_a_category_is_read_whole_by_its_last_levels_and_by_its_leaf() -> None:
    texts = target_texts(["home,kitchen, dining & bar,cookware", "pets"], QC)
    assert texts == [
        ["home,kitchen, dining & bar,cookware", "pets"],
        ["kitchen, dining & bar cookware", "pets"],
        ["cookware", "pets"],
    ]
    assert target_texts(["a,b"], QI) == [["a,b"]]


def test_tfidf_rows_have_length_one_and_rare_ngrams_weigh_more() -> None:
    tfidf = Tfidf.over(("shoes", "shoes red", "shoes blue"), NgramSection(max_features=10_000))
    np.testing.assert_allclose(np.sqrt(tfidf.transform(["red shoes", "x"]).power(2).sum(axis=1)), 1, rtol=1e-6)
    assert tfidf.cosine(["red", "red", ""], ["red", "blue", "red"]).tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    weights = tfidf.weights
    assert weights[tfidf.transform(["red"]).indices].min() > weights[tfidf.transform(["shoes"]).indices].max()
