"""Every reader against damaged files: a value or a CompetitionError, nothing else, in bounded time and memory.

    python benchmarks/fuzz.py [--minutes 10] [--reader NAME] [--seed 0] [--failures DIR]

Valid files of a small run are damaged (`fuzz_mutations.py`) and read (`fuzz_readers.py`). The work is done in child
processes with limits for time and memory, a batch of inputs each; an input that ends its process is counted with the
rest. Of every input that fails, the files and what happened are kept. Prints a line per reader, then
``RESULT inputs|tracebacks|hangs|crashes|peak_mb <number>``; leaves with 1 if anything failed.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_mutations
import fuzz_readers
from fuzz_readers import READERS, Reader

from competition.errors import CompetitionError

BATCH = 60
SECONDS_PER_BATCH = 4.0
SECONDS_PER_INPUT = 20.0
WAITING = 6
"""Seconds of work for one input, and how many times as long it may take by the clock: machines are busy, pipes wait."""
MEMORY_GB = 4
VALUE = "a value"
HANGS = (signal.SIGPROF, signal.SIGALRM)


@dataclass
class Tally:
    """What came of the inputs of one reader.

    Attributes
    ----------
    outcomes
        ``a value``, or the name of the exception's type -> inputs.
    failures
        The inputs that failed: their number and what happened.
    slowest_ms, peak_mb
        CPU time of the slowest input; memory of the one that took most, above what the process had before it.
    """

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest_ms: float = 0.0
    peak_mb: float = 0.0


def damage(reader: Reader, corpus: Path, folder: Path, seed: str) -> str:
    """Copy a reader's valid files to `folder` and damage one or two of them; what was done to which."""
    rng = random.Random(seed)
    shutil.copytree(corpus, folder, symlinks=True)
    files = sorted({path for pattern in reader.files for path in folder.glob(pattern) if path.is_file()})
    done = [
        f"{path.relative_to(folder)}: {fuzz_mutations.mutate(path, rng)}"
        for path in rng.sample(files, min(len(files), rng.choice((1, 1, 1, 2))))
    ]
    if reader.seal is not None and rng.random() < 0.7:
        try:
            reader.seal(folder)
            done.append("sealed")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # the manifest itself is damaged
    return ", ".join(done)


def outcome(reader: Reader, folder: Path) -> str:
    """``a value`` or ``CompetitionError`` if all is well, else the traceback."""
    try:
        reader.read(folder)
    except CompetitionError as error:
        try:
            str(error).encode("utf-8", "surrogateescape")  # it can be printed
        except UnicodeEncodeError:
            return traceback.format_exc()
        return CompetitionError.__name__
    except Exception:
        return traceback.format_exc()
    return VALUE


def batch(reader: Reader, corpus: Path, work: Path, numbers: range, seed: int, log: Path) -> None:
    """Inputs `numbers` of a reader, in this process; a line in `log` before and after each."""
    for ending in HANGS:  # without a handler they end the process, in whatever library it is
        signal.signal(ending, signal.SIG_DFL)
    sys.setrecursionlimit(1000)
    resource.setrlimit(resource.RLIMIT_AS, (_memory_kb("VmSize") * 1024 + MEMORY_GB * 2**30,) * 2)
    until = time.monotonic() + SECONDS_PER_BATCH
    with log.open("a", encoding="utf-8") as lines:
        for number in numbers:
            if time.monotonic() > until:
                return
            folder = work / f"{reader.name}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            _limit(2 * SECONDS_PER_INPUT)
            done = damage(reader, corpus, folder, f"{seed} {reader.name} {number}")
            print(json.dumps({"number": number, "done": done}), file=lines, flush=True)
            before = _forget_peak()
            _limit(SECONDS_PER_INPUT)
            started = time.process_time()
            found = outcome(reader, folder)
            seconds = time.process_time() - started
            _limit(0)
            peak = (_memory_kb("VmHWM") - before) / 1024
            print(json.dumps({"found": found, "ms": seconds * 1000, "mb": peak}), file=lines, flush=True)
            if found in (VALUE, CompetitionError.__name__):
                shutil.rmtree(folder)


def _limit(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)


def _forget_peak() -> int:
    """The kB of memory in use; the peak begins with that anew: damaging a file takes memory too."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_kb("VmRSS")


def _memory_kb(kind: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1])


def run_batch(reader: Reader, corpus: Path, work: Path, *, first: int, seed: int, tally: Tally) -> int:
    """One batch in a process of its own, added to the tally; the number of the next input."""
    log = work / "log.jsonl"
    log.unlink(missing_ok=True)
    numbers = range(first, first + BATCH)
    process = multiprocessing.get_context("fork").Process(
        target=_quietly, args=(reader, corpus, work, numbers, seed, log)
    )
    process.start()
    process.join()
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    for begun, ended in zip(lines[::2], [*lines[1::2], None], strict=False):
        tally.inputs += 1
        if ended is None:
            hang = process.exitcode in {-ending for ending in HANGS}
            found = "hang" if hang else f"crash: the process ended with {process.exitcode}"
        else:
            found = ended["found"]
            tally.slowest_ms, tally.peak_mb = max(tally.slowest_ms, ended["ms"]), max(tally.peak_mb, ended["mb"])
        tally.outcomes[found.strip().splitlines()[-1].split(":")[0]] += 1
        if found not in (VALUE, CompetitionError.__name__):
            tally.failures.append((begun["number"], found))
            note = work / f"{reader.name}-{begun['number']}" / "WHAT-HAPPENED.txt"
            note.write_text(f"{begun['done']}\n\n{found}\n", encoding="utf-8", errors="replace")
    return first + max(1, len(lines[::2]))  # at least one: to damage a file that is damaged may end the process too


def _quietly(reader: Reader, corpus: Path, work: Path, numbers: range, seed: int, log: Path) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    batch(reader, corpus, work, numbers, seed, log)
    os._exit(0)


def lines_of(tallies: dict[str, Tally]) -> Iterator[str]:
    """The table, and the results."""
    yield f"{'reader':<20} {'inputs':>8} {'value':>8} {'error':>8} {'failed':>7} {'slowest ms':>11} {'peak MB':>8}"
    for name, tally in tallies.items():
        values, errors = tally.outcomes[VALUE], tally.outcomes[CompetitionError.__name__]
        numbers = f"{tally.inputs:>8,} {values:>8,} {errors:>8,} {len(tally.failures):>7,}"
        yield f"{name:<20} {numbers} {tally.slowest_ms:>11,.0f} {tally.peak_mb:>8,.0f}"
        for kind, n in tally.outcomes.items():
            if kind not in (VALUE, CompetitionError.__name__):
                yield f"    {kind}: {n:,}"
    failures = [what for tally in tallies.values() for _, what in tally.failures]
    hangs, crashes = failures.count("hang"), sum(what.startswith("crash") for what in failures)
    yield f"RESULT inputs {sum(tally.inputs for tally in tallies.values())}"
    yield f"RESULT tracebacks {len(failures) - hangs - crashes}"
    yield f"RESULT hangs {hangs}"
    yield f"RESULT crashes {crashes}"
    yield f"RESULT peak_mb {max(tally.peak_mb for tally in tallies.values()):.0f}"


def _make(root: Path, run: Path | None) -> None:
    made = fuzz_readers.make_run(root) if run is None else fuzz_readers.RunFolder(run)
    fuzz_readers.make_corpora(made, root / "corpora")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--reader", choices=[reader.name for reader in READERS], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--failures", type=Path, help="Where failing inputs are kept; a new temporary folder if left out."
    )
    parser.add_argument("--run", type=Path, help="A finished run of QI to take files from; one is made if left out.")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    root = Path(tempfile.mkdtemp(prefix="relstack-fuzz-"))
    run = (asked.run or root / "run").resolve()
    # In a process of its own: threads that libraries start here would be missing in the children, which wait for them.
    making = multiprocessing.get_context("fork").Process(target=_make, args=(root, asked.run and run))
    making.start()
    making.join()
    assert making.exitcode == 0, "the valid files could not be made"
    fuzz_readers.SOURCE[:] = [run]
    corpora = {reader.name: root / "corpora" / reader.name for reader in READERS}
    work = asked.failures or root / "failures"
    work.mkdir(parents=True, exist_ok=True)
    chosen = [reader for reader in READERS if asked.reader is None or reader.name in asked.reader]
    tallies = {reader.name: Tally() for reader in chosen}
    following = dict.fromkeys(tallies, 0)
    until = time.monotonic() + asked.minutes * 60
    while time.monotonic() < until:
        for reader in chosen:
            if time.monotonic() > until:
                break
            name = reader.name
            first, tally = following[name], tallies[name]
            following[name] = run_batch(reader, corpora[name], work, first=first, seed=asked.seed, tally=tally)
    print("\n".join(lines_of(tallies)))
    failed = any(tally.failures for tally in tallies.values())
    if failed:
        print(f"what failed is kept in {work}", file=sys.stderr)
    shutil.rmtree(root / "corpora")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
