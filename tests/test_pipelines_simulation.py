"""The simulated scheduler: hand-computed cases, and what holds for every schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from pipelines.simulation import Node, Schedule, SimulatedJob, Trouble, critical_path, simulate


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[SimulatedJob], list[Node]]:
    nodes = [Node(cpus=4, gpus=draw(st.integers(0, 4)), memory_gib=16.0) for _ in range(draw(st.integers(1, 3)))]
    most = max(node.gpus for node in nodes)
    jobs: list[SimulatedJob] = []
    for i in range(draw(st.integers(1, 15))):
        needs = draw(st.sets(st.sampled_from(jobs).map(lambda job: job.name), max_size=2)) if jobs else set()
        jobs.append(
            SimulatedJob(
                f"job-{i}",
                draw(st.integers(1, 50)),
                cpus=draw(st.integers(1, 4)),
                gpus=draw(st.integers(0, most)),
                memory_gib=draw(st.integers(0, 16)),
                needs=tuple(sorted(needs)),
                checkpoint_seconds=draw(st.sampled_from([1.0, 5.0, float("inf")])),
            )
        )
    return jobs, nodes


def oversubscribed(schedule: Schedule, jobs: list[SimulatedJob], nodes: list[Node]) -> list[tuple[int, float]]:
    """The (node, time) at which running jobs took more than there is."""
    by_name = {job.name: job for job in jobs}
    faults = []
    for node, size in enumerate(nodes):
        here = [attempt for attempt in schedule.attempts if attempt.node == node]
        for moment in {attempt.start for attempt in here}:
            running = [by_name[a.job] for a in here if a.start <= moment < a.end]
            taken = [sum(getattr(job, name) for job in running) for name in ("cpus", "gpus", "memory_gib")]
            if any(used > there for used, there in zip(taken, (size.cpus, size.gpus, size.memory_gib), strict=True)):
                faults.append((node, moment))
    return faults


@given(worlds(), st.sampled_from(["submitted", "widest", "longest"]), st.booleans(), st.integers(0, 5))
def test_every_job_is_done_once_after_its_needs_and_no_node_is_oversubscribed(
    world: tuple[list[SimulatedJob], list[Node]], order: str, failing: bool, seed: int
) -> None:
    jobs, nodes = world
    trouble = Trouble(mtbf_seconds=120.0, repair_seconds=7.0, slow_share=0.2, slow_factor=2.0, seed=seed)
    schedule = simulate(jobs, nodes, order=order, trouble=trouble if failing else None)
    finished = [attempt for attempt in schedule.attempts if attempt.finished]
    assert sorted(attempt.job for attempt in finished) == sorted(job.name for job in jobs)
    assert not oversubscribed(schedule, jobs, nodes)
    ends = {attempt.job: attempt.end for attempt in finished}
    for attempt in schedule.attempts:
        needs = next(job.needs for job in jobs if job.name == attempt.job)
        assert all(ends[name] <= attempt.start for name in needs)
    assert schedule.makespan >= schedule.lower_bound - 1e-9
    assert schedule.lower_bound >= critical_path(jobs)
    assert 0 <= schedule.gpu_utilisation <= 1 + 1e-9
    assert schedule == simulate(jobs, nodes, order=order, trouble=trouble if failing else None)


@given(worlds())
def test_without_trouble_every_job_takes_its_time_and_no_gpu_time_is_lost(
    world: tuple[list[SimulatedJob], list[Node]],
) -> None:
    jobs, nodes = world
    schedule = simulate(jobs, nodes)
    seconds = {job.name: job.seconds for job in jobs}
    assert all(attempt.end - attempt.start == pytest.approx(seconds[attempt.job]) for attempt in schedule.attempts)
    assert schedule.lost_gpu_seconds == 0
    assert schedule.n_failures == 0


def test_longest_first_is_better_in_the_known_case_and_the_engines_rule_has_it() -> None:
    jobs = [SimulatedJob("a", 1, gpus=1), SimulatedJob("b", 1, gpus=1), SimulatedJob("c", 2, gpus=1)]
    nodes = [Node(cpus=4, gpus=2)]
    assert simulate(jobs, nodes, order="submitted").makespan == 3
    assert simulate(jobs, nodes, order="longest").makespan == 2
    assert simulate(jobs, nodes).makespan == 2


def test_a_short_job_that_a_long_chain_waits_for_starts_first() -> None:
    chain = [SimulatedJob("weights", 1, gpus=1), SimulatedJob("fold", 5, gpus=1, needs=("weights",))]
    jobs = [SimulatedJob("other", 4, gpus=1), SimulatedJob("another", 3, gpus=1), *chain]
    nodes = [Node(cpus=4, gpus=2)]
    assert {a.job: a.start for a in simulate(jobs, nodes).attempts}["weights"] == 0
    assert simulate(jobs, nodes, order="longest").makespan > simulate(jobs, nodes).makespan


def test_a_gang_waits_for_its_gpus_on_one_node_and_smaller_jobs_pass_it() -> None:
    jobs = [SimulatedJob("small", 4, gpus=1), SimulatedJob("gang", 2, gpus=2), SimulatedJob("late", 3, gpus=1)]
    two_nodes = [Node(cpus=4, gpus=1), Node(cpus=4, gpus=2)]
    starts = {a.job: (a.node, a.start) for a in simulate(jobs, two_nodes, order="submitted").attempts}
    assert starts == {"small": (0, 0), "gang": (1, 0), "late": (1, 2)}
    starts = {a.job: (a.node, a.start) for a in simulate(jobs, [Node(cpus=4, gpus=2)]).attempts}
    assert starts == {"gang": (0, 0), "small": (0, 2), "late": (0, 2)}
    in_order = simulate(jobs, [Node(cpus=4, gpus=2)], order="submitted")
    assert {a.job: a.start for a in in_order.attempts} == {"small": 0, "late": 0, "gang": 4}


def test_memory_and_cpus_are_counted() -> None:
    jobs = [SimulatedJob(name, 5, memory_gib=9) for name in "ab"]
    assert simulate(jobs, [Node(cpus=8, memory_gib=16)]).makespan == 10
    assert simulate(jobs, [Node(cpus=8, memory_gib=18)]).makespan == 5
    assert simulate([SimulatedJob(name, 5, cpus=2) for name in "abc"], [Node(cpus=4)]).makespan == 10


def test_needs_make_a_chain_and_utilisation_is_exact() -> None:
    jobs = [SimulatedJob("a", 2, gpus=1), SimulatedJob("b", 3, gpus=1, needs=("a",)), SimulatedJob("c", 1, gpus=1)]
    schedule = simulate(jobs, [Node(cpus=4, gpus=2)])
    assert schedule.makespan == schedule.critical_path == schedule.lower_bound == 5
    assert schedule.gpu_utilisation == pytest.approx(6 / 10)


def test_a_lost_node_costs_what_was_done_since_the_last_checkpoint() -> None:
    job = SimulatedJob("long", 1000, gpus=2, checkpoint_seconds=100)
    trouble = Trouble(mtbf_seconds=400, repair_seconds=50, seed=1)
    schedule = simulate([job], [Node(cpus=4, gpus=2)], trouble=trouble)
    lost = [attempt.end - attempt.start for attempt in schedule.attempts if not attempt.finished]
    assert lost, "the seed was chosen so that it fails"
    assert schedule.lost_gpu_seconds == pytest.approx(2 * sum(seconds % 100 for seconds in lost))
    assert schedule.makespan == pytest.approx(1000 + sum(seconds % 100 for seconds in lost) + 50 * len(lost))


def test_without_checkpoints_all_of_it_is_done_again() -> None:
    trouble = Trouble(mtbf_seconds=400, repair_seconds=50, seed=1)
    schedule = simulate([SimulatedJob("long", 1000, gpus=1)], [Node(cpus=4, gpus=1)], trouble=trouble)
    last = schedule.attempts[-1]
    assert len(schedule.attempts) > 1
    assert last.end - last.start == pytest.approx(1000)


def test_a_straggler_takes_its_factor() -> None:
    schedule = simulate([SimulatedJob("a", 10)], [Node(cpus=1)], trouble=Trouble(slow_share=1.0, slow_factor=3.0))
    assert schedule.makespan == 30


def test_what_cannot_be_scheduled_is_named() -> None:
    with pytest.raises(CompetitionError, match="fit no machine") as error:
        simulate([SimulatedJob("wide", 1, gpus=9), SimulatedJob("fits", 1)], [Node(cpus=8, gpus=8)])
    assert [fault.where for fault in error.value.faults] == ["wide"]
    with pytest.raises(CompetitionError, match="circle"):
        simulate([SimulatedJob("a", 1, needs=("b",)), SimulatedJob("b", 1, needs=("a",))], [Node(cpus=1)])
    with pytest.raises(CompetitionError, match="not there"):
        simulate([SimulatedJob("a", 1, needs=("z",))], [Node(cpus=1)])
    hopeless = Trouble(mtbf_seconds=10, repair_seconds=1)
    with pytest.raises(CompetitionError, match="lost 1000 times"):
        simulate([SimulatedJob("a", 10_000)], [Node(cpus=1)], trouble=hopeless)
