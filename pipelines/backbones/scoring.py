"""Scores of inputs by a fitted network: batches by length under a token budget, without gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.tokens import Inputs, batches_by_length

TOKENS_ON_CPU, TOKENS_ON_GPU = 1024, 4096  # of a batch; a CPU is as fast with few, and few rows are padded less

Logits = Callable[[Any, Any], Any]  # model, padded batch -> (n_rows, 2), or (n_masks, n_rows, 2) while it trains


def score_inputs(
    model: Any,
    inputs: Inputs,
    *,
    logits: Logits,
    half: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Probability of label 1, float32 ``(n_rows,)``; with `half` matrices are multiplied in bf16.

    The model must be in evaluation mode. `advance` is told how many rows are done.
    """
    import torch

    scores = np.empty(len(inputs), dtype=np.float32)
    device = next(model.parameters()).device
    budget = TOKENS_ON_CPU if device.type == "cpu" else TOKENS_ON_GPU
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for rows in batches_by_length(inputs.lengths, tokens_per_batch=budget):
            found = logits(model, to_tensors(inputs.batch(rows), device)).float()
            scores[rows] = torch.softmax(found, dim=-1)[:, 1].cpu().numpy()
            advance(len(rows))
    return scores


def to_tensors(batch: dict[str, np.ndarray], device: Any = "cpu") -> dict[str, Any]:
    """A batch of `Inputs` as tensors."""
    import torch

    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
