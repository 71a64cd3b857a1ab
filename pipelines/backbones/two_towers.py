"""Query and target read apart by one encoder, which is trained together with a head that compares them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipelines.encoding import distinct_tokens
from pipelines.tokens import Inputs

N_LABELS = 2
HEAD_DROPOUT = 0.1
TINY = 1e-6


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Which two texts each row has, see `pipelines.tokens.Inputs`; every distinct text is kept once.

    Attributes
    ----------
    queries, targets
        The distinct texts of each side.
    query, target
        The places of every row's texts among them, int64 ``(n_rows,)``.
    """

    queries: Inputs
    targets: Inputs
    query: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    @property
    def pad(self) -> int:
        """See `Inputs`."""
        return self.queries.pad

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of both texts together, see `Inputs`."""
        return np.asarray(self.queries.lengths[self.query] + self.targets.lengths[self.target])

    def take(self, rows: np.ndarray) -> "TextPairs":
        """See `Inputs`."""
        return replace(self, query=self.query[rows], target=self.target[rows])

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What `TokenRows.batch` gives for each side, its names with the prefixes ``query_`` and ``target_``."""
        sides = {"query": self.queries.batch(self.query[rows]), "target": self.targets.batch(self.target[rows])}
        return {f"{side}_{name}": values for side, batch in sides.items() for name, values in batch.items()}

    def token_ids(self) -> np.ndarray:
        """See `Inputs`."""
        used = self.compact()
        return np.union1d(used.queries.token_ids(), used.targets.token_ids())

    def renumbered(self, table: np.ndarray) -> "TextPairs":
        """See `Inputs`."""
        return replace(self, queries=self.queries.renumbered(table), targets=self.targets.renumbered(table))

    def compact(self) -> "TextPairs":
        """The same rows, without the texts that none of them has."""
        queries, query = np.unique(self.query, return_inverse=True)
        targets, target = np.unique(self.target, return_inverse=True)
        return TextPairs(self.queries.take(queries), self.targets.take(targets), query, target)


def encode_text_pairs(tokenizer: Any, texts: pd.DataFrame, *, max_length: int) -> TextPairs:
    """Model inputs of every row of `texts`, columns ``query, target``; a text is cut after `max_length` tokens."""
    queries, query = distinct_tokens(tokenizer, texts["query"], max_length=max_length)
    targets, target = distinct_tokens(tokenizer, texts["target"], max_length=max_length)
    return TextPairs(queries, targets, query, target)


def two_towers(encoder: Any, *, hidden: int, n_masks: int = 1) -> Any:
    """A module: both texts' mean-pooled vectors, their comparison, dropout, a head of one or two linear layers.

    `embed` gives the vector of a text, `compare` the logits of pairs of vectors: scoring calls them apart. With several
    dropout masks the logits are ``(n_masks, n_rows, 2)`` while it trains (Inoue 2019). Before it is trained, `begin_at`
    must be told what pairs look like: the features are standardised by that, and one linear layer begins as the
    cosine, where the pretrained encoder is right more often than any random head.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    size = encoder.config.get_text_config().hidden_size

    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            inner = [nn.Linear(4 * size + 1, hidden), nn.GELU(), nn.Dropout(HEAD_DROPOUT)] if hidden else []
            self.head = nn.Sequential(
                Standardised(4 * size + 1),
                nn.Dropout(HEAD_DROPOUT),
                *inner,
                nn.Linear(hidden or 4 * size + 1, N_LABELS),
            )

        def begin_at(self, queries: Any, targets: Any) -> None:
            """Standardise by these pairs of vectors; a head of one layer becomes their cosine."""
            features = self.features(queries, targets)
            standardised: Any = self.head[0]
            last: Any = self.head[-1]
            with torch.no_grad():
                standardised.mean.copy_(features.mean(0))
                deviation = features.std(0, correction=0)
                standardised.deviation.copy_(torch.where(deviation > TINY, deviation, 1.0))  # one query gives constants
                if not hidden:
                    last.weight.zero_()
                    last.bias.zero_()
                    last.weight[:, -1] = torch.tensor([-0.5, 0.5])

        def embed(self, input_ids: Any, attention_mask: Any) -> Any:
            """Vectors of texts, float32 ``(n_texts, size)``."""
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).float()
            return (states.float() * mask).sum(1) / mask.sum(1)

        def features(self, queries: Any, targets: Any) -> Any:
            """``[u, v, |u-v|, u*v, cosine]`` of pairs of vectors, ``(n_rows, 4 * size + 1)``."""
            u, v = (functional.normalize(side, dim=-1) for side in (queries, targets))
            return torch.cat([u, v, (u - v).abs(), u * v, (u * v).sum(-1, keepdim=True)], dim=-1)

        def compare(self, queries: Any, targets: Any) -> Any:
            """Logits ``(n_rows, 2)`` of pairs of vectors, in float32: cosines lie close together."""
            with torch.autocast(queries.device.type, enabled=False):
                features = self.features(queries, targets)
                if self.training and n_masks > 1:
                    return torch.stack([self.head(features) for _ in range(n_masks)])
                return self.head(features)

        def forward(
            self, query_input_ids: Any, query_attention_mask: Any, target_input_ids: Any, target_attention_mask: Any
        ) -> dict[str, Any]:
            queries = self.embed(query_input_ids, query_attention_mask)
            targets = self.embed(target_input_ids, target_attention_mask)
            return {"logits": self.compare(queries, targets)}

        def get_input_embeddings(self) -> Any:
            return self.encoder.get_input_embeddings()

        def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
            self.encoder.gradient_checkpointing_enable(**kwargs)

    class Standardised(nn.Module):
        def __init__(self, n_features: int) -> None:
            super().__init__()
            self.mean, self.deviation = nn.Buffer(torch.zeros(n_features)), nn.Buffer(torch.ones(n_features))

        def forward(self, features: Any) -> Any:
            return (features - self.mean) / self.deviation

    return TwoTowers()
