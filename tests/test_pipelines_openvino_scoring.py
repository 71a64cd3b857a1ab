"""Scores by OpenVINO are those of torch: whole networks, adapters and answers, rows of any number and length."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_rows, odd_rows

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe

ROWS = make_rows(24, seed=1)
SHORT = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=1e-2"]
NETWORKS = [
    ("e5-ce", "bert", []),
    ("e5-ce", "bert", ["training.lora.r=4"]),
    ("xlm-roberta-base", "xlmr", []),
    ("gemma-3-270m-yesno", "gemma", []),
]

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="on GPUs torch scores")
installed = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def by(engine: str, model: CrossEncoder, precision: str) -> CrossEncoder:
    training = model.recipe.training.model_copy(update={"scoring": engine, "precision": precision})
    return replace(model, recipe=model.recipe.model_copy(update={"training": training}))


def fitted(recipe: str, model: Path, folder: Path, *overrides: str) -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    values = load_recipe(recipe, [f"weights.name={model}", *SHORT, "training.precision=fp32", *overrides])
    return CrossEncoder(values, space).fit(ROWS, QI)  # type: ignore[arg-type]


@on_cpu
@installed
@pytest.mark.parametrize(("recipe", "model", "overrides"), NETWORKS)
def test_scores_are_torchs(
    recipe: str, model: str, overrides: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    network = fitted(recipe, request.getfixturevalue(model), tmp_path, *overrides)
    for rows in (ROWS, odd_rows(), ROWS[:1], ROWS[:0]):
        torchs = by("torch", network, "fp32").predict(rows, QI)
        np.testing.assert_allclose(by("openvino", network, "fp32").predict(rows, QI), torchs, atol=1e-5)
        np.testing.assert_allclose(by("openvino", network, "bf16").predict(rows, QI), torchs, atol=0.02)
    assert len(np.unique(by("openvino", network, "fp32").predict(ROWS, QI))) > 5


@on_cpu
@installed
def test_a_network_fitted_later_is_converted_anew(bert: Path, tmp_path: Path) -> None:
    one = by("openvino", fitted("e5-ce", bert, tmp_path / "one"), "fp32")
    before = one.predict(ROWS, QI)
    other = fitted("e5-ce", bert, tmp_path / "other", "training.epochs=3")
    expected = by("torch", other, "fp32").predict(ROWS, QI)
    np.testing.assert_allclose(by("openvino", other, "fp32").predict(ROWS, QI), expected, atol=1e-5)
    assert np.abs(before - expected).max() > 1e-3
    np.testing.assert_array_equal(one.predict(ROWS, QI), before)


@on_cpu
@pytest.mark.skipif(find_spec("openvino") is not None, reason="openvino is installed")
def test_without_openvino_it_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="needs openvino, which is not installed"):
        by("openvino", fitted("e5-ce", bert, tmp_path), "fp32").predict(ROWS, QI)


def test_recipes_made_before_keep_their_values() -> None:
    assert "scoring" not in load_recipe("e5-ce").model_dump()["training"]
    assert load_recipe("e5-ce", ["training.scoring=openvino"]).model_dump()["training"]["scoring"] == "openvino"
