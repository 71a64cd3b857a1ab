"""Model inputs of many rows in flat arrays: tokenised once, batched by length, padded without Python lists."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

CHUNK = 100  # batches that are sorted by length together while they train: padding nearly gone, order still random
HEAD = "head"


class Inputs(Protocol):
    """Model inputs of rows, unpadded; `lengths` is what each costs."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, int64 ``(n_rows,)``."""
        ...

    @property
    def pad(self) -> int:
        """The padding token's id."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> Self:
        """The inputs of the rows with these numbers, in that order."""
        ...

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the network reads of these rows, padded to the longest, arrays of int64."""
        ...

    def token_ids(self) -> np.ndarray:
        """The distinct token ids in use, sorted."""
        ...

    def renumbered(self, table: np.ndarray) -> Self:
        """The same inputs with token ``i`` called ``table[i]``."""
        ...


@dataclass(frozen=True, eq=False)
class TokenRows:
    """One token sequence per row, see `Inputs`.

    Attributes
    ----------
    ids
        All rows' token ids one after the other, int32 ``(n_tokens,)``.
    starts
        Where each row begins, and the end, int64 ``(n_rows + 1,)``.
    types
        Token types (segments) where the network has them, int8 ``(n_tokens,)``.
    pad
        The padding token's id.
    left
        Whether padding stands before the tokens instead of after them.
    """

    ids: np.ndarray
    starts: np.ndarray
    types: np.ndarray | None = None
    pad: int = 0
    left: bool = False

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], *, pad: int = 0, left: bool = False) -> "TokenRows":
        """Rows of plain id sequences, without types."""
        lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))
        flat = np.fromiter((i for ids in sequences for i in ids), dtype=np.int32, count=int(lengths.sum()))
        return cls(flat, starts_of(lengths), None, pad, left)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """See `Inputs`."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> "TokenRows":
        """See `Inputs`."""
        lengths = self.lengths[rows]
        places = spans(self.starts[:-1][rows], lengths)
        types = None if self.types is None else self.types[places]
        return replace(self, ids=self.ids[places], starts=starts_of(lengths), types=types)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """``input_ids``, ``attention_mask`` and, where there are types, ``token_type_ids``, ``(n, longest)``."""
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=1))
        columns = np.arange(longest)
        real = columns >= longest - lengths[:, None] if self.left else columns < lengths[:, None]
        places = spans(self.starts[:-1][rows], lengths)
        ids = np.full(real.shape, self.pad, dtype=np.int64)
        ids[real] = self.ids[places]
        padded = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if self.types is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.types[places]
            padded["token_type_ids"] = types
        return padded

    def token_ids(self) -> np.ndarray:
        """See `Inputs`."""
        return np.unique(self.ids)

    def renumbered(self, table: np.ndarray) -> "TokenRows":
        """See `Inputs`."""
        return replace(self, ids=table[self.ids].astype(np.int32), pad=int(table[self.pad]))


@dataclass(frozen=True, eq=False)
class Joined:
    """Rows of several tasks in one, see `Inputs`; a batch names each row's head: the place of its task.

    Attributes
    ----------
    rows
        The inputs of all tasks' rows.
    heads
        The head of every row, int64 ``(n_rows,)``.
    """

    rows: Inputs
    heads: np.ndarray

    @classmethod
    def of(cls, tasks: Sequence[TokenRows]) -> "Joined":
        """The rows of the first task, then those of the next, ..."""
        first = tasks[0]
        types = (
            None if first.types is None else np.concatenate([rows.types for rows in tasks if rows.types is not None])
        )
        starts = starts_of(np.concatenate([rows.lengths for rows in tasks]))
        joined = replace(first, ids=np.concatenate([rows.ids for rows in tasks]), starts=starts, types=types)
        return cls(joined, np.repeat(np.arange(len(tasks)), [len(rows) for rows in tasks]))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """See `Inputs`."""
        return self.rows.lengths

    @property
    def pad(self) -> int:
        """See `Inputs`."""
        return self.rows.pad

    def take(self, rows: np.ndarray) -> "Joined":
        """See `Inputs`."""
        return Joined(self.rows.take(rows), self.heads[rows])

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """See `Inputs`."""
        return {**self.rows.batch(rows), HEAD: self.heads[rows]}

    def token_ids(self) -> np.ndarray:
        """See `Inputs`."""
        return self.rows.token_ids()

    def renumbered(self, table: np.ndarray) -> "Joined":
        """See `Inputs`."""
        return Joined(self.rows.renumbered(table), self.heads)


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Where spans of these lengths begin when they stand one after the other, and the end, int64 ``(n + 1,)``."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def spans(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places in spans that begin at `begins`, one span after the other.

    Examples
    --------
    >>> spans(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(begins - starts_of(lengths)[:-1], lengths))


def batches_by_length(
    lengths: np.ndarray, *, tokens_per_batch: int, rows_per_batch: int | None = None
) -> list[np.ndarray]:
    """Row numbers in batches of similar length, longest first.

    A batch has at most `tokens_per_batch` padded tokens (or one row), and at most `rows_per_batch` rows.

    Examples
    --------
    >>> [batch.tolist() for batch in batches_by_length(np.array([3, 9, 2, 8]), tokens_per_batch=18)]
    [[1, 3], [0, 2]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, int(lengths[order[start]])))
        size = min(size, rows_per_batch or size)
        batches.append(order[start : start + size])
        start += size
    return batches


@dataclass
class TrainingBatches:
    """An epoch's batches: rows in random order, yet of similar length within a batch; another order every epoch.

    Rows are shuffled, cut into chunks of `CHUNK` batches, sorted by length inside a chunk, cut into batches, and the
    batches are shuffled again. With several processes each gets every n-th batch; the last round is filled up with
    batches of its beginning, so that all take the same number of steps.

    Attributes
    ----------
    rows_per_batch
        Rows of a batch; the last batch of an epoch may have fewer.
    tokens_per_batch
        With this a batch is cut before its padded tokens exceed the budget: long rows train in smaller batches.
    rank, world
        This process among how many.
    """

    lengths: np.ndarray
    rows_per_batch: int
    seed: int
    tokens_per_batch: int | None = None
    rank: int = 0
    world: int = 1
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """From now on the batches of this epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._own(self._all()))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._own(self._all()))

    def _all(self) -> list[np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        for start in range(0, len(order), CHUNK * self.rows_per_batch):
            chunk = order[start : start + CHUNK * self.rows_per_batch]
            budget = self.tokens_per_batch or self.rows_per_batch * int(self.lengths.max(initial=1))
            cut = batches_by_length(self.lengths[chunk], tokens_per_batch=budget, rows_per_batch=self.rows_per_batch)
            batches += [chunk[rows] for rows in cut]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _own(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        surplus = -len(batches) % self.world
        filled = batches + [batches[i % len(batches)] for i in range(surplus)]
        return filled[self.rank :: self.world]
