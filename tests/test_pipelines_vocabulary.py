"""Training with a trimmed vocabulary: the same scores, the same training, the whole vocabulary afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_rows
from transformers import AutoModel, AutoModelForCausalLM

from competition.tasks import QI
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.pair_model import load_tokenizer, mean_pooled
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.vocabulary import trimmed_vocabulary
from pipelines.config import load_recipe
from pipelines.tokens import TokenRows

ROWS = make_rows(40, seed=1)


@pytest.mark.parametrize("kind", ["bert", "xlmr"])
def test_a_trimmed_network_scores_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    model, tokenizer = mean_pooled(AutoModel.from_pretrained(folder)).eval(), load_tokenizer(folder)
    encoded = [tokenizer(text)["input_ids"] for text in ("red shoes", "掃除機", "x")]
    rows = TokenRows.of(encoded, pad=tokenizer.pad_token_id)

    def logits(inputs: TokenRows) -> torch.Tensor:
        batch = {name: torch.from_numpy(values) for name, values in inputs.batch(np.arange(3)).items()}
        found: torch.Tensor = model(**batch)["logits"]
        return found

    whole = logits(rows)
    with trimmed_vocabulary(model, rows.token_ids(), pad=rows.pad) as table:
        assert table is not None
        assert model.get_input_embeddings().weight.shape[0] < len(tokenizer) / 2
        torch.testing.assert_close(logits(rows.renumbered(table)), whole)
        with torch.no_grad():
            model.get_input_embeddings().weight += 1.0
    weight = model.get_input_embeddings().weight
    moved = np.union1d(np.arange(rows.pad + 1), rows.token_ids())
    fresh = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    difference = (weight - fresh).detach().numpy().mean(axis=1)
    np.testing.assert_allclose(difference, np.isin(np.arange(len(weight)), moved), atol=1e-6)


def test_shared_or_frozen_embeddings_and_late_padding_are_left_whole(bert: Path, gemma: Path) -> None:
    frozen = AutoModel.from_pretrained(bert)
    frozen.get_input_embeddings().weight.requires_grad_(False)
    with trimmed_vocabulary(frozen, np.array([5]), pad=0) as table:
        assert table is None
    with trimmed_vocabulary(AutoModelForCausalLM.from_pretrained(gemma), np.array([5]), pad=0) as table:
        assert table is None
    with trimmed_vocabulary(AutoModel.from_pretrained(bert), np.array([5]), pad=5000) as table:
        assert table is None


def test_training_is_the_same_with_and_without_it(bert: Path, tmp_path: Path) -> None:
    """Without weight decay, which also shrinks embeddings of tokens that never occur."""
    scores = []
    for trim in ("true", "false"):
        space = Workspace(tmp_path, tmp_path / trim, Corpus.of([ROWS]), 3, threads=1)
        settings = [f"weights.name={bert}", f"training.trim_vocabulary={trim}", "training.weight_decay=0",
                    "training.epochs=2", "training.batch_size=8", "training.learning_rate=1e-3"]  # fmt: skip
        model = CrossEncoder(load_recipe("e5-ce", settings), space).fit(ROWS, QI)  # type: ignore[arg-type]
        assert model.model.get_input_embeddings().weight.shape[0] == len(load_tokenizer(bert))
        scores.append(model.predict(ROWS, QI))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
