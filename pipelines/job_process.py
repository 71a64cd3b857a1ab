"""The command line as a job's process: ``python -m pipelines.job_process train --run R ...``.

Its standard input is a pipe that ends when whoever started it does, killed or not; then this process ends too.
"""

import os
import sys
import threading


def end_with_parent() -> None:
    """End this process as soon as standard input ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    from pipelines.cli import main

    main()
