"""Training with the embeddings of those tokens only that occur: the others would get no gradient anyway."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

MOST_LOW_IDS = 1024  # a padding token beyond them keeps the whole vocabulary: its id must stay what it is


@contextmanager
def trimmed_vocabulary(model: Any, token_ids: np.ndarray, *, pad: int) -> Iterator[np.ndarray | None]:
    """Inside, the model's input embeddings are those of `token_ids` and of all ids up to `pad`.

    Gives the table from old id to new id, or None where nothing is trimmed: frozen embeddings, embeddings that the
    output layer shares, a padding id that is not among the first. Afterwards the model has its whole vocabulary
    again; tokens that do not occur keep the values that they had, to which weight decay was not applied.
    """
    import torch

    layer = model.get_input_embeddings()
    if not _can_trim(model, layer, pad):
        yield None
        return
    whole = layer.weight
    kept = np.union1d(np.arange(pad + 1), token_ids)
    table = np.zeros(len(whole), dtype=np.int64)
    table[kept] = np.arange(len(kept))
    places = torch.from_numpy(kept).to(whole.device)
    log.info("training the embeddings of %s tokens of %s", f"{len(kept):,}", f"{len(whole):,}")
    _put(layer, whole.detach()[places].clone())
    try:
        yield table
    finally:
        trained = layer.weight.detach()
        restored = whole.detach().to(trained.device)  # training may have moved the model
        restored[places.to(trained.device)] = trained
        _put(layer, restored)


def _can_trim(model: Any, layer: Any, pad: int) -> bool:
    """Whether the embeddings are trained, are those of an ordinary layer, and belong to the input alone."""
    from torch import nn

    if type(layer) is not nn.Embedding or not layer.weight.requires_grad or pad >= MOST_LOW_IDS:
        return False
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return getattr(output, "weight", None) is not layer.weight


def _put(layer: Any, weight: Any) -> None:
    from torch import nn

    layer.weight = nn.Parameter(weight)
    layer.num_embeddings = len(weight)
