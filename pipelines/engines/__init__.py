"""Where jobs run, by name."""

from collections.abc import Callable

from pipelines.engines.here import Here
from pipelines.engines.local import Local
from pipelines.engines.protocol import Engine, EngineOptions
from pipelines.engines.ray_cluster import RayCluster
from pipelines.engines.slurm import Slurm
from pipelines.run_folder import RunFolder

ENGINES: dict[str, Callable[[RunFolder, EngineOptions], Engine]] = {
    "here": Here.of,
    "local": Local.of,
    "ray": RayCluster.of,
    "slurm": Slurm.of,
}
