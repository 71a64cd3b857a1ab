"""The GPUs of this machine, by name, without importing torch."""

import logging
import shutil
import subprocess

log = logging.getLogger(__name__)

QUERY = ("--query-gpu=name", "--format=csv,noheader")
SECONDS = 10


def gpu_names() -> tuple[str, ...]:
    """The names of this machine's NVIDIA GPUs, as ``nvidia-smi`` tells them; none where it is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run([program, *QUERY], capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.info("nvidia-smi failed, GPUs are not counted: %s", error)
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
