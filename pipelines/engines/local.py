"""Jobs in several processes of this machine, each with its share of the threads and GPUs of its own."""

import math
import os
import time

from competition.errors import CompetitionError, Fault
from pipelines.engines.processes import JobProcess, Place, unwritten
from pipelines.engines.protocol import EngineOptions, Outcome, workers_of
from pipelines.jobs import Job
from pipelines.memory import machine_gib
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder

LOOK_SECONDS = 0.1


class Local:
    """A pool of processes. A job with GPUs sees those alone; one without sees none."""

    tries = 2

    def __init__(
        self, run: RunFolder, *, workers: int, threads: int, gpus: list[str], memory_gib: float = math.inf
    ) -> None:
        self.run, self.workers, self.threads, self.memory_gib = run, workers, threads, memory_gib
        self.free, self.n_gpus = list(gpus), len(gpus)
        self.running: dict[str, tuple[JobProcess, list[str]]] = {}
        self.unwritten: list[Outcome] = []

    @classmethod
    def of(cls, run: RunFolder, options: EngineOptions) -> "Local":
        """A pool of as many workers as there are GPUs, else threads, unless told otherwise; threads are shared out."""
        gpus, threads = visible_gpus(), available_threads()
        workers = workers_of(options.workers, n_gpus=len(gpus), n_threads=threads)
        share = options.cpus or max(1, threads // workers)
        return cls(run, workers=workers, threads=share, gpus=gpus, memory_gib=machine_gib())

    def has_room(self, job: Job) -> bool:
        """Whether a worker is free, so many GPUs, and so much memory; a job that is alone always has enough."""
        return len(self.running) < self.workers and self._gpus_for(job) <= len(self.free) and self._fits(job)

    def start(self, job: Job) -> None:
        """Start the job's process."""
        n_gpus = self._gpus_for(job)
        try:
            self._start(job, n_gpus)
        except OSError as error:
            self.unwritten.append(unwritten(self.run, job, error))

    def _start(self, job: Job, n_gpus: int) -> None:
        mine, rest = self.free[:n_gpus], self.free[n_gpus:]
        shares = {"OMP_NUM_THREADS": str(self.threads), "CUDA_VISIBLE_DEVICES": ",".join(mine)}
        self.running[job.name] = JobProcess(job, Place.of(self.run, shares)), mine
        self.free = rest

    def ended(self) -> list[Outcome]:
        """The jobs whose processes have ended."""
        time.sleep(LOOK_SECONDS)
        outcomes = [outcome for process, _ in self.running.values() if (outcome := process.poll()) is not None]
        for outcome in outcomes:
            process, gpus = self.running.pop(outcome.job.name)
            process.stop()
            self.free += gpus
        refused, self.unwritten = self.unwritten, []
        return [*refused, *outcomes]

    def stop(self) -> None:
        """End all processes, which take their time together."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.stop()
        self.running.clear()

    def _fits(self, job: Job) -> bool:
        jobs = [job, *(process.job for process, _ in self.running.values())]
        return len(jobs) == 1 or sum(each.resources.memory_gib or 0.0 for each in jobs) <= self.memory_gib

    def _gpus_for(self, job: Job) -> int:
        """GPUs that the job gets; none on a machine without."""
        if job.resources.gpus > self.n_gpus > 0:
            raise CompetitionError(
                f"this machine has {self.n_gpus} GPUs",
                faults=[Fault(job.name, f"training.gpus = {job.resources.gpus}", f"{self.n_gpus} or less")],
                advice=f"lower it with --set {job.learner}:training.gpus={self.n_gpus}, or see CUDA_VISIBLE_DEVICES",
            )
        return job.resources.gpus if self.n_gpus else 0


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
