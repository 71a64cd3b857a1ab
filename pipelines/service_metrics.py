"""What Prometheus may ask of the scoring service."""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Request, Response

KNOWN = ("/score", "/health", "/metrics", "/docs", "/openapi.json")


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
        self.waiting = Gauge("relstack_waiting_pairs", "Pairs that wait to be scored.", registry=self.registry)

    def watch_queue(self, n_waiting: Callable[[], int]) -> None:
        """Ask this for the pairs that wait."""
        self.waiting.set_function(n_waiting)

    async def measuring(self, request: "Request", call_next: "Callable[[Request], Awaitable[Response]]") -> "Response":
        """Answer a request, and note how long that took."""
        path = request.url.path if request.url.path in KNOWN else "other"  # paths that clients make up are not kept
        started, status = time.perf_counter(), 500
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            self.requests.labels(path, str(status)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return bytes(generate_latest(self.registry))
