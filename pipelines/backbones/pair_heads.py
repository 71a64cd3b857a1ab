"""Small networks on a pair of embeddings; pair features are made batch by batch, so memory does not grow with them."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from competition.progress import progress
from pipelines.backbones.losses import refuse_bad_weights
from pipelines.targets import Targets

log = logging.getLogger(__name__)

BATCH = 512
SCORING_BATCH = 8192
SAMPLE = 20_000
SMALLEST_SCALE = 1e-4


@dataclass(frozen=True, eq=False)
class PairVectors:
    """Embeddings of distinct texts, and which of them make up every row.

    Attributes
    ----------
    queries
        ``(n_queries, dim)`` unit vectors.
    targets
        One or more texts per target (path and leaf), each ``(n_targets, dim)`` unit vectors.
    query, target
        ``(n_rows,)`` places in them.
    """

    queries: np.ndarray
    targets: tuple[np.ndarray, ...]
    query: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """``(n, n_features)`` float32: u, then for each text of the target v, |u-v|, u*v and their cosine.

        Source of the blocks: Conneau et al. 2017 (InferSent), Reimers and Gurevych 2019 (Sentence-BERT).
        """
        u = self.queries[self.query[rows]]
        blocks = [u]
        for vectors in self.targets:
            v = vectors[self.target[rows]]
            product = u * v
            blocks += [v, np.abs(u - v), product, product.sum(axis=1, keepdims=True)]
        return np.hstack(blocks)


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Features that are there already, ``(n_rows, n_features)`` float32; NaN is a missing value."""

    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """The features of some rows."""
        return np.asarray(self.table[rows])


class Featured(Protocol):
    """Rows that give their features batch by batch."""

    def __len__(self) -> int: ...

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Features of the rows with these numbers, float32 ``(n, n_features)``."""
        ...


def fit_head(
    vectors: Featured,
    targets: Targets,
    *,
    hidden: int,
    epochs: int,
    dropout: float,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    threads: int,
) -> Any:
    """A fitted torch module: standardise, then one hidden layer (none if `hidden` is 0: a logistic regression).

    The number of epochs is fixed, so nothing is chosen on held-out rows. The same seed gives the same weights on CPU.

    Raises
    ------
    DivergedError
        After an epoch the weights are no numbers any more.
    """
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed)
    sample = vectors.features(order.permutation(len(vectors))[:SAMPLE])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make_head(sample.shape[1], hidden=hidden, dropout=dropout)
        module.mean.copy_(torch.from_numpy(np.nanmean(sample, axis=0)))
        module.scale.copy_(torch.from_numpy(np.maximum(np.nanstd(sample, axis=0), SMALLEST_SCALE)))
        optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
        n_steps = epochs * -(-len(vectors) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=n_steps)
        wanted = torch.from_numpy(targets.labels.astype(np.float32))
        weights = None if targets.weights is None else torch.from_numpy(targets.weights.astype(np.float32))
        with progress(f"head on {len(vectors):,} rows", total=epochs) as advance:
            for _ in range(epochs):
                for rows in torch.split(torch.randperm(len(vectors), generator=generator), BATCH):
                    logits = module(torch.from_numpy(vectors.features(rows.numpy())))
                    weight = None if weights is None else weights[rows]
                    loss = functional.binary_cross_entropy_with_logits(logits, wanted[rows], weight=weight)
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    schedule.step()
                refuse_bad_weights(module, step=schedule.last_epoch)
                advance(1)
    return module.eval()


def make_head(n_features: int, *, hidden: int, dropout: float) -> Any:
    """An unfitted head; its buffers `mean` and `scale` standardise the features."""
    import torch
    from torch import nn

    layers: list[nn.Module] = [nn.Linear(n_features, 1)]
    if hidden:
        layers = [nn.Linear(n_features, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1)]

    class PairHead(nn.Module):
        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(n_features))
            self.register_buffer("scale", torch.ones(n_features))
            self.dropout = nn.Dropout(dropout)
            self.layers = nn.Sequential(*layers)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layers(self.dropout(torch.nan_to_num((features - self.mean) / self.scale)))
            return logits.squeeze(-1)

    return PairHead()


def score_head(module: Any, vectors: Featured, *, threads: int) -> np.ndarray:
    """Probability of label 1, float32 ``(n_rows,)``."""
    import torch

    torch.set_num_threads(threads)
    scores = np.empty(len(vectors), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(vectors), SCORING_BATCH):
            rows = np.arange(start, min(start + SCORING_BATCH, len(vectors)))
            scores[rows] = torch.sigmoid(module(torch.from_numpy(vectors.features(rows)))).numpy()
    return scores
