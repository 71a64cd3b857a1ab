"""Requests that arrive within a few milliseconds are scored together, by one thread that owns the models."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import pandas as pd

log = logging.getLogger(__name__)

Score = Callable[[pd.DataFrame], pd.DataFrame]
"""Checked pairs -> id, score, decision of each, in their order."""


class QueueFullError(Exception):
    """Too many pairs wait already, or nobody would score them."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """One request's pairs, and where their scores go."""

    task: str
    pairs: pd.DataFrame
    scored: "Future[pd.DataFrame]" = field(default_factory=Future)


class MicroBatcher:
    """A queue of requests and the thread that works it off.

    Parameters
    ----------
    scorers
        By task.
    max_batch
        Pairs scored together; a request with more is scored alone, never cut.
    wait_ms
        How long a batch waits for further requests after its first; 0 takes those that are there.
    max_waiting
        Pairs that may wait.
    tell
        Is called with the number of pairs of every batch.
    """

    def __init__(
        self,
        scorers: Mapping[str, Score],
        *,
        max_batch: int,
        wait_ms: float,
        max_waiting: int,
        tell: Callable[[int], object] = lambda n_pairs: None,
    ) -> None:
        self._scorers, self._tell = scorers, tell
        self._max_batch, self._wait, self._max_waiting = max_batch, wait_ms / 1000, max_waiting
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._n_waiting = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Pairs that wait now."""
        return self._n_waiting

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken and answered."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, task: str, pairs: pd.DataFrame) -> "Future[pd.DataFrame]":
        """The scores to come of checked pairs.

        Raises
        ------
        QueueFullError
            Too many pairs wait, the queue is being closed, or the scoring thread has ended.
        """
        with self._changed:
            if not self.is_ready or (self._n_waiting and self._n_waiting + len(pairs) > self._max_waiting):
                raise QueueFullError
            request = Waiting(task, pairs)
            self._queue.append(request)
            self._n_waiting += len(pairs)
            self._changed.notify_all()
        return request.scored

    def close(self) -> None:
        """Take no more requests, answer those that wait, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while batch := self._next_batch():
                asked = [request for request in batch if request.scored.set_running_or_notify_cancel()]
                if asked:  # else whoever asked is gone
                    self._answer(asked)
        finally:
            self._refuse_waiting()

    def _answer(self, batch: Sequence[Waiting]) -> None:
        """Score requests together; each alone if that fails, so that a bad pair costs its own request alone."""
        try:
            found = self._scored(batch)
        except BaseException as error:  # nobody is above this thread, and whoever asked must hear of it
            log.exception("a batch of %d requests failed", len(batch))
            if len(batch) == 1:
                batch[0].scored.set_exception(error)
                return
            for request in batch:
                self._answer([request])
            return
        for request, scores in zip(batch, found, strict=True):
            request.scored.set_result(scores)

    def _scored(self, batch: Sequence[Waiting]) -> list[pd.DataFrame]:
        """The scores of each request."""
        pairs = pd.concat([request.pairs for request in batch], ignore_index=True)
        self._tell(len(pairs))
        scored = self._scorers[batch[0].task](pairs)
        ends = list(accumulate(len(request.pairs) for request in batch))
        return [scored.iloc[start:end] for start, end in pairwise([0, *ends])]

    def _refuse_waiting(self) -> None:
        """Take no more requests, and let nobody wait for a thread that has ended, however it did."""
        with self._changed:
            self._stopping = True
            for request in self._queue:
                if request.scored.set_running_or_notify_cancel():
                    request.scored.set_exception(QueueFullError())
            self._queue.clear()
            self._n_waiting = 0

    def _next_batch(self) -> list[Waiting]:
        """Requests of one task to score together; none once the queue is closed and empty."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            if not self._queue:
                return []
            until = time.monotonic() + self._wait
            while self._room_for_more() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            batch = self._take()
            self._n_waiting -= sum(len(request.pairs) for request in batch)
        return batch

    def _room_for_more(self) -> bool:
        return self._n_waiting < self._max_batch and not self._stopping

    def _take(self) -> list[Waiting]:
        """The first request, and those of its task that come next while there is room."""
        batch = [self._queue.popleft()]
        n_pairs = len(batch[0].pairs)
        for request in list(self._queue):
            if request.task != batch[0].task:
                continue
            if n_pairs + len(request.pairs) > self._max_batch:
                break
            self._queue.remove(request)
            batch.append(request)
            n_pairs += len(request.pairs)
        return batch
