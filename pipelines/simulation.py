"""A simulated scheduler: jobs with needs on machines that fail, with the rule that the engines work by.

List scheduling (Graham 1966): whenever something ends, ready jobs are started in order wherever they fit; a job that
does not fit is passed over by those behind it. A job with several GPUs takes them on one machine. Time is in seconds.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf
from operator import le
from random import Random
from typing import Literal

from competition.errors import CompetitionError, Fault
from pipelines.ranking import chains, rank

Order = Literal["submitted", "widest", "longest"]
MOST_ATTEMPTS = 1000


@dataclass(frozen=True)
class SimulatedJob:
    """A job as the scheduler sees it.

    Attributes
    ----------
    needs
        Jobs that must be done before.
    checkpoint_seconds
        How often it keeps what it has done; what is not kept is done again after its machine was lost.
    """

    name: str
    seconds: float
    cpus: int = 1
    gpus: int = 0
    memory_gib: float = 0.0
    needs: tuple[str, ...] = ()
    checkpoint_seconds: float = inf


@dataclass(frozen=True)
class Node:
    """A machine."""

    cpus: int
    gpus: int = 0
    memory_gib: float = inf

    def holds(self, job: SimulatedJob) -> bool:
        """Whether the job fits while nothing else runs."""
        return job.cpus <= self.cpus and job.gpus <= self.gpus and job.memory_gib <= self.memory_gib


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, by a seed.

    Attributes
    ----------
    mtbf_seconds
        Mean time between failures of one machine, exponential; it comes back after `repair_seconds`.
    slow_share, slow_factor
        So large a share of attempts takes so many times as long.
    """

    mtbf_seconds: float = inf
    repair_seconds: float = 600.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One time that a job ran: where, from when to when, and whether that finished it."""

    job: str
    node: int
    start: float
    end: float
    finished: bool


@dataclass(frozen=True)
class Schedule:
    """What came of it.

    Attributes
    ----------
    critical_path
        Seconds of the longest chain of jobs that need each other.
    lower_bound
        No schedule is shorter: the critical path, or all work over all GPUs (or CPUs).
    lost_gpu_seconds
        GPU time of work that had to be done again.
    """

    attempts: tuple[Attempt, ...]
    makespan: float
    critical_path: float
    lower_bound: float
    gpu_seconds: float
    lost_gpu_seconds: float
    gpu_utilisation: float
    n_failures: int


def simulate(
    jobs: Sequence[SimulatedJob], nodes: Sequence[Node], *, order: Order = "widest", trouble: Trouble | None = None
) -> Schedule:
    """The schedule of all jobs. Same arguments, same schedule.

    `order` is that of ready jobs: as ``submitted``; by the rule of the engines, `pipelines.ranking` (``widest``: most
    GPUs first, of these those with the longest chain behind them); or those that are the ``longest`` by themselves.

    Raises
    ------
    CompetitionError
        A job fits no machine, needs an unknown job or itself, or is lost again and again.
    """
    _refuse_unordered(jobs)
    if misfits := [job for job in jobs if not any(node.holds(job) for node in nodes)]:
        faults = [Fault(job.name, f"{job.cpus} CPUs, {job.gpus} GPUs, {job.memory_gib:g} GiB") for job in misfits]
        raise CompetitionError("jobs that fit no machine", faults=faults, advice="ask for fewer GPUs or less memory")
    return _Simulation(jobs, nodes, order, trouble or Trouble()).run()


def critical_path(jobs: Sequence[SimulatedJob]) -> float:
    """Seconds of the longest chain of jobs that need each other.

    Examples
    --------
    >>> critical_path([SimulatedJob("a", 2), SimulatedJob("b", 3, needs=("a",)), SimulatedJob("c", 4)])
    5.0
    """
    return max(_chains(jobs).values(), default=0.0)


def _chains(jobs: Sequence[SimulatedJob]) -> dict[str, float]:
    return chains({job.name: job.needs for job in jobs}, {job.name: job.seconds for job in jobs})


def _refuse_unordered(jobs: Sequence[SimulatedJob]) -> None:
    """Refuse jobs that can be put in no order in which each comes after those that it needs (Kahn 1962)."""
    by_name = {job.name: job for job in jobs}
    assert len(by_name) == len(jobs), "jobs have names of their own"
    if unknown := [Fault(job.name, f"needs {name}") for job in jobs for name in job.needs if name not in by_name]:
        raise CompetitionError("jobs need jobs that are not there", faults=unknown)
    open_needs = {job.name: len(set(job.needs)) for job in jobs}
    dependents = _dependents(jobs)
    done = [job for job in jobs if not job.needs]
    for job in done:  # grows while it is read
        for name in dependents[job.name]:
            open_needs[name] -= 1
            if not open_needs[name]:
                done.append(by_name[name])
    if len(done) < len(jobs):
        faults = [Fault(name, "needs itself, or a job that does") for name, left in open_needs.items() if left]
        raise CompetitionError("jobs need each other in a circle", faults=faults)


def _dependents(jobs: Sequence[SimulatedJob]) -> dict[str, list[str]]:
    """Job -> the jobs that need it."""
    found: dict[str, list[str]] = defaultdict(list)
    for job in jobs:
        for name in dict.fromkeys(job.needs):
            found[name].append(job.name)
    return found


def _ranks(jobs: Sequence[SimulatedJob], order: Order) -> dict[str, tuple[float, ...]]:
    """Job -> its place among ready jobs: by the order asked for, then as submitted."""
    chain = _chains(jobs)
    places: dict[Order, Callable[[SimulatedJob], tuple[float, ...]]] = {
        "submitted": lambda job: (),
        "widest": lambda job: rank(gpus=job.gpus, chain=chain[job.name]),
        "longest": lambda job: (-job.seconds,),
    }
    return {job.name: (*places[order](job), i) for i, job in enumerate(jobs)}


@dataclass(frozen=True)
class _Running:
    job: SimulatedJob
    node: int
    start: float
    factor: float


class _Simulation:
    """The events of one simulation. They are (time, serial number, what happens, on which attempt or node)."""

    def __init__(self, jobs: Sequence[SimulatedJob], nodes: Sequence[Node], order: Order, trouble: Trouble) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.ranks = _ranks(jobs, order)
        self.nodes, self.trouble, self.random = nodes, trouble, Random(trouble.seed)
        self.free = [[node.cpus, node.gpus, node.memory_gib] for node in nodes]
        self.up = [True] * len(nodes)
        self.left = {job.name: job.seconds for job in jobs}
        self.open_needs = {job.name: len(set(job.needs)) for job in jobs}
        self.dependents = _dependents(jobs)
        self.ready: dict[tuple[float, ...], list[tuple[tuple[float, ...], str]]] = defaultdict(list)
        self.running: dict[int, _Running] = {}
        self.events: list[tuple[float, int, str, int]] = []
        self.serial = count()
        self.tries: dict[str, int] = defaultdict(int)
        self.attempts: list[Attempt] = []
        self.lost_gpu_seconds, self.n_failures, self.n_open = 0.0, 0, len(jobs)

    def run(self) -> Schedule:
        for job in self.jobs.values():
            if not self.open_needs[job.name]:
                self._make_ready(job)
        for node in range(len(self.nodes)):
            self._draw_failure(node, 0.0)
        self._start_what_fits(0.0)
        while self.n_open:
            now = self.events[0][0]
            while self.events and self.events[0][0] == now:
                _, _, what, subject = heapq.heappop(self.events)
                {"end": self._end, "fail": self._fail, "return": self._return}[what](subject, now)
            self._start_what_fits(now)
        return self._schedule()

    def _make_ready(self, job: SimulatedJob) -> None:
        heapq.heappush(self.ready[job.cpus, job.gpus, job.memory_gib], (self.ranks[job.name], job.name))

    def _start_what_fits(self, now: float) -> None:
        """Ready jobs of one size stand in one queue: where its first does not fit, none of it does."""
        heads = [(queue[0][0], size) for size, queue in self.ready.items() if queue]
        heapq.heapify(heads)
        while heads:
            _, size = heapq.heappop(heads)
            node = self._fullest_that_holds(size)
            if node is None:
                continue
            queue = self.ready[size]
            self._start(self.jobs[heapq.heappop(queue)[1]], node, now)
            if queue:
                heapq.heappush(heads, (queue[0][0], size))

    def _fullest_that_holds(self, size: tuple[float, ...]) -> int | None:
        """The machine with the fewest free GPUs, so that others keep room for jobs with several."""
        holding = [i for i, free in enumerate(self.free) if self.up[i] and all(map(le, size, free))]
        return min(holding, key=lambda i: (self.free[i][1], self.free[i][0], i), default=None)

    def _start(self, job: SimulatedJob, node: int, now: float) -> None:
        self._take(job, node, sign=-1)
        self.tries[job.name] += 1
        if self.tries[job.name] > MOST_ATTEMPTS:
            raise CompetitionError(
                f"{job.name} was lost {MOST_ATTEMPTS} times",
                advice="keep checkpoints more often: machines fail before it is done",
            )
        slow = self.trouble.slow_share and self.random.random() < self.trouble.slow_share
        factor = self.trouble.slow_factor if slow else 1.0
        attempt = next(self.serial)
        self.running[attempt] = _Running(job, node, now, factor)
        heapq.heappush(self.events, (now + self.left[job.name] * factor, attempt, "end", attempt))

    def _take(self, job: SimulatedJob, node: int, *, sign: int) -> None:
        for i, amount in enumerate((job.cpus, job.gpus, job.memory_gib)):
            self.free[node][i] += sign * amount

    def _end(self, attempt: int, now: float) -> None:
        if attempt not in self.running:  # its machine was lost before
            return
        running = self._stop(attempt, now, finished=True)
        self.n_open -= 1
        for name in self.dependents[running.job.name]:
            self.open_needs[name] -= 1
            if not self.open_needs[name]:
                self._make_ready(self.jobs[name])

    def _stop(self, attempt: int, now: float, *, finished: bool) -> _Running:
        running = self.running.pop(attempt)
        self._take(running.job, running.node, sign=1)
        self.attempts.append(Attempt(running.job.name, running.node, running.start, now, finished))
        return running

    def _fail(self, node: int, now: float) -> None:
        self.up[node] = False
        self.n_failures += 1
        for attempt in [key for key, running in self.running.items() if running.node == node]:
            running = self._stop(attempt, now, finished=False)
            job, work = running.job, (now - running.start) / running.factor
            kept = 0.0 if job.checkpoint_seconds == inf else work // job.checkpoint_seconds * job.checkpoint_seconds
            self.left[job.name] -= kept
            self.lost_gpu_seconds += job.gpus * (work - kept) * running.factor
            self._make_ready(job)
        heapq.heappush(self.events, (now + self.trouble.repair_seconds, next(self.serial), "return", node))

    def _return(self, node: int, now: float) -> None:
        self.up[node] = True
        self._draw_failure(node, now)

    def _draw_failure(self, node: int, now: float) -> None:
        if self.trouble.mtbf_seconds < inf:
            when = now + self.random.expovariate(1 / self.trouble.mtbf_seconds)
            heapq.heappush(self.events, (when, next(self.serial), "fail", node))

    def _schedule(self) -> Schedule:
        makespan = max((attempt.end for attempt in self.attempts), default=0.0)
        busy = sum(self.jobs[a.job].gpus * (a.end - a.start) for a in self.attempts)
        jobs, path = list(self.jobs.values()), critical_path(list(self.jobs.values()))
        n_gpus = sum(node.gpus for node in self.nodes)
        gpu_seconds = sum(job.gpus * job.seconds for job in jobs)
        cpu_bound = sum(job.cpus * job.seconds for job in jobs) / sum(node.cpus for node in self.nodes)
        return Schedule(
            attempts=tuple(self.attempts),
            makespan=makespan,
            critical_path=path,
            lower_bound=max(path, cpu_bound, gpu_seconds / n_gpus if n_gpus else 0.0),
            gpu_seconds=gpu_seconds,
            lost_gpu_seconds=self.lost_gpu_seconds,
            gpu_utilisation=busy / (n_gpus * makespan) if n_gpus and makespan else 0.0,
            n_failures=self.n_failures,
        )
