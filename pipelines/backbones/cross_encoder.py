"""Query and target read together by one transformer: a cross-encoder, or a language model that answers yes or no."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from competition.tasks import Task
from pipelines.backbones.protocol import DETAILS, Workspace
from pipelines.config import TransformerRecipe
from pipelines.embeddings import batches_by_length
from pipelines.progress import progress
from pipelines.weights import resolve_weights

log = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096
_RECIPES: TypeAdapter[TransformerRecipe] = TypeAdapter(TransformerRecipe)


@dataclass(frozen=True)
class CrossEncoder:
    """Sequence-pair classification or yes/no answers; fits in fp32 or bf16, fully or through LoRA.

    What the two kinds do differently is in `pipelines.backbones.readers` and `pipelines.backbones.pair_model`. On
    GPUs the same seed need not give the same weights bit for bit (non-deterministic kernels); on CPU it does.
    """

    recipe: TransformerRecipe
    workspace: Workspace
    model: Any = None
    tokenizer: Any = None

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted network. A killed fit goes on from its last checkpoint in the workspace's scratch folder."""
        from transformers import set_seed

        from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
        from pipelines.backbones.readers import reader_of
        from pipelines.backbones.trainer import train_network

        set_seed(self.workspace.seed)
        rows = self._subsample(train)
        weights = resolve_weights(
            self.recipe.weights.name, source=self.recipe.weights.source, revision=self.recipe.weights.revision
        )
        tokenizer = load_tokenizer(weights.folder)
        reader = reader_of(self.recipe, tokenizer)
        model = load_pair_model(self.recipe, weights, tokenizer)
        train_network(
            model,
            tokenizer,
            reader.inputs(reader.texts(rows, task)),
            rows["label"].to_numpy(dtype=np.int64),
            training=self.recipe.training,
            workspace=self.workspace,
            logits=reader.logits,
        )
        return replace(self, model=model.eval(), tokenizer=tokenizer)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``; rows that read the same are scored once."""
        import torch

        from pipelines.backbones.readers import reader_of

        torch.set_num_threads(self.workspace.threads)
        reader = reader_of(self.recipe, self.tokenizer)
        texts = reader.texts(rows, task)
        codes = texts.groupby(list(texts.columns), sort=False).ngroup().to_numpy()
        first = np.unique(codes, return_index=True)[1]
        inputs = reader.inputs(texts.iloc[first])
        lengths = np.array([len(item["input_ids"]) for item in inputs], dtype=np.int64)
        scores = np.empty(len(first), dtype=np.float32)
        device = next(self.model.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.training.precision == "bf16")
        with progress(f"score {task.name} pairs", total=len(first)) as advance, torch.inference_mode(), half:
            for batch in batches_by_length(lengths, tokens_per_batch=TOKENS_PER_BATCH):
                padded = self.tokenizer.pad([inputs[i] for i in batch], return_tensors="pt").to(device)
                logits = reader.logits(self.model, dict(padded)).float()
                scores[batch] = torch.softmax(logits, dim=-1)[:, 1].cpu().numpy()
                advance(len(batch))
        return scores[codes]

    def save(self, folder: Path) -> None:
        """Write model (adapter and head only, with LoRA), tokenizer and recipe."""
        from pipelines.backbones.pair_model import save_pair_model

        folder.mkdir(parents=True, exist_ok=True)
        save_pair_model(self.recipe, self.model, folder)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        text = json.dumps({"recipe": self.recipe.model_dump(mode="json")}, indent=1)
        (folder / DETAILS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "CrossEncoder":
        """The network that `save` wrote."""
        import torch

        from pipelines.backbones.pair_model import load_tokenizer, restore_pair_model

        values = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
        recipe = _RECIPES.validate_python(values["recipe"])
        tokenizer = load_tokenizer(folder / "tokenizer")
        model = restore_pair_model(recipe, folder, tokenizer)
        return cls(recipe, workspace, model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)

    def details(self) -> dict[str, Any]:
        """Parameter counts and the device."""
        parameters = list(self.model.parameters())
        return {
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "device": str(parameters[0].device),
        }

    def _subsample(self, train: pd.DataFrame) -> pd.DataFrame:
        limit = self.recipe.training.max_rows
        if limit is None or limit >= len(train):
            return train
        log.info("training on %s of %s rows (training.max_rows)", f"{limit:,}", f"{len(train):,}")
        return train.sample(limit, random_state=self.workspace.seed)
