"""The scoring service: answers, refusals, batches, metrics; a real server that ends when it is told to."""

import gzip
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.micro_batching import MicroBatcher, QueueFullError
from pipelines.pair_scorer import PairScorer, load_ensemble
from pipelines.run_folder import RunFolder
from pipelines.service_metrics import Figures
from pipelines.serving import Limits, make_app

pytest.importorskip("fastapi", reason="needs relstack[serve]")
httpx = pytest.importorskip("httpx", reason="asks the service")

PAIR = {"query": "red shoes", "target": "red leather shoes", "language": "en"}


@pytest.fixture(scope="module")
def scorer(finished_run: Path) -> PairScorer:
    return load_ensemble(RunFolder(finished_run), "QI", "stack")


@pytest.fixture(scope="module")
def client(scorer: PairScorer) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    limits = Limits(max_pairs=3, max_text=50, wait_ms=1)
    with TestClient(make_app({"QI": scorer}, limits)) as client:
        yield client


def test_pairs_get_the_scores_of_the_ensemble(client: Any, scorer: PairScorer) -> None:
    pairs = [PAIR, {"query": "dog toy", "target": "shoes", "id": "mine", "language": "en"}]
    answer = client.post("/score", json={"pairs": pairs})
    assert answer.status_code == 200
    found = answer.json()
    expected = scorer.score(pairs)
    assert [line["id"] for line in found["scores"]] == [1, "mine"]
    assert [line["score"] for line in found["scores"]] == pytest.approx(expected["score"].tolist(), abs=1e-6)
    assert [line["decision"] for line in found["scores"]] == expected["decision"].tolist()
    assert (found["task"], found["model"]) == ("QI", "stack")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"pairs": [{"target": "a"}]}, ["pairs", 0, "query"]),
        ({"pairs": [PAIR, {**PAIR, "query": "  "}]}, ["pairs", 1, "query"]),
        ({"pairs": [{**PAIR, "query": "\x1c"}]}, ["pairs", 0, "query"]),
        ({"pairs": [{**PAIR, "origin_query": "b"}]}, ["pairs", 0, "query"]),
        ({"pairs": [{"query": "a", "category_path": "b"}]}, ["pairs", 0, "category_path"]),
        ({"pairs": [{"query": None, "target": "b"}]}, ["pairs", 0, "query"]),
        ({"pairs": [{**PAIR, "target": "a" * 51}]}, ["pairs", 0, "target"]),
        ({"pairs": [{**PAIR, "target": 3}]}, ["pairs", 0, "target"]),
        ({"pairs": [{**PAIR, "price": 3}]}, ["pairs", 0, "price"]),
        ({"pairs": []}, ["pairs"]),
        ({"pairs": [PAIR] * 4}, ["pairs"]),
        ({"pairs": [PAIR], "task": "QC"}, ["task"]),
        ({}, ["pairs"]),
    ],
)
def test_a_bad_request_is_told_its_field(body: dict[str, Any], place: list[Any], client: Any) -> None:
    answer = client.post("/score", json=body)
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", *place]]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"pairs": [{"query": "a", "target": "\\ud83d"}]}', ["pairs", 0, "target"]),
        (b'{"pairs": [{"query": "\\ud800", "target": "a"}]}', ["pairs", 0, "query"]),
        (b'{"pairs": [{"query": "a", "target": NaN}]}', ["pairs", 0, "target"]),
        (b'{"pairs": [{"query": "a", "target": "a", "\\ud83d": 1}]}', ["pairs", 0]),
        ('{"pairs": [{"query": "café", "target": "a"}]}'.encode("latin-1"), []),
        (gzip.compress(b'{"pairs": []}'), []),
        (b"[" * 30_000, []),
        (b'{"pairs": ', []),
        (b"", []),
    ],
)
def test_a_body_of_odd_bytes_is_told_its_field(body: bytes, place: list[Any], scorer: PairScorer) -> None:
    from fastapi.testclient import TestClient

    with TestClient(make_app({"QI": scorer}, Limits()), raise_server_exceptions=False) as client:
        answer = client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", *place]]


def test_what_was_sent_is_not_sent_back(client: Any) -> None:
    body = {"pairs": [{**PAIR, "target": "secret" * 10, "shoes": {"a": "secret"}}] * 4}
    answer = client.post("/score", json=body)
    assert answer.status_code == 422
    assert "secret" not in answer.text
    assert {key for fault in answer.json()["detail"] for key in fault} == {"loc", "msg", "type"}


def test_very_many_faults_are_not_all_told(client: Any) -> None:
    answer = client.post("/score", json={"pairs": [{**PAIR, **{str(key): 1 for key in range(500)}}]})
    assert len(answer.json()["detail"]) == 100


def test_pairs_may_be_called_as_in_the_contests_files_and_have_no_target(client: Any, scorer: PairScorer) -> None:
    pairs = [{"origin_query": "red shoes", "item_title": None}, {"query": "red shoes", "item_title": "red shoes"}]
    answer = client.post("/score", json={"pairs": pairs})
    assert answer.status_code == 200
    found = [line["score"] for line in answer.json()["scores"]]
    assert found == pytest.approx(scorer.score(pairs)["score"].tolist(), abs=1e-6)


def test_a_body_that_is_too_large_is_not_read(client: Any) -> None:
    answer = client.post("/score", content=(b" " * 10_000 for _ in range(10)))
    assert answer.status_code == 413


def test_no_page_of_another_origin_may_read_answers(client: Any) -> None:
    answer = client.post("/score", json={"pairs": [PAIR]}, headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_health_and_metrics_tell_what_was_done(client: Any) -> None:
    client.post("/score", json={"pairs": [PAIR]})
    health = client.get("/health").json()
    assert health.items() >= {"live": True, "ready": True, "models": {"QI": "ensemble stack"}, "waiting": 0}.items()
    assert health["requests"] > 0
    assert 0 < health["p50_ms"] <= health["p95_ms"]
    assert health["pairs_per_second"] > 0
    text = client.get("/metrics").text
    assert 'relstack_requests_total{path="/score",status="200"}' in text
    for name in ("relstack_request_seconds_bucket", "relstack_batch_pairs_count", "relstack_waiting_pairs 0.0"):
        assert name in text


def test_the_front_names_what_can_be_asked(client: Any) -> None:
    front = client.get("/").json()
    assert front["name"] == "relstack"
    assert {"/score", "/health", "/metrics", "/openapi.json", "/docs"} == set(front["paths"])
    for path in set(front["paths"]) - {"/score"}:
        assert client.get(path).status_code == 200


def test_before_a_request_there_are_no_figures() -> None:
    assert str(Figures.of(())) == "no request was scored"


def test_the_openapi_page_has_an_example_that_works(client: Any) -> None:
    page = client.get("/openapi.json").json()
    example = page["components"]["schemas"]["ScoreRequest"]["example"]
    assert client.post("/score", json=example).status_code == 200


def frame(*ids: int) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids)})


class Slow:
    """Scores when it is allowed to; remembers what it was given together."""

    def __init__(self) -> None:
        self.go, self.begun, self.batches = threading.Event(), threading.Event(), list[list[int]]()

    def __call__(self, pairs: pd.DataFrame) -> pd.DataFrame:
        self.begun.set()
        assert self.go.wait(30)
        self.batches.append(pairs["id"].tolist())
        if 13 in pairs["id"].tolist():
            raise ValueError("thirteen")
        return pairs.assign(score=0.5)


def batcher_of(slow: Slow, **limits: Any) -> MicroBatcher:
    return MicroBatcher({"QI": slow, "QC": slow}, **{"max_batch": 4, "wait_ms": 0, "max_waiting": 6, **limits})


def test_what_waits_is_scored_together_by_task_and_everyone_gets_his_own() -> None:
    slow = Slow()
    batcher = batcher_of(slow)
    first = batcher.submit("QI", frame(0))
    assert slow.begun.wait(30)
    rest = [batcher.submit("QI", frame(1, 2)), batcher.submit("QC", frame(3)), batcher.submit("QI", frame(4))]
    slow.go.set()
    assert [each.result(30)["id"].tolist() for each in (first, *rest)] == [[0], [1, 2], [3], [4]]
    assert slow.batches == [[0], [1, 2, 4], [3]]
    batcher.close()


def test_a_full_queue_refuses_and_a_closed_one_answers_what_it_took() -> None:
    slow = Slow()
    batcher = batcher_of(slow)
    batcher.submit("QI", frame(0))
    assert slow.begun.wait(30)
    taken = batcher.submit("QI", frame(*range(5)))
    with pytest.raises(QueueFullError):
        batcher.submit("QI", frame(1, 2))
    with ThreadPoolExecutor() as pool:
        closing = pool.submit(batcher.close)
        while batcher.is_ready:
            time.sleep(0.01)
        with pytest.raises(QueueFullError):
            batcher.submit("QI", frame(1))
        slow.go.set()
        closing.result(30)
    assert len(taken.result(0)) == 5


def test_a_batch_that_fails_and_a_client_that_left_end_nothing() -> None:
    slow = Slow()
    batcher = batcher_of(slow, max_batch=1)
    first = batcher.submit("QI", frame(0))
    assert slow.begun.wait(30)
    left, failed, fine = (batcher.submit("QI", frame(number)) for number in (1, 13, 2))
    assert left.cancel()
    slow.go.set()
    with pytest.raises(ValueError, match="thirteen"):
        failed.result(30)
    assert fine.result(30)["id"].tolist() == [2]
    assert first.done()
    assert slow.batches == [[0], [13], [2]]
    batcher.close()


def test_of_requests_scored_together_a_bad_one_fails_alone() -> None:
    slow = Slow()
    batcher = batcher_of(slow)
    first = batcher.submit("QI", frame(0))
    assert slow.begun.wait(30)
    fine, failed, other = (batcher.submit("QI", frame(number)) for number in (1, 13, 2))
    slow.go.set()
    assert [each.result(30)["id"].tolist() for each in (first, fine, other)] == [[0], [1], [2]]
    with pytest.raises(ValueError, match="thirteen"):
        failed.result(30)
    assert slow.batches == [[0], [1, 13, 2], [1], [13], [2]]
    batcher.close()


def test_metrics_that_fail_fail_requests_and_not_the_thread() -> None:
    slow, told = Slow(), list[int]()

    def tell(n_pairs: int) -> None:
        told.append(n_pairs)
        if n_pairs == 2:
            raise SystemExit("two")

    slow.go.set()
    batcher = batcher_of(slow, tell=tell)
    with pytest.raises(SystemExit, match="two"):
        batcher.submit("QI", frame(1, 2)).result(30)
    assert batcher.submit("QI", frame(3)).result(30)["id"].tolist() == [3]
    assert told == [2, 1]
    batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_ended() -> None:
    slow = Slow()
    batcher = batcher_of(slow, max_batch=1)
    stolen = batcher.submit("QI", frame(0))
    assert slow.begun.wait(30)
    waiting = batcher.submit("QI", frame(1))
    stolen.set_result(frame(9))  # so that the thread cannot
    slow.go.set()
    with pytest.raises(QueueFullError):
        waiting.result(30)
    batcher.close()
    assert not batcher.is_ready
    assert batcher.n_waiting == 0
    with pytest.raises(QueueFullError):
        batcher.submit("QI", frame(2))


def test_too_many_waiting_pairs_are_told_to_come_back(scorer: PairScorer) -> None:
    from fastapi.testclient import TestClient

    app = make_app({"QI": scorer}, Limits(max_waiting=1))
    with TestClient(app) as client:
        app.state.batcher.close()
        answer = client.post("/score", json={"pairs": [PAIR]})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert client.get("/health").status_code == 503
        assert client.get("/health").json()["ready"] is False


def test_a_real_server_answers_and_ends_when_it_is_told_to(finished_run: Path) -> None:
    words = ["serve", "--run", str(finished_run), "--port", "0", "--ensemble", "lexical", "--wait-ms", "200"]
    command = [sys.executable, "-m", "pipelines.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = next(line for line in server.stderr if "listening on" in line)
            address = line.split("listening on ")[1].split(",")[0]
            with ThreadPoolExecutor() as pool:
                body = {"pairs": [PAIR]}
                answers = [pool.submit(httpx.post, f"{address}/score", json=body, timeout=60) for _ in range(4)]
                while pairs_taken(address) < 4:
                    time.sleep(0.01)
                server.send_signal(signal.SIGTERM)
                assert {each.result().status_code for each in answers} == {200}
            assert server.wait(60) == 0
            assert "the last 4 requests: p50 " in server.stderr.read()
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{address}/health")
        finally:
            server.kill()


def test_a_server_ends_that_is_told_to_before_it_has_answered_anything(finished_run: Path) -> None:
    words = ["serve", "--run", str(finished_run), "--port", "0", "--ensemble", "lexical"]
    command = [sys.executable, "-m", "pipelines.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "listening on" in line)
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_a_taken_port_is_told_before_models_are_loaded(finished_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["serve", "--run", str(finished_run), "--port", port, "--ensemble", "there is no such model"]
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert f"127.0.0.1:{port}: Address already in use" in done.output
    assert "--port" in done.output


def test_no_address_of_this_machine_is_told(finished_run: Path) -> None:
    done = CliRunner().invoke(main, ["serve", "--run", str(finished_run), "--host", "no host", "--port", "0"])
    assert done.exit_code == 1
    assert "--host" in done.output


def pairs_taken(address: str) -> float:
    """Pairs that wait, or were scored."""
    text = httpx.get(f"{address}/metrics", timeout=60).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values["relstack_waiting_pairs"]) + float(values["relstack_batch_pairs_sum"])
