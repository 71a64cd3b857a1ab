"""Runs that are killed at random moments, and started again until they are done: nothing is lost, nothing differs.

A small run with all stages of both tasks (lexical learners, a tiny network with checkpoints, ensembles, submission,
report) is left alone once per engine, and timed. Then it is started in a fresh folder and killed with SIGKILL: the
driver, one of its processes, or all; at a random moment, or just after something was written. It is started again
at once, until an attempt ends before its kill comes, or after many kills is left alone; then the next folder begins,
until all kills are spent.

Overhead is the time of all attempts, from their first write on, over that of as many undisturbed runs: 1 is none.

With ``--lose-node`` a cluster of two Ray machines (processes of this one) loses one of them while both work.
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos_checks import contents, damaged, differing, leftovers, lost, written_once
from chaos_kills import ALL, CHILD, DRIVER, Attempt, Moment, draw_moment
from chaos_nodes import lose_node

from competition.sample import write_sample
from pipelines.run_folder import RunFolder
from pipelines.timing import read_timings

ROOT = Path(__file__).resolve().parent.parent
ENGINES = {"here": [], "local": ["--workers", "2"], "ray": ["--workers", "2"]}
TRAINING = [
    "training.checkpoint_minutes=0.005",
    "training.batch_size=8",
    "training.precision=fp32",
]
NETWORK = "e5-ce"
LEARNERS = f"lexical,lexical-linear,{NETWORK}"
ORPHAN_SECONDS = 60.0
KILLS_PER_RUN = 20
FAULTS = ("lost", "damaged", "differing", "leftovers")


@dataclass(frozen=True)
class Competition:
    """A small made-up competition and the command that runs it."""

    folder: Path
    tasks: str = "QC,QI"
    learners: str = LEARNERS

    def make(self, n_train: int) -> None:
        """Write its files, and a tiny network where one is to be trained."""
        write_sample(self.folder / "data", n_train=n_train, n_dev=60, n_test=60, seed=3, tasks=self.tasks.split(","))
        if NETWORK in self.learners:
            sys.path.append(str(ROOT / "tests"))
            from tiny import save_tiny

            save_tiny(self.folder / "network", "xlmr")

    def command(self, run: Path, engine: Sequence[str]) -> list[str]:
        """`relstack run` in a run folder."""
        settings = ["lexical:head.rounds=20"]
        if NETWORK in self.learners:
            settings += [f"{NETWORK}:{each}" for each in (f"weights.name={self.folder / 'network'}", *TRAINING)]
        words = ["--data", str(self.folder / "data"), "--run", str(run), "--folds", "3", "--tasks", self.tasks]
        words += ["--recipes", self.learners, *(word for each in settings for word in ("--set", each))]
        return [sys.executable, "-m", "pipelines.cli", "--quiet", "run", *words, *engine]


@dataclass
class Tally:
    """What one engine's runs came to."""

    engine: str
    undisturbed: float = 0.0  # seconds from the first write on
    startup: float = 0.0
    runs: int = 0
    attempts: int = 0
    seconds: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    hangs: int = 0
    orphans: int = 0

    @property
    def kills(self) -> int:
        """Kills so far."""
        return self.hits.total()

    @property
    def overhead(self) -> float:
        """Seconds of all attempts over those of undisturbed runs."""
        return self.seconds / (self.runs * self.undisturbed)


class Chaos:
    """Kills the runs of one engine."""

    def __init__(self, competition: Competition, engine: str, rng: random.Random) -> None:
        self.competition, self.engine, self.rng = competition, engine, rng
        self.folder = competition.folder / engine
        self.folder.mkdir()
        self.tally = Tally(engine)
        self.stages: Mapping[str, float] = {}
        self.ray = tempfile.TemporaryDirectory(prefix="ray-")  # a short path: Ray's sockets lie in it

    def undisturbed(self) -> dict[str, str]:
        """The files of a run that is left alone; sets the expected times."""
        run = RunFolder(self.folder / "undisturbed")
        attempt = self.attempt(run)
        code = attempt.end(3600)
        if code != 0:
            sys.exit(f"the undisturbed run ended with {code}: see {self.log(run)}")
        self.tally.startup = attempt.began
        self.tally.undisturbed = attempt.seconds - attempt.began
        self.stages = _seconds_by_stage(run)
        return contents(run)

    def kill_runs(self, expected: Mapping[str, str], kills: int) -> Tally:
        """Runs in fresh folders, until so many kills are spent and the last one is done."""
        while self.tally.kills < kills:
            run = RunFolder(self.folder / f"run-{self.tally.runs}")
            self.kill_until_done(run, min(kills, self.tally.kills + KILLS_PER_RUN))
            self.tally.runs += 1
            self.tally.differing += differing(expected, run)
            self.tally.leftovers += leftovers(run.root)
            found = ", ".join(f"{len(getattr(self.tally, kind))} {kind}" for kind in FAULTS)
            say(f"{self.engine}: {self.tally.runs} runs are done after {self.tally.kills} kills; {found}")
        return self.tally

    def kill_until_done(self, run: RunFolder, kills: int) -> None:
        """One run, started until it is done and killed until there were `kills` in all.

        After every attempt all that was finished before it must be there as it was.
        """
        before: dict[str, str] = {}
        done, attempts = False, []
        while not done:
            attempts.append(attempt := self.attempt(run))
            done = self.hit_or_done(attempt, run, spent=self.tally.kills >= kills)
            self.tally.lost += lost(before, run)
            self.tally.damaged += damaged(run)
            before = {**before, **written_once(run)}
        self.tally.orphans += sum(attempt.orphans(ORPHAN_SECONDS) for attempt in attempts)

    def hit_or_done(self, attempt: Attempt, run: RunFolder, *, spent: bool) -> bool:
        """Whether the attempt did all that there was to do; else it was hit, and has ended."""
        limit = 120 + 4 * (self.tally.undisturbed + self.tally.startup)
        what = "left alone"
        if not spent and attempt.survives_until(self.moment(run)):
            what = attempt.hit(self.rng)
            self.tally.hits[what] += 1
        code = attempt.end(limit)
        self.tally.attempts += 1
        self.tally.seconds += attempt.seconds - (attempt.began or attempt.seconds)
        self.tally.codes[f"{what}: {'hangs' if code is None else code}"] += 1
        self.tally.hangs += code is None
        say(f"{self.engine}: {attempt.seconds:6.1f} s, {attempt.watch.events:4} changes, {what}, exit code {code}")
        return code == 0

    def attempt(self, run: RunFolder) -> Attempt:
        """The command, started."""
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "RELSTACK_CACHE": str(run.root.with_suffix(".cache")),
            "RAY_TMPDIR": self.ray.name,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        words = ["--engine", self.engine, *ENGINES[self.engine]]
        command = self.competition.command(run.root, words)
        return Attempt(command, environment=environment, log=self.log(run), run=run.root)

    def log(self, run: RunFolder) -> Path:
        """What all attempts at a run said."""
        return run.root.with_suffix(".log")

    def moment(self, run: RunFolder) -> Moment:
        """When the next attempt is hit; the stages that are done are skipped, but for the last ones."""
        done = set(_seconds_by_stage(run)) - {"leaderboard", "submit", "report"}
        rest = sum(seconds for stage, seconds in self.stages.items() if stage not in done)
        share = rest / sum(self.stages.values())
        return draw_moment(self.rng, startup=self.tally.startup, rest=self.tally.undisturbed * share)


def _seconds_by_stage(run: RunFolder) -> dict[str, float]:
    if not run.timings_file.is_file():
        return {}
    table = read_timings(run.timings_file)
    return dict(zip(table["stage"], table["seconds"], strict=True))


def say(line: str) -> None:
    """Narration."""
    print(line, file=sys.stderr, flush=True)


def print_results(tallies: Sequence[Tally]) -> None:
    """A table with a line per engine, what went wrong, and the figures of all engines together."""
    print(f"{'engine':<8}{'runs':>6}{'attempts':>10}{'kills':>7}{'driver':>8}{'child':>7}{'all':>5}"
          f"{'undisturbed':>13}{'attempts, s':>13}{'overhead':>10}")  # fmt: skip
    for each in tallies:
        hits = "".join(f"{each.hits[how]:>{width}}" for how, width in ((DRIVER, 8), (CHILD, 7), (ALL, 5)))
        print(f"{each.engine:<8}{each.runs:>6}{each.attempts:>10}{each.kills:>7}{hits}"
              f"{each.undisturbed:>11.1f} s{each.seconds:>13.1f}{each.overhead:>10.2f}")  # fmt: skip
        print(f"        exit codes: {', '.join(f'{code} x {n}' for code, n in sorted(each.codes.items()))}")
    for kind in FAULTS:
        for each in tallies:
            for what in getattr(each, kind):
                print(f"{kind} ({each.engine}): {what}")
    kills, attempts = sum(each.kills for each in tallies), sum(each.attempts for each in tallies)
    undisturbed = sum(each.runs * each.undisturbed for each in tallies)
    print(f"RESULT kills {kills}")
    print(f"RESULT kills_per_attempt {kills / attempts:.2f}")
    print(f"RESULT lost_parts {sum(len(each.lost) for each in tallies)}")
    print(f"RESULT damaged_artefacts {sum(len(each.damaged) for each in tallies)}")
    print(f"RESULT differing_artefacts {sum(len(each.differing) for each in tallies)}")
    print(f"RESULT leftovers {sum(len(each.leftovers) for each in tallies)}")
    print(f"RESULT hangs {sum(each.hangs for each in tallies)}")
    print(f"RESULT orphans {sum(each.orphans for each in tallies)}")
    print(f"RESULT overhead {sum(each.seconds for each in tallies) / undisturbed:.2f}")


def share_out(kills: int, engines: Sequence[str]) -> dict[str, int]:
    """Kills per engine: as evenly as they go, the first ones get what is left over.

    Examples
    --------
    >>> share_out(10, ["here", "local", "ray"])
    {'here': 4, 'local': 3, 'ray': 3}
    """
    each, more = divmod(kills, len(engines))
    return {engine: each + (number < more) for number, engine in enumerate(engines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="shared out among the engines")
    parser.add_argument("--engine", choices=[*ENGINES, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-rows", type=int, default=300)
    parser.add_argument("--tasks", default="QC,QI")
    parser.add_argument("--learners", default=LEARNERS, help=f"comma-separated; {NETWORK} is a tiny network")
    parser.add_argument("--lose-node", action="store_true", help="a Ray machine is lost instead of processes killed")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relstack-chaos-") as temporary:
        folder = args.folder or Path(temporary)
        competition = Competition(folder, args.tasks, args.learners)
        competition.make(args.train_rows)
        if args.lose_node:
            print_loss(competition)
        else:
            engines = list(ENGINES) if args.engine == "all" else [args.engine]
            print_results(kill_all(competition, share_out(args.kills, engines), seed=args.seed))


def kill_all(competition: Competition, kills: Mapping[str, int], *, seed: int) -> list[Tally]:
    """The tally of every engine; all of them must make the files that the first one makes undisturbed."""
    expected: dict[str, str] = {}
    tallies = []
    for engine, share in kills.items():
        chaos = Chaos(competition, engine, random.Random(f"{engine} {seed}"))
        found = chaos.undisturbed()
        expected = expected or found
        chaos.tally.differing += [name for name in found if expected.get(name) != found[name]]
        tallies.append(chaos.kill_runs(expected, share))
        chaos.ray.cleanup()
    return tallies


def print_loss(competition: Competition) -> None:
    """A run whose machine is lost, against one that is left alone."""
    chaos = Chaos(competition, "here", random.Random())
    expected = chaos.undisturbed()
    run, log = RunFolder(competition.folder / "lost"), competition.folder / "lost.log"
    code, repeated = lose_node(lambda words: competition.command(run.root, words), run.root, log=log)
    print(f"jobs begun again: {', '.join(repeated)}")
    print(f"RESULT node_lost_finished {int(code == 0)}")
    print(f"RESULT node_lost_repeated_jobs {len(repeated)}")
    print(f"RESULT node_lost_damaged_artefacts {len(damaged(run))}")
    print(f"RESULT node_lost_differing_artefacts {len(differing(expected, run))}")


if __name__ == "__main__":
    main()
