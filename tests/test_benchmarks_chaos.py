"""The chaos benchmark: it kills what it says, its checks find what they look for, and a run survives it."""

import random
import shutil
import sys
from pathlib import Path

import pytest

from pipelines.run_folder import RunFolder

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import chaos
from chaos import Competition, Tally, kill_all
from chaos_checks import contents, damaged, differing, leftovers, lost, written_once
from chaos_kills import ALL, CHILD, DRIVER, Attempt, Moment, Watch, draw_moment, processes
from chaos_nodes import begun_again, jobs_at_work

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads processes from /proc")

FAMILY = """
import subprocess, sys
from pathlib import Path
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(sleeper, start_new_session=True) for _ in range(2)]
Path(sys.argv[1], "begun").touch()
sys.exit(children[0].wait() and children[1].wait())
"""


class Always(random.Random):
    """Draws one kind of kill."""

    def __init__(self, what: str) -> None:
        super().__init__(0)
        self.what = what

    def choices(self, *args: object, **kwargs: object) -> list[str]:  # type: ignore[override]
        return [self.what]


@pytest.fixture
def family(tmp_path: Path) -> Attempt:
    """A process with two children in sessions of their own."""
    (tmp_path / "run").mkdir()
    words = [sys.executable, "-c", FAMILY, str(tmp_path / "run")]
    attempt = Attempt(words, environment={}, log=tmp_path / "log", run=tmp_path / "run")
    assert attempt.survives_until(Moment(0.0, events=1))
    assert 0 < attempt.began <= attempt.seconds
    assert len(processes(attempt.token)) == 3
    return attempt


def test_a_driver_alone_leaves_orphans_that_are_counted_and_killed(family: Attempt) -> None:
    assert family.hit(Always(DRIVER)) == DRIVER
    assert family.end(60) == -9
    assert family.orphans(0.1) == 2
    assert family.orphans(60) == 0


def test_a_child_is_hit_alone(family: Attempt) -> None:
    assert family.hit(Always(CHILD)) == CHILD
    assert not family.survives_until(Moment(0.2)) or len(processes(family.token)) == 2
    assert family.driver.poll() is None
    assert family.end(0.1) is None  # it waits for the other one: that is a hang
    assert family.driver.returncode == -9


def test_all_are_hit(family: Attempt) -> None:
    assert family.hit(Always(ALL)) == ALL
    assert family.end(60) == -9
    assert family.orphans(60) == 0


def test_where_there_is_no_child_the_driver_is_hit(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    attempt = Attempt(words, environment={}, log=tmp_path / "log", run=tmp_path / "run")
    assert attempt.hit(Always(CHILD)) == DRIVER
    assert attempt.end(60) == -9


def test_a_watch_counts_what_comes_and_goes_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "run" / "old").mkdir(parents=True)
    watch = Watch(tmp_path / "run")
    assert watch.look() == 0
    (tmp_path / "run" / "old" / "file").touch()
    assert watch.look() == 1
    assert watch.look() == 1
    (tmp_path / "run" / "old" / "new").mkdir()
    assert watch.look() == 3  # the folder that it is in, and itself
    (tmp_path / "run" / "old" / "new" / "file").touch()
    assert watch.look() == 4
    shutil.rmtree(tmp_path / "run" / "old" / "new")
    assert watch.look() == 6


def test_moments_are_of_every_kind_and_within_the_rest() -> None:
    rng = random.Random(0)
    moments = [draw_moment(rng, startup=2.0, rest=100.0) for _ in range(300)]
    seconds = [moment.seconds for moment in moments if moment.events is None]
    assert 60 < 300 - len(seconds) < 140
    assert max(seconds) <= 102
    assert sum(each < 22 for each in seconds) > len(seconds) / 2


def test_kills_are_shared_out() -> None:
    assert chaos.share_out(10, ["here", "local", "ray"]) == {"here": 4, "local": 3, "ray": 3}


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_whole_run_has_nothing_wrong(run: RunFolder, finished_run: Path) -> None:
    expected = contents(RunFolder(finished_run))
    assert {"parts/QI/lexical/fold-0/oof.parquet", "submissions/final/submit.zip", "leaderboard.csv"} <= expected.keys()
    assert differing(expected, run) == lost(written_once(RunFolder(finished_run)), run) == damaged(run) == []
    assert leftovers(run.root) == begun_again(run) == []
    assert jobs_at_work(run.root) == 0


def test_what_is_gone_or_changed_is_found(run: RunFolder) -> None:
    expected, before = contents(run), written_once(run)
    assert not any(name.startswith("submissions") for name in before)
    shutil.rmtree(run.root / "parts" / "QI" / "lexical" / "fold-1")
    manifest = run.root / "parts" / "QI" / "lexical" / "fold-2" / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"fold": 2', '"fold":  2'), "utf-8")
    with (run.root / "ensembles" / "QI" / "stack" / "oof.parquet").open("ab") as file:
        file.write(b"x")
    (run.root / "parts" / "QI" / "lexical" / "fold-3.partial").mkdir()
    assert lost(before, run) == ["parts/QI/lexical/fold-1", "parts/QI/lexical/fold-2"]
    found = damaged(run)
    assert any("fold-2" in each for each in found)
    assert any("stack/oof.parquet" in each for each in found)
    different = differing(expected, run)
    assert {"parts/QI/lexical/fold-1/oof.parquet", "ensembles/QI/stack/oof.parquet"} <= set(different)
    assert not any("fold-2" in name for name in different)
    assert leftovers(run.root) == ["parts/QI/lexical/fold-3.partial"]


def test_a_run_that_has_not_begun_has_nothing_wrong(tmp_path: Path) -> None:
    assert damaged(RunFolder(tmp_path)) == []
    assert written_once(RunFolder(tmp_path)) == {}


def test_the_last_lines_are_the_figures_of_all_engines(capsys: pytest.CaptureFixture[str]) -> None:
    tallies = [Tally(name, undisturbed=10.0, runs=2, attempts=8, seconds=30.0) for name in ("here", "local")]
    tallies[0].hits[DRIVER] = 6
    tallies[1].lost.append("parts/QI/lexical/fold-0")
    chaos.print_results(tallies)
    lines = capsys.readouterr().out.splitlines()
    assert "lost (local): parts/QI/lexical/fold-0" in lines
    assert {"RESULT kills 6", "RESULT lost_parts 1", "RESULT overhead 1.50"} <= set(lines)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_loses_nothing(tmp_path: Path) -> None:
    small = Competition(tmp_path, "QI", "lexical")
    small.make(120)
    (tally,) = kill_all(small, {"here": 2}, seed=5)
    assert tally.kills == 2
    assert tally.codes["left alone: 0"] == tally.runs
    assert tally.lost == tally.damaged == tally.differing == tally.leftovers == []
    assert (tally.hangs, tally.orphans) == (0, 0)
