"""Answers to prompts: their tokens, their scores, with and without training, whatever the padding side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny import make_rows, make_tokenizer, one_by_one

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones.answers import answer_tokens
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.pair_model import load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import reader_of
from pipelines.config import load_recipe

ROWS = make_rows(24, seed=1)
TEMPLATE = "{query} {target}?"


def asked(model: Path, folder: Path, *overrides: str) -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    settings = ["training.precision=fp32", "training.gradient_checkpointing=false", *overrides]
    return CrossEncoder(load_recipe("gemma-3-270m-yesno", [f"weights.name={model}", *settings]), space)  # type: ignore[arg-type]


def test_an_answer_is_the_token_that_would_come_next() -> None:
    tokenizer = make_tokenizer("gemma")
    yes, no = answer_tokens(tokenizer, template=TEMPLATE, answers=("yes", "no"))
    assert [tokenizer.decode([token]) for token in (yes, no)] == [" yes", " no"]


@pytest.mark.parametrize("kind", ["gemma", "xlmr"])
def test_every_answer_that_is_not_one_token_at_the_end_is_named(kind: str) -> None:
    """The tokenizer of ``xlmr`` ends every text with a token of its own, so that nothing can come next."""
    answers = ("absolutely", "not at all") if kind == "gemma" else ("yes", "no")
    with pytest.raises(CompetitionError, match="one known token") as raised:
        answer_tokens(make_tokenizer(kind), template=TEMPLATE, answers=answers)
    assert len(raised.value.faults) == 2


def test_without_training_the_score_is_the_softmax_of_the_two_answers(gemma: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = asked(gemma, tmp_path, "training.epochs=0").fit(ROWS, QI)
    tokenizer = load_tokenizer(gemma)
    plain = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32).eval()
    yes, no = (tokenizer(f"x {answer}")["input_ids"][-1] for answer in ("yes", "no"))
    expected = []
    for query, translation, target in zip(ROWS["query"], ROWS["query_en"], ROWS["target"], strict=True):
        prompt = model.recipe.text.template.format(query=query, english=translation or query, target=target)
        with torch.inference_mode():
            logits = plain(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
        expected.append(float(torch.softmax(logits[[yes, no]], dim=0)[0]))
    np.testing.assert_allclose(model.predict(ROWS, QI), expected, atol=1e-5)
    assert not (tmp_path / "scratch").exists(), "nothing was trained"


def test_answers_in_half_precision_tell_rows_apart(gemma: Path, tmp_path: Path) -> None:
    """Logits in bf16 have some 8 bits: groups of rows would share a score, and no threshold could part them."""
    half, full = (
        asked(gemma, tmp_path, "training.epochs=0", f"training.precision={name}").fit(ROWS, QI).predict(ROWS, QI)
        for name in ("bf16", "fp32")
    )
    assert len(np.unique(half)) == len(np.unique(full))
    np.testing.assert_allclose(half, full, atol=0.05)


def test_a_language_model_that_is_trained_whole_keeps_its_output_layer(gemma: Path, tmp_path: Path) -> None:
    short = ["training.epochs=1", "training.batch_size=8", "training.precision=fp32"]
    recipe = load_recipe("gemma-3-270m-yesno", [f"weights.name={gemma}", *short])
    whole = recipe.model_copy(update={"training": recipe.training.model_copy(update={"lora": None})})  # type: ignore[union-attr]
    space = Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([ROWS]), 3, threads=1)
    model = CrossEncoder(whole, space).fit(ROWS, QI)  # type: ignore[arg-type]
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        CrossEncoder.load(tmp_path / "saved", space).predict(ROWS, QI), model.predict(ROWS, QI)
    )


def test_the_padding_side_of_the_folder_changes_no_score(gemma: Path, tmp_path: Path) -> None:
    model = asked(gemma, tmp_path, "training.epochs=0").fit(ROWS, QI)
    scores = model.predict(ROWS, QI)
    model.tokenizer.padding_side = "right"
    np.testing.assert_array_equal(model.predict(ROWS, QI), scores)
    np.testing.assert_allclose(one_by_one(model, ROWS, QI), scores, atol=1e-5)


def test_it_learns_to_answer(gemma: Path, tmp_path: Path) -> None:
    train, fresh = make_rows(300, seed=5), make_rows(100, seed=6)
    short = [
        "training.batch_size=8",
        "training.learning_rate=1e-2",
        "training.epochs=8",
        "training.gradient_checkpointing=false",
    ]
    model = asked(gemma, tmp_path, *short, "text.template='{english}: {target}?'").fit(train, QI)
    scores = model.predict(fresh.drop(columns="label"), QI)
    assert roc_auc_score(fresh["label"].astype(int), scores) > 0.8
    trained = [name for name, tensor in model.model.named_parameters() if tensor.requires_grad]
    assert all("lora_" in name for name in trained)


def test_only_the_template_decides_what_is_one_row(gemma: Path, tmp_path: Path) -> None:
    recipe: Any = asked(gemma, tmp_path, "text.template='{english}: {target}?'").recipe
    texts = reader_of(recipe, load_tokenizer(gemma)).texts(ROWS, QI)
    assert set(texts.columns) == {"english", "target"}
