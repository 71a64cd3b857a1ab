"""Jobs on a SLURM cluster, submitted one by one through submitit as soon as what they need is done.

The machines share a file system. What submitit writes stands in the cache, not in the run: it is pickled.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from competition.errors import WORTH_RETRYING, CompetitionError, Fault
from pipelines.engines.processes import Place, run_job
from pipelines.engines.protocol import EngineOptions, Outcome
from pipelines.jobs import Job
from pipelines.run_folder import RunFolder
from pipelines.weights import cache_dir

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
CLUSTER, TIME, GPUS = "cluster", "time", "gpus_per_node"
NUMBERS = (TIME, GPUS)


class Slurm:
    """Submissions to SLURM, which queues them."""

    tries = 3

    def __init__(self, run: RunFolder, *, workers: int | None, settings: Mapping[str, str]) -> None:
        self.workers, self.settings = workers, dict(settings)
        self.cluster = self.settings.pop(CLUSTER, "slurm")
        self.place = Place.of(run)
        self.running: list[tuple[Any, Job]] = []

    @classmethod
    def of(cls, run: RunFolder, options: EngineOptions) -> "Slurm":
        """The cluster that ``sbatch`` of this machine submits to.

        Raises
        ------
        CompetitionError
            submitit is not installed, there is no SLURM here, or it does not know a setting.
        """
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise CompetitionError("--engine slurm needs submitit", advice='pip install "relstack[slurm]"') from error
        engine = cls(run, workers=options.workers, settings=options.slurm)
        with _refused("--slurm"):
            engine._executor(asked_of(engine.settings, on_slurm=engine.on_slurm))
        return engine

    def has_room(self, job: Job) -> bool:
        """Whether fewer jobs are submitted than were asked for at a time."""
        return self.workers is None or len(self.running) < self.workers

    def start(self, job: Job) -> None:
        """Submit the job.

        Raises
        ------
        CompetitionError
            SLURM does not take it.
        """
        asked = submission(job, self.settings, on_slurm=self.on_slurm)
        with _refused(job.name):
            self.running.append((self._executor(asked).submit(run_job, job, self.place), job))

    def ended(self) -> list[Outcome]:
        """The jobs whose submissions have ended."""
        time.sleep(LOOK_SECONDS)
        over = [(submitted, job) for submitted, job in self.running if submitted.done()]
        self.running = [pair for pair in self.running if pair not in over]
        return [_outcome(submitted, job) for submitted, job in over]

    def stop(self) -> None:
        """Cancel all submissions."""
        for submitted, _ in self.running:
            submitted.cancel()
        self.running.clear()

    @property
    def on_slurm(self) -> bool:
        """False where submitit runs the jobs on this machine, to try."""
        return self.cluster == "slurm"

    def _executor(self, asked: Mapping[str, Any]) -> Any:
        """What submits jobs that ask for so much; it writes nothing until then."""
        import submitit

        executor = submitit.AutoExecutor(folder=cache_dir() / "slurm" / "%j", cluster=self.cluster)
        executor.update_parameters(**asked)
        return executor


@contextmanager
def _refused(where: str) -> Iterator[None]:
    """What submitit or SLURM refuse becomes a `CompetitionError`."""
    import submitit

    try:
        yield
    except (
        RuntimeError,
        NameError,
        TypeError,
        ValueError,
        AssertionError,
        submitit.core.utils.FailedJobError,
    ) as error:
        raise CompetitionError(
            "this cannot be submitted to SLURM",
            faults=[Fault(where, str(error))],
            advice="see --slurm; `--slurm cluster=local` runs the jobs on this machine",
        ) from error


def submission(job: Job, settings: Mapping[str, str], *, on_slurm: bool) -> dict[str, Any]:
    """What submitit is told of a job: its resources, no more GPUs than the cluster gives, and settings for sbatch.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pipelines.jobs import Resources
    >>> job = Job("train.QC.a.fold-0", (), Path("manifest.json"), (), Resources(4, 2, 8), "train", "QC", "a", 0)
    >>> submission(job, {"partition": "gpu", "time": "240"}, on_slurm=True)["slurm_partition"]
    'gpu'
    """
    asked: dict[str, Any] = {
        "name": job.name,
        "cpus_per_task": job.resources.cpus,
        GPUS: min(job.resources.gpus, int(settings.get(GPUS, job.resources.gpus))),
        "nodes": 1,
        "tasks_per_node": 1,
    }
    if job.resources.memory_gib is not None:
        asked["mem_gb"] = job.resources.memory_gib
    return asked | asked_of({key: value for key, value in settings.items() if key != GPUS}, on_slurm=on_slurm)


def asked_of(settings: Mapping[str, str], *, on_slurm: bool) -> dict[str, Any]:
    """What submitit is told of all jobs alike.

    Raises
    ------
    ValueError
        A number is none.

    Examples
    --------
    >>> asked_of({"partition": "gpu", "time": "240"}, on_slurm=True)
    {'timeout_min': 240, 'slurm_partition': 'gpu'}
    """
    asked: dict[str, Any] = {GPUS: int(settings[GPUS])} if GPUS in settings else {}
    if TIME in settings:
        asked["timeout_min"] = int(settings[TIME])
    if on_slurm:
        asked |= {f"slurm_{key}": value for key, value in settings.items() if key not in NUMBERS}
    return asked


def _outcome(submitted: Any, job: Job) -> Outcome:
    """What the submission returned; one that did not come to its end lost its machine or its time."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        found: Outcome = submitted.result()
    except UncompletedJobError as error:
        return Outcome(job, WORTH_RETRYING, done=False, last=tuple(str(error).splitlines()[-3:]))
    except FailedJobError as error:
        return Outcome(job, 1, done=False, last=tuple(str(error).splitlines()[-3:]))
    return found
