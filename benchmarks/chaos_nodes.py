"""A cluster of two Ray machines, both processes of this one, of which one is taken away while both work."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.job_state import read_state
from pipelines.run_folder import RunFolder

LOOK_SECONDS = 0.05
MACHINE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def lose_node(command: Callable[[Sequence[str]], list[str]], run: Path, *, log: Path) -> tuple[int, list[str]]:
    """The exit code of a run whose second machine is lost as soon as both work, and the jobs that were begun again.

    `command` gives the run's command with these options more. -1: the run ended before both machines worked.
    """
    from ray.cluster_utils import Cluster

    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RELSTACK_CACHE": str(run.with_suffix(".cache"))}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})
    lost = cluster.add_node(**MACHINE)
    words = command(["--engine", "ray", "--address", cluster.address])
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        while jobs_at_work(run) < 2:
            if process.poll() is not None:
                return -1, []
            time.sleep(LOOK_SECONDS)
        cluster.remove_node(lost)
        return process.wait(), begun_again(RunFolder(run))
    finally:
        process.kill()
        cluster.shutdown()


def jobs_at_work(run: Path) -> int:
    """Processes that do jobs of a run, on any of the machines."""
    marks, found = (b"pipelines.job_process", str(run).encode()), 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            found += all(mark in words for mark in marks)
    return found


def begun_again(run: RunFolder) -> list[str]:
    """The jobs of a run that took more than one attempt."""
    states = filter(None, map(read_state, sorted(run.logs.glob("*.json"))))
    return [state.name for state in states if state.attempt > 1]
