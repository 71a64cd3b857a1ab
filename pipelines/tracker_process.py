"""The process of one tracker: ``python -m pipelines.tracker_process NAME FOLDER``, told what to write line by line.

Nothing leaves the machine unless the user says so by the tracker's own variables (`TRACKIO_SERVER_URL` or
`TRACKIO_SPACE_ID`, `MLFLOW_TRACKING_URI`, `WANDB_MODE`): otherwise all is kept below FOLDER.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

from pipelines.secrets import redacted
from pipelines.trackers import Tracker


class Trackio:
    """trackio: an SQLite file per project."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        import trackio

        self.library, self.project = trackio, project_of(folder)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self.library.init(
            self.project, name, config=dict(config), embed=False, auto_log_cpu=False, auto_log_gpu=False
        )  # fmt: skip

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        self.library.log(dict(metrics), step=step)

    def finish(self) -> None:
        """See `Tracker`."""
        self.library.finish()


class MLflow:
    """MLflow: a server, or an SQLite file."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        local = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        self.project, self.run = project_of(folder), ""

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        found = self.client.get_experiment_by_name(self.project)
        experiment = found.experiment_id if found else self.client.create_experiment(self.project)
        self.run = self.client.create_run(experiment, run_name=name).info.run_id
        for key, value in flat(config):
            self.client.log_param(self.run, key, value)

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def finish(self) -> None:
        """See `Tracker`."""
        self.client.set_terminated(self.run)


class WandB:
    """Weights & Biases, offline unless `WANDB_MODE` says otherwise; ``wandb sync`` uploads later."""

    def __init__(self, folder: Path) -> None:
        if (folder / "wandb" / "settings").exists():
            raise ValueError("a run folder must not say which server gets this user's key: wandb/settings")
        import wandb

        self.library, self.folder = wandb, folder
        self.run: Any = None

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        quiet = self.library.Settings(
            console="off", silent=True, disable_code=True, disable_git=True, x_disable_meta=True,
            x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
        )  # fmt: skip
        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self.run = self.library.init(
            project=project_of(self.folder),
            name=name,
            config=dict(config),
            dir=str(self.folder),
            mode=mode,
            settings=quiet,
        )

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        self.run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """See `Tracker`."""
        self.run.finish()


KINDS: dict[str, Callable[[Path], Tracker]] = {"trackio": Trackio, "mlflow": MLflow, "wandb": WandB}


def project_of(folder: Path) -> str:
    """The name of the run, in which trackers' folder stands, as all trackers allow it.

    Examples
    --------
    >>> project_of(Path("runs/cup 2/trackers"))
    'cup-2'
    """
    return re.sub(r"[^\w-]+", "-", folder.resolve().parent.name) or "relstack"


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested tables by dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class Redacted(TextIOBase):
    """A stream that writes whole lines to another one, without secrets: trackers tell where they sent things."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.begun = stream, ""

    def write(self, text: str) -> int:
        """Keep what is no whole line yet."""
        *lines, self.begun = (self.begun + text).split("\n")
        self.stream.writelines(f"{redacted(line)}\n" for line in lines)
        return len(text)

    def flush(self) -> None:
        """Write what is no whole line."""
        self.stream.write(redacted(self.begun))
        self.begun = ""
        self.stream.flush()


def follow(tracker: Tracker, lines: Iterable[str]) -> None:
    """Do what the lines say, to the last of them; a run that was left open is finished."""
    started = False
    for line in lines:
        message = json.loads(line)
        if "start" in message:
            tracker.start(message["start"], message["config"])
        elif "log" in message:
            tracker.log(message["log"], message["step"])
        else:
            tracker.finish()
        started = "finish" not in message
    if started:
        tracker.finish()


if __name__ == "__main__":
    sys.stdout, sys.stderr = Redacted(sys.stdout), Redacted(sys.stderr)
    follow(KINDS[sys.argv[1]](Path(sys.argv[2])), sys.stdin)
