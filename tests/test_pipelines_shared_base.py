"""Adapters trained together on one base: the gradients and scores of training each alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_rows
from torch.nn.functional import cross_entropy

from competition.tasks import QI
from pipelines.backbones.packing import laid_out
from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
from pipelines.backbones.readers import reader_of
from pipelines.backbones.scoring import to_tensors
from pipelines.backbones.shared_base import add_adapters, in_equal_shares, trained_together
from pipelines.config import load_recipe
from pipelines.weights import resolve_weights

FOLDS = ["default", "fold-1", "fold-2"]
ROWS = make_rows(12, seed=4)
N_EACH = len(ROWS) // len(FOLDS)
LABELS = torch.arange(len(ROWS)) % 3 % 2


class Folds:
    """Three folds' adapters, made different from each other, on one tiny network."""

    def __init__(self, recipe_name: str, folder: Path, attention: str) -> None:
        settings = ["training.precision=fp32", "training.lora.r=4", "training.lora.dropout=0", "max_length=64"]
        overrides = [f"weights.name={folder}", f"training.attention={attention}", *settings]
        if "yesno" in recipe_name:
            overrides.append("text.template='{english}: {target}?'")
        recipe: Any = load_recipe(recipe_name, overrides)
        torch.manual_seed(5)
        tokenizer = load_tokenizer(folder)
        network = load_pair_model(recipe, resolve_weights(str(folder)), tokenizer)
        self.model = add_adapters(network, FOLDS).eval()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:  # zeros at first, so that all adapters would say the same
                    parameter.normal_(std=0.3)
        self.reader = reader_of(recipe, tokenizer)
        self.inputs = laid_out(self.reader.inputs(self.reader.texts(ROWS, QI)), self.model)

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        return to_tensors(self.inputs.batch(rows))

    def alone(self, fold: int) -> Any:
        """The logits of the fold's rows by its adapter, as peft computes them."""
        self.model.set_adapter(FOLDS[fold])
        return self.reader.logits(self.model, self.batch(np.arange(len(ROWS))[fold * N_EACH :][:N_EACH]))

    def gradients(self) -> dict[str, Any]:
        found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad()
        return found


@pytest.mark.parametrize("attention", ["eager", "varlen"])
@pytest.mark.parametrize("recipe", ["gemma-3-12b", "gemma-3-12b-yesno"])
def test_gradients_are_those_of_separate_training(recipe: str, attention: str, gemma: Path) -> None:
    folds = Folds(recipe, gemma, attention)
    alone, separate = [], {}
    for fold in range(len(FOLDS)):
        alone.append(folds.alone(fold))
        cross_entropy(alone[-1], LABELS[fold * N_EACH :][:N_EACH]).backward()
        separate |= folds.gradients()
    folds.model.train()  # where peft refuses to mix adapters
    with trained_together(folds.model, FOLDS) as routes:
        logits = in_equal_shares(folds.reader.logits, routes)(folds.model, folds.batch(np.arange(len(ROWS))))
        torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=1e-5)
        cross_entropy(logits, LABELS).backward()
    together = folds.gradients()
    assert together.keys() == separate.keys()
    assert {fold for fold in FOLDS for name in together if fold in name} == set(FOLDS)
    assert any("score" in name for name in together) == ("yesno" not in recipe)
    for name, gradient in separate.items():
        assert float(gradient.abs().max()) > 0
        torch.testing.assert_close(together[name] * len(FOLDS), gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_with_checkpointing_every_row_keeps_its_adapter(gemma: Path) -> None:
    folds = Folds("gemma-3-12b", gemma, "varlen")
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            folds.model.gradient_checkpointing_enable()
        folds.model.train()
        with trained_together(folds.model, FOLDS) as routes:
            logits = in_equal_shares(folds.reader.logits, routes)(folds.model, folds.batch(np.arange(len(ROWS))))
            cross_entropy(logits, LABELS).backward()
        found.append(folds.gradients())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_afterwards_each_adapter_scores_by_itself(gemma: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folds = Folds("gemma-3-12b", gemma, "eager")
    with trained_together(folds.model, FOLDS) as routes:
        logits = in_equal_shares(folds.reader.logits, routes)(folds.model, folds.batch(np.arange(len(ROWS)))).detach()
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([folds.alone(fold) for fold in range(3)]), logits, atol=1e-5, rtol=1e-5)
    folds.model.save_pretrained(tmp_path, selected_adapters=["fold-1"])
    plain = AutoModelForSequenceClassification.from_pretrained(gemma, num_labels=2, attn_implementation="eager")
    plain.config.pad_token_id = folds.inputs.pad
    again = PeftModel.from_pretrained(plain, tmp_path / "fold-1").eval()
    rows = np.arange(N_EACH, 2 * N_EACH)
    with torch.no_grad():
        torch.testing.assert_close(again(**folds.batch(rows))["logits"], logits[rows], atol=1e-5, rtol=1e-5)
