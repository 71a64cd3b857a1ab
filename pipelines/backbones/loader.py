"""Batches for a Trainer: row numbers from its data loader, what a network reads of them, made from flat arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.backbones.evaluation import Labelled
from pipelines.backbones.scoring import to_tensors
from pipelines.tokens import TrainingBatches

LABELS, WEIGHTS = "labels", "weights"  # in a batch, beside what the network reads


def epoch_loader(n_rows: int, batches: TrainingBatches, collate: Callable[[Any], dict[str, Any]]) -> Any:
    """A Trainer's data loader: batches of row numbers, in another order every epoch, sharded by `batches` alone."""
    from torch.utils.data import DataLoader

    class Batches(DataLoader):  # type: ignore[type-arg]
        def set_epoch(self, epoch: int) -> None:
            batches.set_epoch(epoch)

    numbers: Any = _Numbers(n_rows)
    return Batches(numbers, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]  # it asks for lists


class _Numbers:
    """A data set of row numbers that is asked for a whole batch at once."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, row: int) -> int:
        return row

    def __getitems__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows)


def collator(rows: Labelled) -> Callable[[Any], dict[str, Any]]:
    """Batches straight from the flat arrays, with labels, and weights if there are any."""
    soft = np.issubdtype(rows.labels.dtype, np.floating)
    columns = {LABELS: rows.labels.astype(np.float32 if soft else np.int64)}
    if rows.weights is not None:
        columns[WEIGHTS] = rows.weights.astype(np.float32)

    def collate(numbers: Any) -> dict[str, Any]:
        taken = {name: values[numbers] for name, values in columns.items()}
        return to_tensors({**rows.inputs.batch(numbers), **taken})

    return collate
