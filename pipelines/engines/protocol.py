"""What an engine does for the scheduler, and what it tells of a job that has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from competition.errors import WORTH_RETRYING
from pipelines.jobs import Job

KILLED = (-9, -15, 137, 143)  # by the kernel for want of memory, or by whoever took the machine back


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a job ended.

    Attributes
    ----------
    done
        Whether it succeeded: its manifest is there, and the command left in peace or has just made it.
    last
        The last lines of its log.
    """

    job: Job
    exit_code: int
    done: bool
    last: tuple[str, ...] = ()

    @property
    def worth_retrying(self) -> bool:
        """Whether the same may go well another time: memory ran out, the machine was lost, somebody killed it."""
        return not self.done and (self.exit_code == WORTH_RETRYING or self.exit_code in KILLED)


@dataclass(frozen=True)
class EngineOptions:
    """Where and how many jobs run.

    Attributes
    ----------
    workers
        Jobs at a time; None lets the engine choose.
    cpus
        Threads of each job; None is one, but with the engine ``local`` the machine's shared out among the workers.
    address
        Ray: ``auto``, ``HOST:PORT``, or None to start a cluster on this machine.
    memory_gib
        Main memory that is kept free for each job; None: what trainings are estimated to take with the engine
        ``local``, which starts fewer at a time then, and nothing on clusters.
    slurm
        SLURM: ``partition``, ``time`` in minutes and whatever else sbatch takes.
    """

    workers: int | None = None
    cpus: int | None = None
    address: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)
    memory_gib: float | None = None


def workers_of(asked: int | None, *, n_gpus: int, n_threads: int) -> int:
    """Jobs at a time on one machine: as many as asked for, else as it has GPUs, else threads."""
    return asked or n_gpus or n_threads


class Engine(Protocol):
    """Where jobs run. `pipelines.scheduling` decides which job is next; an engine only runs it.

    Attributes
    ----------
    tries
        Times that the scheduler starts a job which is worth retrying. An engine may itself start one again whose
        machine was lost, within one of these: Ray does so up to `ray_cluster.LOST_MACHINES` times in each.
    """

    tries: int

    def has_room(self, job: Job) -> bool:
        """Whether the job can start now, or be handed to a queue that waits for room by itself."""

    def start(self, job: Job) -> None:
        """Begin the job."""

    def ended(self) -> list[Outcome]:
        """The jobs that ended since this was last asked; waits a little, and comes back with none if none did."""

    def stop(self) -> None:
        """End all jobs that are running, and whatever else the engine has begun."""
