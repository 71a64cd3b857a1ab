"""Jobs on a Ray cluster (Moritz et al. 2018): one task per job, on whichever machine has room for it.

The machines share a file system, and relstack is installed on each. A job with several GPUs gets a placement group: its
GPUs, CPUs and memory on one machine, taken together. Ray itself starts a task again whose machine or worker was lost.
"""

import logging
import os
import re
import socket
from collections.abc import Mapping
from typing import Any, ClassVar

from competition.errors import WORTH_RETRYING, CompetitionError
from pipelines.engines.processes import Place, run_job
from pipelines.engines.protocol import EngineOptions, Outcome
from pipelines.footprint import GIB
from pipelines.jobs import Job
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

LOST_MACHINES = 3  # times that Ray starts a job again
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5
HOST_AND_PORT = re.compile(r"\[?([^/\[\]]+)\]?:(\d+)")
STORE_BYTES = 80 * 2**20  # the least that Ray takes; nothing of ours goes through its store
NODE_WORDS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Ray's names of a task's resources and what it calls them on machines and in placement groups."""


class RayNotStartedError(CompetitionError):
    """Ray's processes did not come up on this machine, which was busy: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class ClusterSilentError(CompetitionError):
    """Nobody answers at the address of a cluster, which may come up yet: worth retrying."""

    exit_code: ClassVar[int] = WORTH_RETRYING


class RayCluster:
    """Tasks of a Ray cluster, which queues what it has no room for."""

    tries = 3

    def __init__(self, run: RunFolder, *, workers: int | None, has_gpus: bool, own: bool = False) -> None:
        self.workers, self.has_gpus, self.own = workers, has_gpus, own
        self.place = Place.of(run)
        self.running: dict[Any, Job] = {}
        self.groups: dict[Any, Any] = {}

    @classmethod
    def of(cls, run: RunFolder, options: EngineOptions) -> "RayCluster":
        """The cluster at an address, or one that is started on this machine.

        Raises
        ------
        CompetitionError
            Ray is not installed, no cluster answers at the address, or none comes up here.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise CompetitionError("--engine ray needs Ray", advice='pip install "relstack[ray]"') from error
        own = options.address is None and not ray.is_initialized()
        if not ray.is_initialized():
            _connect(options.address)
        return cls(run, workers=options.workers, has_gpus=ray.cluster_resources().get("GPU", 0) > 0, own=own)

    def has_room(self, job: Job) -> bool:
        """Whether fewer jobs are handed over than were asked for at a time."""
        return self.workers is None or len(self.running) < self.workers

    def start(self, job: Job) -> None:
        """Hand the job over."""
        import ray

        asked = ray_resources(job, has_gpus=self.has_gpus)
        if not any(_fits(asked, node["Resources"]) for node in ray.nodes() if node["Alive"]):
            log.warning("%s waits for a machine: none of the cluster has %s now", job.name, asked)
        options = {"name": job.name, "max_retries": LOST_MACHINES, "retry_exceptions": False, **asked}
        group = _placement_group(asked) if asked["num_gpus"] > 1 else None
        if group is not None:
            options["scheduling_strategy"] = _within(group)
        task = ray.remote(run_job).options(**options).remote(job, self.place)
        self.running[task] = job
        if group is not None:
            self.groups[task] = group

    def ended(self) -> list[Outcome]:
        """The jobs whose tasks have ended."""
        import ray

        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=LOOK_SECONDS)
        return [self._end(task) for task in ready]

    def stop(self) -> None:
        """End all tasks, and the cluster if it was started here."""
        import ray

        for task in self.running:
            ray.cancel(task, force=True)
            self._free(task)
        self.running.clear()
        if self.own:
            ray.shutdown()

    def _end(self, task: Any) -> Outcome:
        outcome = _outcome(task, self.running.pop(task))
        self._free(task)
        return outcome

    def _free(self, task: Any) -> None:
        """Give the task's placement group back."""
        import ray

        if task in self.groups:
            ray.util.remove_placement_group(self.groups.pop(task))


def ray_resources(job: Job, *, has_gpus: bool) -> dict[str, Any]:
    """What a task asks Ray for, in Ray's words.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pipelines.jobs import Resources
    >>> job = Job("train.QC.a.fold-0", (), Path("manifest.json"), (), Resources(4, 2, 8), "train", "QC", "a", 0)
    >>> ray_resources(job, has_gpus=True)
    {'num_cpus': 4, 'num_gpus': 2, 'memory': 8589934592}
    """
    asked: dict[str, Any] = {"num_cpus": job.resources.cpus, "num_gpus": job.resources.gpus if has_gpus else 0}
    if job.resources.memory_gib is not None:
        asked["memory"] = int(job.resources.memory_gib * GIB)
    return asked


def _fits(asked: Mapping[str, Any], machine: Mapping[str, float]) -> bool:
    return all(machine.get(NODE_WORDS[key], 0) >= amount for key, amount in asked.items())


def _placement_group(asked: Mapping[str, Any]) -> Any:
    """All that is asked for as one bundle, which Ray puts on one machine and, if that is lost, on another."""
    import ray

    return ray.util.placement_group(
        [{NODE_WORDS[key]: amount for key, amount in asked.items()}], strategy="STRICT_PACK"
    )


def _within(group: Any) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(group)


def _refuse_silent(address: str) -> None:
    """Ray itself waits ten minutes for an address at which nobody listens."""
    if (named := HOST_AND_PORT.fullmatch(address)) is None:
        return
    try:
        socket.create_connection((named[1], int(named[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterSilentError(
            f"nobody answers at {address}: {error}",
            advice="look whether the cluster is up, with `ray status` on its head, and which port it has (6379 unless "
            "told otherwise); --address auto finds one of this machine, and left out it starts one",
        ) from error


def _connect(address: str | None) -> None:
    import ray

    if address is not None:
        _refuse_silent(address)
    alone: Mapping[str, Any] = {
        "num_cpus": available_threads(),
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(
            address="local" if address is None else address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **(alone if address is None else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CompetitionError(
            f"no Ray cluster answers at {address or 'this machine'}: {error}",
            advice="start one with `ray start --head`, or leave --address out",
        ) from error
    except Exception as error:
        if type(error) is not Exception:  # Ray raises no narrower one where it waited half a minute in vain
            raise
        raise RayNotStartedError(
            f"Ray did not start: {error}",
            advice="the same command tries again; on a busy machine start a cluster first, with `ray start --head`, "
            "and name it with --address auto, or take --engine local",
        ) from error


def _outcome(task: Any, job: Job) -> Outcome:
    """What the task returned; one that Ray could not bring to an end is worth another try, but for our own errors."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: Outcome = ray.get(task)
    except RayTaskError as error:
        return Outcome(job, 1, done=False, last=tuple(str(error).splitlines()[-3:]))
    except RayError as error:
        return Outcome(job, WORTH_RETRYING, done=False, last=(f"{type(error).__name__}: {error}".splitlines()[0],))
    return found
