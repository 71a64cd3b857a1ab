"""Latency and pairs per second of `relstack serve` on a made-up run: an ensemble of lexical base learners, a student.

    python benchmarks/serving.py [--run DIR] [--seconds 5] [--clients 1,8,32] [--pairs 1]

A real server process on this machine answers clients that each ask again as soon as they are answered, over one
connection. Pairs are those of the test file, and as many whose target is another row's: the run does not know them.
Micro-batching off scores one request at a time. What a ratio compares was measured with the same number of clients.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import relstack as rs
from pipelines.run_folder import RunFolder

TASK, LEARNERS = "QI", ("lexical", "lexical-linear")
SCORERS = {"ensemble": ("--ensemble", "stack"), "student": ("--student", "small")}
MODES = {"on": (), "off": ("--max-batch", "1", "--wait-ms", "0")}
WARM_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """What clients saw of a server.

    Attributes
    ----------
    latencies
        Seconds, ``(n_requests,)``.
    n_pairs
        Answered.
    """

    latencies: np.ndarray
    n_pairs: int
    seconds: float

    @property
    def rate(self) -> float:
        """Pairs per second."""
        return self.n_pairs / self.seconds

    def percentile(self, share: int) -> float:
        """Latency in milliseconds that `share` percent of the requests did not exceed."""
        return float(np.percentile(self.latencies, share) * 1000)


def make_run(root: Path) -> RunFolder:
    """A run with two base learners, their stack, and a student; made once."""
    rs.sample(root / "data", train_rows=3000, dev_rows=500, test_rows=500, tasks=[TASK])
    translations = root / "data" / "translations.csv"
    run = rs.Run.create(root / "run", data=root / "data", tasks=[TASK], folds=4, translations=translations)
    run.split()
    for learner in LEARNERS:
        run.train(TASK, learner)
    run.ensemble(TASK, "stack")
    run.distil(TASK, "lexical", name="small")
    run.leaderboard()
    return run.folder


def bodies(run: RunFolder, *, n_pairs: int) -> list[bytes]:
    """Requests of `n_pairs` pairs each: those of the test file, and as many that the run does not know."""
    rows = run.rows(TASK)["test"]
    order = np.random.default_rng(0).permutation(len(rows))
    texts = list(zip(rows["language"], rows["raw_query"], rows["raw_target"].fillna(""), strict=True))
    texts += list(zip(rows["language"], rows["raw_query"], rows["raw_target"].fillna("").iloc[order], strict=True))
    pairs = [{"language": language, "query": query, "target": target} for language, query, target in texts]
    mixed = [pairs[place] for place in np.random.default_rng(1).permutation(len(pairs))]
    return [json.dumps({"pairs": mixed[i : i + n_pairs]}).encode() for i in range(0, len(mixed), n_pairs)]


@contextmanager
def server(run: RunFolder, words: Sequence[str]) -> Iterator[str]:
    """A server's address, HOST:PORT; it ends with the block."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--run", str(run.root), "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on" in line)
            yield urlsplit(line.split("listening on ")[1].split(",")[0]).netloc
        finally:
            process.terminate()
            process.wait(60)


def load(address: str, requests: Sequence[bytes], *, n_clients: int, n_pairs: int, seconds: float) -> Load:
    """What `n_clients` see that ask one request after the other."""
    latencies: list[list[float]] = [[] for _ in range(n_clients)]
    begin = time.perf_counter() + WARM_SECONDS

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        place = number * len(requests) // n_clients
        while (started := time.perf_counter()) < begin + seconds:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/score", requests[place % len(requests)], headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            if started >= begin:
                latencies[number].append(time.perf_counter() - started)
            place += 1

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(n_clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    found = np.concatenate([np.array(each) for each in latencies])
    return Load(found, len(found) * n_pairs, time.perf_counter() - begin)


def main() -> None:
    """Measure and print; the last lines are ``RESULT <what> <figure>``."""
    parser = argparse.ArgumentParser(description="See the module.")
    parser.add_argument("--run", type=Path, help="Folder for data and run, kept; a temporary one if left out.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--pairs", type=int, default=1, help="Pairs in a request.")
    asked = parser.parse_args()
    clients = [int(number) for number in asked.clients.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        run = make_run(asked.run or Path(temporary))
        requests = bodies(run, n_pairs=asked.pairs)
        results: list[tuple[str, float]] = []
        print("model     batching  clients   p50 ms   p95 ms   p99 ms  pairs/s  1-minute load")
        for model, words in SCORERS.items():
            rates: dict[str, list[float]] = {}
            for mode, more in MODES.items():
                with server(run, [*words, *more]) as address:
                    for n_clients in clients:
                        seen = load(address, requests, n_clients=n_clients, n_pairs=asked.pairs, seconds=asked.seconds)
                        rates.setdefault(mode, []).append(seen.rate)
                        p50, p95, p99 = (seen.percentile(share) for share in (50, 95, 99))
                        print(
                            f"{model:9} {mode:8} {n_clients:8} {p50:8.1f} {p95:8.1f} {p99:8.1f} {seen.rate:8.1f}"
                            f" {os.getloadavg()[0]:8.1f}",
                            flush=True,
                        )
                        if mode == "on":
                            name = f"{model}_{n_clients}"
                            results += [(f"{name}_p50_ms", p50), (f"{name}_p95_ms", p95), (f"{name}_p99_ms", p99)]
                            results.append((f"{name}_pairs_per_second", seen.rate))
            for n_clients, on, off in zip(clients, rates["on"], rates["off"], strict=True):
                results.append((f"{model}_{n_clients}_batching_ratio", on / off))
    for name, value in results:
        print(f"RESULT {name} {value:.2f}")


if __name__ == "__main__":
    main()
