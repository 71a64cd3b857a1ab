"""Scores of inputs by a fitted network: batches by length under a token budget, without gradients."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from pipelines.backbones.packing import laid_out
from pipelines.backbones.sharding import idle_passes, is_sharded
from pipelines.backbones.two_towers import TextPairs
from pipelines.memory import fitting
from pipelines.tokens import Inputs, batches_by_length

TOKENS_ON_CPU, TOKENS_ON_GPU = 1024, 4096  # of a batch; a CPU is as fast with few, and few rows are padded less
PAIRS_PER_BATCH = 4096  # of vectors that a head compares
FIRST_PAIRS = 1024

Logits = Callable[[Any, Any], Any]  # model, batch -> (n_rows, 2), or (n_masks, n_rows, 2) while it trains


def token_budget(device: Any) -> int:
    """Padded tokens of a batch that is scored on this device."""
    return TOKENS_ON_CPU if device.type == "cpu" else TOKENS_ON_GPU


def score_inputs(
    model: Any,
    inputs: Inputs,
    *,
    logits: Logits,
    half: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Probability of label 1, float32 ``(n_rows,)``; with `half` matrices are multiplied in bf16.

    The model must be in evaluation mode. `advance` is told how many rows are done. Of `TextPairs` every distinct text
    is embedded once. Where memory runs out it goes on with smaller batches (not with a sharded network, whose processes
    must all take as many steps).
    """
    import torch

    if isinstance(inputs, TextPairs):
        return _score_text_pairs(model, inputs, half=half, advance=advance)
    inputs = laid_out(inputs, model)
    scores = np.empty(len(inputs), dtype=np.float32)
    device = next(model.parameters()).device
    batches = batches_by_length(inputs.lengths, tokens_per_batch=token_budget(device))
    idle = idle_passes(model, len(batches))

    def scored(rows: np.ndarray) -> np.ndarray:
        found = logits(model, to_tensors(inputs.batch(rows), device)).float()
        return np.asarray(torch.softmax(found, dim=-1)[:, 1].cpu().numpy())

    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for rows, found in fitting(batches, scored, may_halve=not is_sharded(model)):
            scores[rows] = found
            advance(len(rows))
        for _ in range(idle):
            logits(model, to_tensors(inputs.batch(np.zeros(1, dtype=np.int64)), device))
    return scores


def _score_text_pairs(model: Any, pairs: TextPairs, *, half: bool, advance: Callable[[int], None]) -> np.ndarray:
    """`score_inputs` of text pairs: the vectors of their distinct texts, then the comparisons, which cost little."""
    import torch

    pairs = pairs.compact()
    n_texts = len(pairs.queries) + len(pairs.targets)
    shares = iter(np.diff(np.arange(n_texts + 1) * len(pairs) // max(n_texts, 1)).tolist())
    scores = np.empty(len(pairs), dtype=np.float32)
    with torch.inference_mode():
        queries, targets = (
            _vectors(model, texts, half=half, advance=lambda n_done: advance(sum(islice(shares, n_done))))
            for texts in (pairs.queries, pairs.targets)
        )
        for start in range(0, len(pairs), PAIRS_PER_BATCH):
            rows = slice(start, start + PAIRS_PER_BATCH)
            logits = model.compare(queries[pairs.query[rows]], targets[pairs.target[rows]])
            scores[rows] = torch.softmax(logits, dim=-1)[:, 1].cpu().numpy()
    return scores


def begin_comparing(model: Any, pairs: TextPairs, *, half: bool, seed: int) -> None:
    """Tell a network of two towers what pairs look like before it is trained, by `FIRST_PAIRS` of them."""
    import torch

    rows = np.random.default_rng(seed).permutation(len(pairs))[:FIRST_PAIRS]
    pairs = pairs.take(np.sort(rows)).compact()
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode():
        queries, targets = (_vectors(model, texts, half=half) for texts in (pairs.queries, pairs.targets))
    model.begin_at(queries[pairs.query], targets[pairs.target])


def _vectors(model: Any, texts: Inputs, *, half: bool, advance: Callable[[int], None] = lambda _: None) -> Any:
    """What the network makes of each text, float32 ``(n_texts, size)``, on its device."""
    import torch

    device = next(model.parameters()).device
    batches = batches_by_length(texts.lengths, tokens_per_batch=token_budget(device))
    order, parts = [np.zeros(0, dtype=np.int64)], []
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        for rows, found in fitting(batches, lambda rows: model.embed(**to_tensors(texts.batch(rows), device))):
            order.append(rows)
            parts.append(found)
            advance(len(rows))
    places = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)
    return torch.cat(parts)[places] if parts else None


def to_tensors(batch: dict[str, np.ndarray], device: Any = "cpu") -> dict[str, Any]:
    """A batch of `Inputs` as tensors."""
    import torch

    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
