"""What Prometheus may ask of the scoring service."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastapi import Request, Response

RECENT, OK = 1000, 200
KNOWN = ("/", "/score", "/health", "/metrics", "/docs", "/openapi.json")


@dataclass(frozen=True)
class Figures:
    """How fast the last requests that were scored were, `RECENT` of them at most; None where there were none.

    Attributes
    ----------
    p50_ms, p95_ms
        Milliseconds from request to answer.
    pairs_per_second
        From the first of these requests to the last answer, pauses included.
    """

    requests: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    pairs_per_second: float | None = None

    @classmethod
    def of(cls, answered: Sequence[tuple[float, float, int]]) -> "Figures":
        """Those of requests of which begin, end and pairs are given.

        Examples
        --------
        >>> Figures.of([(0.0, 0.01, 2), (1.0, 1.01, 2), (1.99, 2.0, 4)])
        Figures(requests=3, p50_ms=10.0, p95_ms=10.0, pairs_per_second=4.0)
        """
        if not answered:
            return cls()
        began, ended, pairs = (np.array(values) for values in zip(*answered, strict=True))
        p50, p95 = np.percentile((ended - began) * 1000, [50, 95])
        rate = pairs.sum() / max(ended.max() - began.min(), 1e-9)
        return cls(len(answered), round(float(p50), 1), round(float(p95), 1), round(float(rate), 1))

    def __str__(self) -> str:
        if not self.requests:
            return "no request was scored"
        return (
            f"the last {self.requests:,} requests: p50 {self.p50_ms:,} ms, p95 {self.p95_ms:,} ms, "
            f"{self.pairs_per_second:,} pairs/s"
        )


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        self.media_type = CONTENT_TYPE_LATEST
        self.registry = CollectorRegistry()
        self.requests = Counter("relstack_requests", "Requests answered.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram(
            "relstack_request_seconds", "Seconds from request to answer.", ("path",), registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.batch_pairs = Histogram(
            "relstack_batch_pairs", "Pairs scored together.", registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        )  # fmt: skip
        self.answered: deque[tuple[float, float, int]] = deque(maxlen=RECENT)
        self.waiting = Gauge("relstack_waiting_pairs", "Pairs that wait to be scored.", registry=self.registry)

    def watch_queue(self, n_waiting: Callable[[], int]) -> None:
        """Ask this for the pairs that wait."""
        self.waiting.set_function(n_waiting)

    async def measuring(self, request: "Request", call_next: "Callable[[Request], Awaitable[Response]]") -> "Response":
        """Answer a request, and note how long that took."""
        path = request.url.path if request.url.path in KNOWN else "other"  # paths that clients make up are not kept
        started, status = time.perf_counter(), 500
        request.state.n_pairs = 0
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            self.requests.labels(path, str(status)).inc()
            ended = time.perf_counter()
            self.seconds.labels(path).observe(ended - started)
            if status == OK and request.state.n_pairs:
                self.answered.append((started, ended, request.state.n_pairs))

    def figures(self) -> Figures:
        """How fast the last requests were."""
        return Figures.of(tuple(self.answered))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return bytes(generate_latest(self.registry))
