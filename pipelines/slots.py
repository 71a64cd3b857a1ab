"""Where a run is planned for: jobs at a time and GPUs, as options ask for them or as this machine has them."""

import logging
from dataclasses import dataclass

from competition.errors import CompetitionError
from pipelines.cards import gpu_names
from pipelines.engines.protocol import workers_of
from pipelines.estimates import known_peak
from pipelines.progress import available_threads
from pipelines.simulation import Node

log = logging.getLogger(__name__)

GPUS_OF_A_NODE = 8


@dataclass(frozen=True)
class Slots:
    """Where the jobs would run: so many at a time, on so many GPUs of one kind."""

    workers: int = 1
    card: str | None = None
    n_gpus: int = 0

    @property
    def nodes(self) -> list[Node]:
        """Machines of up to `GPUS_OF_A_NODE` GPUs, which share the workers."""
        if not self.n_gpus:
            return [Node(cpus=self.workers)]
        counts = [min(GPUS_OF_A_NODE, self.n_gpus - i) for i in range(0, self.n_gpus, GPUS_OF_A_NODE)]
        return [Node(cpus=max(1, self.workers // len(counts)), gpus=count) for count in counts]


def slots_here(workers: int | None, gpus: str | None) -> Slots:
    """The slots that options ask for: ``NAME:COUNT`` of GPUs, or those of this machine; workers as the engines choose.

    A GPU of this machine that the table does not have is left out, with a warning: the plan is that of its CPUs.
    """
    if gpus:
        name, _, number = gpus.partition(":")
        if not name or (number and not number.isdecimal()) or number == "0":
            raise CompetitionError(f"--gpus {gpus!r} is not NAME:COUNT", advice="write for example --gpus H100:8")
        n_gpus = int(number or 1)
        return Slots(workers_of(workers, n_gpus=n_gpus, n_threads=available_threads()), name, n_gpus)
    found = gpu_names()
    n_workers = workers_of(workers, n_gpus=len(found), n_threads=available_threads())
    if found and known_peak(found[0]) is None:
        log.warning("nothing is known of %s: the plan does without it; --gpus NAME plans for one like it", found[0])
        return Slots(n_workers)
    return Slots(n_workers, found[0] if found else None, len(found))
