"""Engines: wherever jobs run, the same files come out; what is killed, lost or faulty is named and stops no other."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from competition.errors import CompetitionError
from competition.sample import write_sample
from oof.store import sha256
from pipelines.engine import run_all
from pipelines.engines import ENGINES
from pipelines.engines.local import Local, visible_gpus
from pipelines.engines.processes import WANT_OF_MEMORY, JobProcess, Place
from pipelines.engines.protocol import Engine, EngineOptions
from pipelines.engines.slurm import submission
from pipelines.job_state import read_state
from pipelines.jobs import Job, Resources, job_graph
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scheduling import stopping, work_off
from pipelines.secrets import HIDDEN
from pipelines.status import FAILED, RUNNING, job_lines

ROOT = Path(__file__).parent.parent
RECIPE = "lexical"
MEAN = "ensemble.QI.mean"
SETTINGS = ["lexical:head.rounds=10", "lexical:ngrams.max_features=200"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "data"
    write_sample(folder, n_train=200, n_dev=30, n_test=30, tasks=("QI",))
    return folder


@pytest.fixture
def new_run(data: Path, tmp_path: Path) -> Callable[[str], RunFolder]:
    def make(name: str) -> RunFolder:
        run = RunFolder(tmp_path / name)
        prepare(run, RunSettings(data=str(data), tasks=("QI",), folds=3))
        split(run)
        run.add_recipes([RECIPE], SETTINGS)
        return run

    return make


def jobs_of(run: RunFolder) -> list[Job]:
    """The training jobs and a mean of them; the ensembles of a run take long and add nothing here."""
    *train, stack, _blend = job_graph(run, ["QI"], [RECIPE])
    mean = ("ensemble", "make", "--run", str(run.root), "--task", "QI", "--name", "mean")
    return [*train, replace(stack, name=MEAN, argv=mean, manifest=run.ensemble("QI", "mean") / "manifest.json")]


def finish(run: RunFolder, engine: Engine) -> dict[str, str]:
    """Do all jobs; gives the digest of every score file."""
    with stopping(engine):
        failed, skipped = work_off(jobs_of(run), engine)
    assert not failed, [outcome.last for outcome in failed]
    assert not skipped
    return digests(run)


def digests(run: RunFolder) -> dict[str, str]:
    """SHA-256 of the scores of parts and ensembles, by path."""
    files = [path for folder in ("parts", "ensembles") for path in (run.root / folder).rglob("*.parquet")]
    return {str(path.relative_to(run.root)): sha256(path) for path in sorted(files)}


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the engine `here` makes."""
    run = RunFolder(tmp_path_factory.mktemp("here") / "run")
    prepare(run, RunSettings(data=str(data), tasks=("QI",), folds=3))
    split(run)
    run.add_recipes([RECIPE], SETTINGS)
    made = finish(run, ENGINES["here"](run, EngineOptions()))
    assert len(made) == 3 * 3 + 3
    assert "parts/QI/lexical/fold-1\n" in run.job_log("train.QI.lexical.fold-1").read_text("utf-8")
    return made


@pytest.mark.slow
def test_two_local_workers_make_the_same_files(new_run: Callable[[str], RunFolder], expected: dict[str, str]) -> None:
    run = new_run("local")
    assert finish(run, ENGINES["local"](run, EngineOptions(workers=2))) == expected
    states = [read_state(run.job_state(job.name)) for job in jobs_of(run)]
    assert [(state.attempt, state.exit_code) for state in states if state] == [(1, 0)] * 4
    assert run.job_log("train.QI.lexical.fold-1").read_text("utf-8").startswith("== ")


@pytest.mark.slow
def test_ray_makes_the_same_files(new_run: Callable[[str], RunFolder], expected: dict[str, str]) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    run = new_run("ray")
    assert finish(run, ENGINES["ray"](run, EngineOptions(workers=2))) == expected


@pytest.mark.slow
def test_submitit_makes_the_same_files(
    new_run: Callable[[str], RunFolder], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path / "cache"))
    run = new_run("slurm")
    options = EngineOptions(workers=2, slurm={"cluster": "local", "time": "10"})
    assert finish(run, ENGINES["slurm"](run, options)) == expected


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("slurm", EngineOptions(slurm={"partition": "gpu"}), 'Could not detect "srun"'),
        ("slurm", EngineOptions(slurm={"cluster": "local", "time": "2:00"}), r"invalid literal for int.*2:00"),
        ("slurm", EngineOptions(slurm={"cluster": "none"}), "none"),
        ("ray", EngineOptions(address="127.0.0.1:9"), "nobody answers"),
    ],
)
def test_an_engine_that_is_not_there_is_told_before_anything_is_written(
    data: Path, tmp_path: Path, engine: str, options: EngineOptions, said: str
) -> None:
    pytest.importorskip("submitit" if engine == "slurm" else "ray", reason="the extra is not installed")
    run = RunFolder(tmp_path / "run")
    settings = RunSettings(data=str(data), tasks=("QI",), folds=3, recipes=(RECIPE,))
    with pytest.raises(CompetitionError, match=said):
        run_all(run, settings, engine=engine, options=options)
    assert not run.root.exists()


def test_a_run_with_nothing_to_do_needs_no_cluster(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    settings = RunSettings(data=str(data), tasks=("QI",), folds=3, recipes=(RECIPE,), overrides=tuple(SETTINGS))
    run_all(run, settings)
    nowhere = EngineOptions(address="127.0.0.1:9")
    assert not run_all(run, settings, engine="ray", options=nowhere).to_frame().empty


def test_a_cluster_without_gpus_is_asked_for_none() -> None:
    assert submission(with_gpus(1), {}, on_slurm=True)["gpus_per_node"] == 1
    assert submission(with_gpus(1), {"gpus_per_node": "0"}, on_slurm=True)["gpus_per_node"] == 0
    assert submission(with_gpus(1), {"gpus_per_node": "8"}, on_slurm=True)["gpus_per_node"] == 1


def test_ray_that_does_not_come_up_in_time_is_worth_retrying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

    def init(**_: object) -> None:  # as on a machine so busy that Ray's half minute is over
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(CompetitionError, match="Ray did not start: The current node timed out") as caught:
        ENGINES["ray"](RunFolder(tmp_path), EngineOptions())
    assert caught.value.exit_code == 75


def test_an_address_at_which_nobody_listens_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would wait ten minutes"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CompetitionError, match=f"nobody answers at 127.0.0.1:{port}") as caught:
        ENGINES["ray"](RunFolder(tmp_path), EngineOptions(address=f"127.0.0.1:{port}"))
    assert caught.value.exit_code == 75
    assert "ray status" in str(caught.value)


def test_a_killed_job_is_named_and_the_next_run_finishes(
    new_run: Callable[[str], RunFolder], expected: dict[str, str]
) -> None:
    run = new_run("killed")
    victim = jobs_of(run)[0]
    process = JobProcess(victim, Place.of(run))
    os.kill(process.process.pid, signal.SIGKILL)
    outcome = process.wait()
    process.stop()
    assert (outcome.exit_code, outcome.done, outcome.worth_retrying) == (-signal.SIGKILL, False, True)
    state = read_state(run.job_state(victim.name))
    assert state is not None
    assert (state.exit_code, state.error) == (-9, f"killed by signal 9, {WANT_OF_MEMORY}")
    assert outcome.last[-1] == state.error
    assert finish(run, ENGINES["here"](run, EngineOptions())) == expected
    again = read_state(run.job_state(victim.name))
    assert again is not None
    assert (again.attempt, again.exit_code) == (2, 0)
    assert run.job_log(victim.name).read_text("utf-8").count("== ") == 2


def test_a_local_job_that_is_killed_once_is_tried_again(new_run: Callable[[str], RunFolder]) -> None:
    run = new_run("killed-once")
    victim, pool = jobs_of(run)[0], ENGINES["local"](run, EngineOptions(workers=1))
    start, begun = pool.start, []

    def start_and_kill_the_first(job: Job) -> None:
        start(job)
        if not begun:
            os.kill(pool.running[job.name][0].process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        begun.append(job.name)

    pool.start = start_and_kill_the_first  # type: ignore[method-assign]
    with stopping(pool):
        assert work_off([victim], pool) == ([], [])
    assert begun == [victim.name] * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a log on a full disk is a link to /dev/full")
@pytest.mark.parametrize("engine", ["here", "local"])
def test_a_log_that_finds_no_room_is_how_that_job_ends(new_run: Callable[[str], RunFolder], engine: str) -> None:
    run = new_run(engine)
    first = jobs_of(run)[0]
    run.logs.mkdir()
    run.job_log(first.name).symlink_to("/dev/full")
    pool = ENGINES[engine](run, EngineOptions(workers=1))
    with stopping(pool):
        failed, _ = work_off([first], pool)
    assert [(outcome.job.name, outcome.exit_code) for outcome in failed] == [(first.name, 75)]
    told = "\n".join(failed[0].last)
    assert f"relstack gc {run.root}" in told
    assert str(run.root) in told


@pytest.mark.parametrize("engine", ["here", "local"])
def test_a_failed_job_stops_nothing_but_what_needs_it(new_run: Callable[[str], RunFolder], engine: str) -> None:
    run = new_run(engine)
    first, *others = jobs_of(run)
    faulty = replace(first, argv=(*first.argv[:-1], "7"))
    pool = ENGINES[engine](run, EngineOptions(workers=2))
    with stopping(pool):
        failed, skipped = work_off([faulty, *others], pool)
    assert [(outcome.job.name, outcome.exit_code) for outcome in failed] == [(first.name, 3)]
    assert any("no fold 7" in line for line in failed[0].last)
    assert [(each.job.name, each.because) for each in skipped] == [(MEAN, first.name)]
    assert [job.done for job in others] == [True, True, False]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("local", signal.SIGKILL),
        ("local", signal.SIGTERM),
        ("local", signal.SIGINT),
        ("here", signal.SIGTERM),
        ("here", signal.SIGINT),
    ],
)
def test_no_job_outlives_the_command_that_began_it(
    new_run: Callable[[str], RunFolder], data: Path, engine: str, how: signal.Signals
) -> None:
    run = new_run("orphans")
    overrides = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["run", "--data", data, "--run", run.root, "--folds", 3, "--tasks", "QI", "--recipes", RECIPE, *overrides,
             "--engine", engine, "--workers", 2]  # fmt: skip
    parent = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "--quiet", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: any(run.logs.glob("*.json")), "a job at work")
    parent.send_signal(how)
    parent.wait()
    assert parent.returncode == (-how if how == signal.SIGKILL else 75)
    wait_until(lambda: not jobs_running(run), "the end of its jobs")
    wait_until(lambda: not any(line.state in (RUNNING, FAILED) for line in job_lines(run)), "their being noticed")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_training_by_hand_ends_with_75_at_sigterm(new_run: Callable[[str], RunFolder]) -> None:
    run = new_run("by-hand")
    words = ["train", "--run", run.root, "--task", "QI", "--model", RECIPE]
    done = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *map(str, words)], cwd=ROOT, stderr=subprocess.PIPE)
    wait_until(lambda: any(run.logs.glob("*.json")), "its beginning")
    done.send_signal(signal.SIGTERM)
    _, said = done.communicate()
    assert done.returncode == 75
    assert b"stopped by SIGTERM" in said


def jobs_running(run: RunFolder) -> list[int]:
    """Ids of the processes that do jobs of the run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"pipelines.job_process" in words and str(run.root).encode() in words:
            found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen soon; three minutes only guard against waiting for ever."""
    for _ in range(9000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


# Shares of the machine


def with_gpus(n_gpus: int, fold: int = 0) -> Job:
    return Job(f"train.QI.a.fold-{fold}", (), Path("none"), (), Resources(1, n_gpus), "train", "QI", "a", fold)


def test_gpus_are_handed_out_once_and_a_job_without_sees_none(tmp_path: Path) -> None:
    pool = Local(RunFolder(tmp_path), workers=3, threads=1, gpus=["2", "5", "7"])
    shown = replace(with_gpus(2), argv=("--version",))
    assert pool.has_room(shown)
    pool.start(shown)
    assert pool.free == ["7"]
    assert not pool.has_room(with_gpus(2, 1))
    assert pool.has_room(with_gpus(1, 1))
    assert pool.has_room(with_gpus(0, 1))
    process, mine = pool.running[shown.name]
    environment = Path(f"/proc/{process.process.pid}/environ")
    if environment.exists():
        wait_until(lambda: b"CUDA_VISIBLE_DEVICES=2,5" in environment.read_bytes().split(b"\0"), "its environment")
    assert mine == ["2", "5"]
    while not (outcomes := pool.ended()):
        pass
    assert [(outcome.exit_code, outcome.done) for outcome in outcomes] == [(1, False)]  # it left no manifest
    assert sorted(pool.free) == ["2", "5", "7"]


def test_a_job_waits_for_memory_unless_it_is_alone(tmp_path: Path) -> None:
    pool = Local(RunFolder(tmp_path), workers=3, threads=1, gpus=[], memory_gib=10)
    of = [
        replace(with_gpus(0, k), argv=("--version",), resources=Resources(1, 0, gib))
        for k, gib in enumerate([7, 4, 3, 99])
    ]
    with stopping(pool):
        assert all(map(pool.has_room, of))
        pool.start(of[0])
        assert [pool.has_room(job) for job in of[1:]] == [False, True, False]
        assert pool.has_room(with_gpus(0, 4))  # nobody knows what it takes


def test_memory_is_estimated_for_local_trainings_and_asked_of_clusters_only_by_name(
    new_run: Callable[[str], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = new_run("memory"), []
    monkeypatch.setattr("pipelines.engine._work_off", lambda todo, *_: seen.append(todo))
    monkeypatch.setattr("pipelines.engine.leaderboard", lambda run: None)
    settings = run.settings().model_copy(update={"recipes": (RECIPE,), "overrides": tuple(SETTINGS)})
    in_slurm = {"cluster": "local"}
    for engine, options in [
        ("local", EngineOptions()),
        ("local", EngineOptions(memory_gib=2.0)),
        ("slurm", EngineOptions(slurm=in_slurm)),
        ("slurm", EngineOptions(slurm=in_slurm, memory_gib=2.0)),
    ]:
        run_all(run, settings, engine=engine, options=options)
    first, asked, cluster, cluster_asked = [[job.resources.memory_gib for job in todo] for todo in seen]
    assert all(gib and gib > 0.1 for gib in first[:3])
    assert first[3:] == [None, None]
    assert asked == cluster_asked == [2.0] * 5
    assert cluster == [None] * 5
    assert submission(seen[3][0], {}, on_slurm=True)["mem_gb"] == 2.0


def test_more_gpus_than_there_are_are_refused_but_none_means_cpus(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"training\.gpus = 4"):
        Local(RunFolder(tmp_path), workers=1, threads=1, gpus=["0", "1"]).has_room(with_gpus(4))
    assert Local(RunFolder(tmp_path), workers=1, threads=1, gpus=[]).has_room(with_gpus(4))


def test_visible_gpus_are_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-1f2e")
    assert visible_gpus() == ["3", "GPU-1f2e"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


# Machines that are lost


@pytest.fixture
def two_nodes() -> Iterator[object]:
    """A Ray cluster of two machines that are processes of this one."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_run_finishes_though_a_machine_is_lost(
    new_run: Callable[[str], RunFolder], expected: dict[str, str], two_nodes: object
) -> None:
    cluster: object = two_nodes
    lost = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)  # type: ignore[attr-defined]
    run = new_run("lost")
    engine = ENGINES["ray"](run, EngineOptions(address=cluster.address))  # type: ignore[attr-defined]
    pulled = []

    class Watched:
        """The engine; as soon as both machines work, one is taken away."""

        tries = engine.tries
        has_room, start, stop = engine.has_room, engine.start, engine.stop

        def ended(self) -> list:  # type: ignore[type-arg]
            if not pulled and len(jobs_running(run)) == 2:
                cluster.remove_node(lost)  # type: ignore[attr-defined]
                pulled.append(True)
            return engine.ended()

    assert finish(run, Watched()) == expected
    assert pulled
    attempts = [state.attempt for job in jobs_of(run) if (state := read_state(run.job_state(job.name)))]
    assert sorted(attempts) == [1, 1, 1, 2]


@pytest.fixture
def two_gpus() -> Iterator[object]:
    """A Ray cluster of one machine that says it has two GPUs."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    ray.init("local", num_cpus=1, num_gpus=2, object_store_memory=80 * 2**20, include_dashboard=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_job_with_two_gpus_gets_them_together(
    new_run: Callable[[str], RunFolder], expected: dict[str, str], two_gpus: object
) -> None:
    from ray.util import placement_group_table

    run = new_run("gpus")
    jobs = [replace(job, resources=Resources(cpus=1, gpus=2)) for job in jobs_of(run)[:2]]
    assert work_off(jobs, ENGINES["ray"](run, EngineOptions())) == ([], [])
    made = digests(run)
    assert len(made) == 2 * 3
    assert made.items() <= expected.items()
    groups = placement_group_table().values()
    assert [(group["strategy"], group["bundles"], group["state"]) for group in groups] == [
        ("STRICT_PACK", {0: {"CPU": 1.0, "GPU": 2.0}}, "REMOVED")
    ] * 2


@pytest.mark.parametrize("engine", ["here", "local"])
def test_logs_and_states_of_jobs_hold_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setenv("SOME_TOKEN", "not-to-be-seen")
    run = RunFolder(tmp_path / "run")
    run.write_settings(RunSettings(data="data", tasks=("QI",)))
    words = ("--task", "QI", "--model", "lexical", "--fold", "0", "--set", "head.rounds=not-to-be-seen")
    argv = ("train", "--run", str(run.root), *words)
    job = Job("train.x", argv, run.root / "manifest.json", (), Resources(), "train", "QI", "lexical", 0)
    failed, _ = work_off([job], ENGINES[engine](run, EngineOptions()))
    assert [outcome.exit_code for outcome in failed] == [3]
    written = "".join(path.read_text() for path in run.logs.iterdir())
    assert HIDDEN in written
    assert "not-to-be-seen" not in written
