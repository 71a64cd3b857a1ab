"""Rows one after the other without padding: the same logits, gradients and trained scores as with padding."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import LONGEST, make_rows, odd_rows, one_by_one, save_tiny
from torch.nn.functional import cross_entropy

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones import load
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.packing import PACKABLE, PackedRows, laid_out, refuse_unpackable
from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import reader_of
from pipelines.backbones.scoring import score_inputs, to_tensors
from pipelines.config import load_recipe
from pipelines.tokens import TokenRows
from pipelines.weights import resolve_weights

ROWS = make_rows(32, seed=1)
EDGES = pd.concat([ROWS[:12].drop(columns="label"), odd_rows()], ignore_index=True)
SHORT = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=1e-2", "training.precision=fp32"]
SAFE = ["max_length=64"]  # what the tiny sliding window sees
NETWORKS = {  # recipe, model, further settings
    "bert-mean": ("e5-ce", "bert", []),
    "bert-model": ("e5-ce", "bert", ["pooling=model"]),
    "bert-mean-lora": ("e5-ce", "bert", ["training.lora.r=4"]),
    "xlmr-model": ("xlm-roberta-base", "xlmr", []),
    "xlmr-mean": ("xlm-roberta-base", "xlmr", ["pooling=mean"]),
    "gemma": ("gemma-3-12b", "gemma", SAFE),
    "gemma-mean": ("gemma-3-12b", "gemma", [*SAFE, "pooling=mean"]),
    "gemma-multimodal": ("gemma-3-12b", "gemma-multimodal", SAFE),
    "qwen2": ("qwen2-5-0-5b", "qwen2", []),
    "qwen3": ("qwen3-14b", "qwen3", []),
    "gemma-yesno": ("gemma-3-12b-yesno", "gemma", [*SAFE, "text.template='{english}: {target}?'"]),
    "gemma-multimodal-yesno": (
        "gemma-3-12b-yesno", "gemma-multimodal", [*SAFE, "text.template='{english}: {target}?'"],
    ),
    "qwen2-yesno": ("qwen2-5-0-5b-yesno", "qwen2", ["max_length=192"]),
    "qwen3-yesno": ("qwen3-14b-yesno", "qwen3", ["max_length=192"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packing")
    return {kind: save_tiny(folder / kind, kind) for kind in sorted({kind for _, kind, _ in NETWORKS.values()})}


def without_dropout(folder: Path, copy: Path) -> Path:
    """The model again, with a configuration whose dropouts are 0."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    (copy / "config.json").write_text(json.dumps(config | off))
    return copy


def unfitted(recipe: str, model: Path, folder: Path, *overrides: str) -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    return CrossEncoder(load_recipe(recipe, [f"weights.name={model}", *SHORT, *overrides]), space)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode with its reader and the inputs of rows."""

    model: Any
    reader: Any
    inputs: TokenRows

    @classmethod
    def of(cls, name: str, folders: dict[str, Path], attention: str) -> "Network":
        recipe_name, kind, settings = NETWORKS[name]
        folder = folders[kind]
        overrides = [f"weights.name={folder}", "training.precision=fp32", f"training.attention={attention}", *settings]
        recipe: Any = load_recipe(recipe_name, overrides)
        torch.manual_seed(11)
        tokenizer = load_tokenizer(folder)
        model = load_pair_model(recipe, resolve_weights(str(folder)), tokenizer).eval()
        reader = reader_of(recipe, tokenizer)
        return cls(model, reader, reader.inputs(reader.texts(EDGES, QI)))

    def logits(self) -> Any:
        batch = laid_out(self.inputs, self.model).batch(np.arange(len(self.inputs)))
        assert (len(batch["input_ids"]) == 1) == ("places" in batch)
        return self.reader.logits(self.model, to_tensors(batch))

    def gradients(self) -> dict[str, Any]:
        cross_entropy(self.logits(), torch.arange(len(self.inputs)) % 2).backward()
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_equal_those_of_padded_rows(name: str, folders: dict[str, Path]) -> None:
    padded, packed = (Network.of(name, folders, attention) for attention in ("eager", "varlen"))
    with torch.no_grad():
        expected, found = padded.logits(), packed.logits()
    read = np.flatnonzero(padded.inputs.lengths)  # a padded row without tokens is what its neighbours make of it
    assert len(read) >= len(EDGES) - 1
    assert len({round(float(value), 6) for value in expected[:, 0]}) > 5
    torch.testing.assert_close(found[read], expected[read], atol=1e-5, rtol=1e-5)
    padded, packed = (Network(network.model, network.reader, network.inputs.take(read)) for network in (padded, packed))
    gradients, others = padded.gradients(), packed.gradients()
    assert gradients.keys() == others.keys()
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    for key, gradient in gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(others[key] / scale, gradient / scale, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("name", ["xlmr-model", "bert-mean", "gemma", "qwen2", "qwen3-yesno"])
def test_no_row_sees_another_or_depends_on_its_place(name: str, folders: dict[str, Path]) -> None:
    network = Network.of(name, folders, "varlen")
    scores = score_inputs(network.model, network.inputs, logits=network.reader.logits, half=False)
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = score_inputs(network.model, network.inputs.take(order), logits=network.reader.logits, half=False)
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-5)
    alone = [
        score_inputs(network.model, network.inputs.take(np.array([i])), logits=network.reader.logits, half=False)[0]
        for i in range(len(scores))
    ]
    np.testing.assert_allclose(alone, scores, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gemma", ["training.lora.dropout=0", "training.gradient_checkpointing=true"]),
        ("qwen3-yesno", ["training.lora.dropout=0", "training.gradient_checkpointing=true"]),
        ("xlmr-model", ["training.learning_rate=1e-3", "training.tokens_per_batch=200"]),
        ("bert-model", ["training.evaluate=2", "training.evaluate_rows=10"]),
    ],
)
def test_training_without_dropout_gives_the_scores_of_padded_training(
    name: str, settings: list[str], folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe, kind, overrides = NETWORKS[name]
    model = without_dropout(folders[kind], tmp_path / "model")
    both = [
        unfitted(recipe, model, tmp_path / attention, *overrides, *settings, f"training.attention={attention}")
        for attention in ("eager", "varlen")
    ]
    padded, packed = (network.fit(ROWS, QI) for network in both)
    scores = packed.predict(ROWS, QI)
    np.testing.assert_allclose(scores, padded.predict(ROWS, QI), atol=1e-4)
    np.testing.assert_allclose(one_by_one(packed, ROWS, QI), scores, atol=1e-5)
    packed.save(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved", packed.workspace).predict(ROWS, QI), scores)


def test_the_layout_survives_the_other_switches(folders: dict[str, Path], tmp_path: Path) -> None:
    switches = ["training.r_drop=1.0", "training.awp=0.1", "training.ema=0.9", "training.multi_sample_dropout=3"]
    network = unfitted("e5-ce", folders["bert"], tmp_path, "training.attention=varlen", *switches)
    scores = network.fit(ROWS, QI).predict(ROWS, QI)
    assert len(np.unique(scores)) > 5


# The batch


def test_a_packed_batch_holds_every_token_once() -> None:
    packed = PackedRows.of(TokenRows.of([[5, 6, 7], [8], [9, 4]]), first_position=2)
    batch = {name: values.tolist() for name, values in packed.batch(np.array([2, 0])).items()}
    assert batch == {
        "input_ids": [[9, 4, 5, 6, 7]],
        "position_ids": [[2, 3, 2, 3, 4]],
        "row_starts": [0, 2, 5],
        "places": [[0, 1, 1], [2, 3, 4]],
    }


def test_a_row_without_tokens_reads_a_padding_token() -> None:
    rows = TokenRows.of([[], [5, 6], [], [], [7], []], pad=3)
    packed = PackedRows.of(rows)
    assert packed.lengths.tolist() == [1, 2, 1, 1, 1, 1]
    assert packed.rows.ids.tolist() == [3, 5, 6, 3, 3, 7, 3]


def test_taking_and_renumbering_keep_the_layout() -> None:
    packed = PackedRows.of(TokenRows.of([[1, 2], [2, 3], [4]]), first_position=1).take(np.array([2, 1]))
    assert packed.token_ids().tolist() == [2, 3, 4]
    renumbered = packed.renumbered(np.array([0, 0, 1, 2, 3]))
    assert renumbered.batch(np.array([1, 0]))["input_ids"].tolist() == [[1, 2, 3]]
    assert renumbered.first_position == 1


# Refusals


@pytest.mark.parametrize(
    ("recipe", "kind", "reason"),
    [("mdeberta-v3-base", "deberta", "deberta-v2 is none of"), ("gemma-2-9b", "gemma2", "gemma2 is none of")],
)
def test_networks_with_attention_of_their_own_are_refused(recipe: str, kind: str, reason: str, tmp_path: Path) -> None:
    network = unfitted(recipe, save_tiny(tmp_path / "model", kind), tmp_path, "training.attention=varlen")
    with pytest.raises(CompetitionError, match=reason) as raised:
        network.fit(ROWS, QI)
    assert '"sdpa"' in str(raised.value)


def test_rows_longer_than_the_sliding_window_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = ["training.attention=varlen", "max_length=65"]
    with pytest.raises(CompetitionError, match=r"65 tokens .* layers see 64"):
        unfitted("gemma-3-12b", folders["gemma"], tmp_path, *settings).fit(ROWS, QI)


def test_capped_logits_are_refused_in_a_known_family() -> None:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(attn_logit_softcapping=50.0)
    with pytest.raises(CompetitionError, match="caps the logits"):
        refuse_unpackable(config, name="gemma", max_length=LONGEST)
    assert config.model_type in PACKABLE


def test_a_step_on_each_rows_embeddings_is_refused() -> None:
    with pytest.raises(CompetitionError, match="fgm moves every row by itself"):
        load_recipe("e5-ce", ["training.attention=varlen", "training.fgm=1.0"])


# GPUs


def test_the_kernel_of_gpus_takes_what_it_is_given() -> None:
    """Grouped heads of 256, causal, forward and backward: the shapes alone, as the kernel itself needs a GPU."""
    from torch._subclasses import FakeTensorMode

    from pipelines.backbones.packing import _flash

    with FakeTensorMode():
        query, key, value = (
            torch.empty(100, heads, 256, device="meta", dtype=torch.bfloat16, requires_grad=True)
            for heads in (16, 8, 8)
        )
        starts = torch.empty(5, dtype=torch.int32, device="meta")
        found = _flash(query, key, value, starts, longest=40, causal=True, scale=0.0625)
        found.float().sum().backward()
    assert found.shape == query.shape
    assert key.grad is not None
    assert key.grad.shape == key.shape
