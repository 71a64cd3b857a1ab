"""The scoring service: POST pairs, get scores and decisions; health, metrics, OpenAPI.

It knows no users, no encryption and no other origins (CORS), and listens on this machine alone unless it is told
otherwise. A client that asks too much gets 413 or 422 with the field, one that asks too often 503 with Retry-After.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from competition.errors import CompetitionError, Fault
from pipelines.micro_batching import MicroBatcher, QueueFullError
from pipelines.new_pairs import given_pairs
from pipelines.pair_columns import PairFault

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pipelines.pair_scorer import PairScorer

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
GRACE_SECONDS = 30
BYTES_PER_CHARACTER = 12  # "\ud83d\ude00" is how JSON may spell one
FIELDS = 4  # texts of a pair, and what stands around them
LONGEST_NAME = 100
PATHS = {
    "/score": "POST: scores of pairs",
    "/health": "whether it lives, what waits, how fast the last requests were",
    "/metrics": "the same for Prometheus",
    "/openapi.json": "what can be asked, for programs",
    "/docs": "the same as a page; it needs a network for its scripts",
}
WARM_UP = {"query": "warm", "target": "up", "language": "en"}


class AddressError(CompetitionError):
    """Nothing can listen at an address."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Limits:
    """What a client may ask.

    Attributes
    ----------
    max_pairs
        In one request.
    max_text
        Characters of a query, target or translation.
    max_batch, wait_ms, max_waiting
        See `pipelines.micro_batching.MicroBatcher`.
    """

    max_pairs: int = 256
    max_text: int = 2000
    max_batch: int = 256
    wait_ms: float = 5.0
    max_waiting: int = 4096

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return self.max_pairs * FIELDS * (self.max_text * BYTES_PER_CHARACTER + LONGEST_NAME)


def make_app(scorers: "Mapping[str, PairScorer]", limits: Limits) -> "FastAPI":
    """The service over the scorers of some tasks; they are warmed up, and then belong to its scoring thread.

    Raises
    ------
    CompetitionError
        The packages of ``relstack[serve]`` are not installed.
    """
    _refuse_missing_packages()
    from fastapi import FastAPI

    from pipelines.service_errors import add_error_answers
    from pipelines.service_limits import BodyLimit
    from pipelines.service_metrics import Metrics

    for scorer in scorers.values():
        scorer.score([WARM_UP])
    metrics = Metrics()
    batcher = MicroBatcher(
        {task: scorer.score_checked for task, scorer in scorers.items()},
        max_batch=limits.max_batch,
        wait_ms=limits.wait_ms,
        max_waiting=limits.max_waiting,
        tell=metrics.batch_pairs.observe,
    )
    metrics.watch_queue(lambda: batcher.n_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="relstack",
        summary="Is a query relevant to a target?",
        description=f"Scores pairs of {' and '.join(scorers)}: "
        + ", ".join(f"{task} by {scorer.kind} {scorer.name}" for task, scorer in scorers.items()),
        version=_version(),
        lifespan=lifespan,
    )
    app.state.batcher, app.state.metrics = batcher, metrics
    add_error_answers(app)
    app.add_middleware(BodyLimit, max_bytes=limits.max_bytes)
    app.middleware("http")(metrics.measuring)
    _add_scoring(app, scorers, limits, batcher)
    _add_health(app, scorers, batcher, metrics)
    _add_front(app)
    return app


def _add_scoring(app: "FastAPI", scorers: "Mapping[str, PairScorer]", limits: Limits, batcher: MicroBatcher) -> None:
    from fastapi import HTTPException, Request

    from pipelines.service_errors import told
    from pipelines.service_schema import ScoreResponse, request_type

    asked: Any = request_type(limits, [scorer.task for scorer in scorers.values()])

    @app.post(
        "/score",
        response_model=ScoreResponse,
        summary="Scores of pairs",
        responses={413: {"description": "The body is too large."}, 503: {"description": "Too many pairs wait."}},
    )
    async def score(request: asked, asking: Request) -> dict[str, Any]:
        """The score (probability of label 1) and decision (0 or 1) of every pair, in their order.

        A pair scores the same alone and among others, whoever else asks at the same time.
        """
        task, pairs = request.task, request.pairs
        records = [pair.model_dump(exclude_unset=True, by_alias=True) for pair in pairs]
        try:
            future = batcher.submit(task, given_pairs(records, scorers[task].task))
        except CompetitionError as error:
            raise HTTPException(422, told(_place(fault) for fault in error.faults)) from error
        except QueueFullError:
            words = "too many pairs wait to be scored"
            raise HTTPException(503, words, headers={"Retry-After": str(RETRY_SECONDS)}) from None
        scored = await asyncio.wrap_future(future)
        asking.state.n_pairs = len(records)
        return {"task": task, "model": scorers[task].name, "scores": scored.to_dict("records")}


def _place(fault: Fault) -> dict[str, Any]:
    """A fault of a pair as FastAPI tells its own."""
    loc: tuple[int | str, ...] = ("body", "pairs")
    if isinstance(fault, PairFault):
        loc = (*loc, fault.line - 1, fault.field)
    return {"loc": loc, "msg": str(fault), "type": "value_error"}


def _add_front(app: "FastAPI") -> None:
    from pipelines.service_schema import Front

    @app.get("/", response_model=Front, include_in_schema=False)
    async def front() -> dict[str, Any]:
        return {"name": app.title, "version": app.version, "paths": PATHS}


def _add_health(app: "FastAPI", scorers: "Mapping[str, PairScorer]", batcher: MicroBatcher, metrics: Any) -> None:
    from fastapi import Response

    from pipelines.service_schema import Health

    @app.get("/health", response_model=Health, summary="Whether it lives, and whether requests would be answered")
    async def health(response: Response) -> dict[str, Any]:
        """503 while it is not ready: it is ending."""
        response.status_code = 200 if batcher.is_ready else 503
        models = {task: f"{scorer.kind} {scorer.name}" for task, scorer in scorers.items()}
        return {
            "live": True,
            "ready": batcher.is_ready,
            "models": models,
            "waiting": batcher.n_waiting,
            **vars(metrics.figures()),
        }

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is ours and not answered yet; take it before models are loaded.

    Raises
    ------
    CompetitionError
        `AddressError`: another program listens there, this machine has no such address, or may not use the port. Or the
        packages of ``relstack[serve]`` are not installed.
    """
    _refuse_missing_packages()
    if host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("%s: other machines can ask too, without a password; put a proxy before it", host)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _naming(host, port):
            ours.bind((host, port))
        yield ours


@contextmanager
def _naming(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        fault = Fault(f"{host}:{port}", getattr(error, "strerror", None) or str(error), "an address that is free")
        advice = "name another one: --port 8001, or --port 0 for any that is free; --host 127.0.0.1 is this machine"
        raise AddressError("the service cannot listen there", faults=[fault], advice=advice) from error


def listen(app: "FastAPI", ours: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; those that were taken by then are answered first."""
    import uvicorn

    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
    server = uvicorn.Server(settings)

    def end(number: int, frame: object) -> None:
        """For a signal before the server minds it, and for the one that it sends again once it has ended."""
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    host, port = ours.getsockname()[:2]
    with _naming(host, port):
        ours.listen()  # whoever asks from now on waits until the server accepts
    shown = f"[{host}]" if ":" in host else host
    log.info(
        "listening on http://%s:%d, what can be asked: /openapi.json, or /docs (a page that needs a network)",
        shown,
        port,
    )
    server.run(sockets=[ours])
    log.info("ended; %s", app.state.metrics.figures())


def _refuse_missing_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        faults = [Fault(name, "not installed") for name in missing]
        raise CompetitionError(
            "there is no service without its packages", faults=faults, advice="pip install 'relstack[serve]'"
        )


def _version() -> str:
    from importlib.metadata import version

    return version("relstack")
