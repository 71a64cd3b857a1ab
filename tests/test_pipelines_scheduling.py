"""The scheduler: needs before what needs them, big jobs before small ones, another try where it may help."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from pipelines.engines.protocol import Outcome
from pipelines.jobs import Job, Resources
from pipelines.scheduling import Skipped, failure, work_off
from pipelines.simulation import Node, SimulatedJob, simulate


def job(name: str, *needs: str, gpus: int = 0) -> Job:
    return Job(name, ("train", name), Path(name), needs, Resources(1, gpus), "train", "QI", name, 0)


class Machine:
    """Two GPUs and some workers; jobs end in the order of their start, with the exit codes that were given."""

    def __init__(self, *, tries: int = 1, workers: int = 4, **exit_codes: list[int]) -> None:
        self.tries, self.workers, self.exit_codes = tries, workers, exit_codes
        self.started: list[str] = []
        self.running: list[Job] = []

    def has_room(self, job: Job) -> bool:
        used = sum(each.resources.gpus for each in self.running)
        return len(self.running) < self.workers and used + job.resources.gpus <= 2

    def start(self, job: Job) -> None:
        assert self.has_room(job)
        self.started.append(job.name)
        self.running.append(job)

    def ended(self) -> list[Outcome]:
        first = self.running.pop(0)
        left = self.exit_codes.get(first.name, [])
        exit_code = left.pop(0) if left else 0
        return [Outcome(first, exit_code, done=exit_code == 0, last=(f"{first.name} said so",))]

    def stop(self) -> None:
        self.running.clear()


def test_a_job_starts_after_all_that_it_needs() -> None:
    machine = Machine()
    jobs = [job("stack", "a", "b"), job("a", "weights"), job("b", "made before"), job("weights")]
    assert work_off(jobs, machine) == ([], [])
    assert machine.started == ["b", "weights", "a", "stack"]


def test_jobs_with_most_gpus_start_first_and_small_ones_fill_the_gaps() -> None:
    machine = Machine()
    work_off([job("one", gpus=1), job("none"), job("two", gpus=2), job("other", gpus=1)], machine)
    assert machine.started == ["two", "none", "one", "other"]


def test_of_jobs_with_as_many_gpus_the_longest_starts_first() -> None:
    machine = Machine()
    work_off([job("short"), job("long"), job("wide", gpus=1)], machine, seconds={"short": 1.0, "long": 9.0})
    assert machine.started == ["wide", "long", "short"]


def test_weights_that_long_folds_wait_for_start_before_longer_jobs_even_if_nobody_knows_their_time() -> None:
    machine = Machine()
    jobs = [job("other"), job("weights"), job("fold-0", "weights"), job("fold-1", "weights")]
    work_off(jobs, machine, seconds={"other": 5.0, "fold-0": 6.0, "fold-1": 7.0})
    assert machine.started == ["weights", "other", "fold-1", "fold-0"]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Job], dict[str, float]]:
    jobs: list[Job] = []
    for i in range(draw(st.integers(1, 10))):
        needs = draw(st.sets(st.sampled_from(jobs).map(lambda job: job.name), max_size=2)) if jobs else set()
        jobs.append(job(f"job-{i}", *sorted(needs), gpus=draw(st.integers(0, 2))))
    return jobs, {each.name: float(draw(st.integers(1, 5))) for each in jobs}


@given(graphs())
def test_the_simulation_starts_jobs_in_the_order_of_the_engines(graph: tuple[list[Job], dict[str, float]]) -> None:
    jobs, seconds = graph
    machine = Machine(workers=1)
    work_off(jobs, machine, seconds=seconds)
    simulated = simulate(
        [SimulatedJob(each.name, seconds[each.name], gpus=each.resources.gpus, needs=each.needs) for each in jobs],
        [Node(cpus=1, gpus=2)],
    )
    assert [attempt.job for attempt in simulated.attempts] == machine.started


def test_what_is_worth_retrying_is_retried_a_bounded_number_of_times() -> None:
    machine = Machine(tries=3, lost=[75, -9], hopeless=[75, 75, 75, 0], faulty=[3, 0])
    failed, skipped = work_off([job("lost"), job("hopeless"), job("faulty")], machine)
    assert [(outcome.job.name, outcome.exit_code) for outcome in failed] == [("faulty", 3), ("hopeless", 75)]
    assert machine.started.count("lost") == machine.started.count("hopeless") == 3
    assert not skipped


def test_a_failure_stops_what_needs_it_however_far_away() -> None:
    machine = Machine(a=[1])
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d")]
    failed, skipped = work_off(jobs, machine)
    assert [outcome.job.name for outcome in failed] == ["a"]
    assert skipped == [Skipped(jobs[1], "a"), Skipped(jobs[2], "b")]
    assert machine.started == ["a", "d"]


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [([75, -9, 143], 75), ([3, 3], 3), ([3, 75], 3), ([1, 3], 1), ([75, 1], 1), ([-11], 1), ([0], 1)],
)
def test_the_exit_code_of_all_is_that_of_the_gravest(exit_codes: list[int], expected: int) -> None:
    failed = [Outcome(job(f"j{k}"), code, done=False) for k, code in enumerate(exit_codes)]
    assert failure(failed, []).exit_code == expected


def test_a_failure_names_job_log_and_command() -> None:
    error = failure([Outcome(job("a"), 3, False, ("first", "error: no fold 7"))], [Skipped(job("b", "a"), "a")])
    assert isinstance(error, CompetitionError)
    for words in ("a: exit code 3", "error: no fold 7", "again: relstack train a", "b: not begun: a is not done"):
        assert words in str(error)
