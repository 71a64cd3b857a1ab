"""A plan past one machine: 10,000,000 rows, 20 base learners, 5 folds, 64 GPUs, and what the scheduler makes of it.

    python benchmarks/scheduler.py [--rows 10000000] [--nodes 8] [--gpus 8] [--card H100] [--seeds 20]

Nothing is trained: seconds of jobs are those of `pipelines.estimates` (for transformers computed, for the others
measured on small runs and carried on in a straight line), the schedule is that of `pipelines.simulation`. Rows are
those of QC and QI in equal parts, of 29 and 43 tokens; dev and test have a fifth of the training rows. Policies:

    submitted        ready jobs in their order
    widest           those with most GPUs first, of these the longest chain of jobs: what the engines do
    longest          those that are the longest by themselves first
    gangs            networks of 7 B parameters and more on 4 GPUs, each worth .9 of one alone
    CPU in slices    besides, the embedding that a first part of frozen encoders makes cut into 64 jobs

Failures: each machine once in 30 days on average (a year holds 12 of each), back after half an hour, checkpoints
after each epoch; and once in 2 days, which is a bad cluster. Stragglers: one job in twenty at half speed.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from pipelines.config import LexicalRecipe, load_recipe
from pipelines.embeddings import SHARD
from pipelines.estimates import Rates, cost_of, peak_of, stage_seconds
from pipelines.footprint import base_bytes
from pipelines.networks import network_of
from pipelines.simulation import Node, Order, Schedule, SimulatedJob, Trouble, simulate
from pipelines.workload import Workload

LEARNERS = (
    "lexical", "lexical-linear", "e5-bi", "e5-tree", "e5-tree-mlp", "e5-bi-tuned-large", "e5-ce-large",
    "mdeberta-v3-base", "xlm-roberta-large", "gemma-2-9b", "gemma-3-4b", "gemma-3-12b", "gemma-3-12b-yesno",
    "qwen2-5-7b", "qwen2-5-14b", "qwen2-5-14b-yesno", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-14b-yesno",
)  # fmt: skip
TOKENS = {"QC": (6.0, 20.0), "QI": (11.0, 29.0)}  # of query and target; three more make 29 and 43
FOLDS, CPUS, MEMORY = 5, 128, 1024.0  # of a node
GANG, LARGE, WORTH = 4, 7e9, 0.9
SLICES = 64
DAY, HOUR = 86_400.0, 3600.0
TROUBLES = {
    "undisturbed": Trouble(),
    "stragglers": Trouble(slow_share=0.05, slow_factor=2.0),
    "mtbf-30-days": Trouble(mtbf_seconds=30 * DAY, repair_seconds=1800),
    "mtbf-2-days": Trouble(mtbf_seconds=2 * DAY, repair_seconds=1800),
}


def task_jobs(name: str, n_rows: int, rates: Rates) -> list[SimulatedJob]:
    """The parts of all base learners on one task, and the two ensembles over them."""
    query, target = TOKENS[name]
    work = Workload(name, FOLDS, n_rows, n_rows // 5, query, target)
    jobs: list[SimulatedJob] = []
    for learner in LEARNERS:
        if not (learner.startswith("e5-tree") and name == "QI"):  # it needs category paths
            jobs += learner_jobs(learner, work, rates)
    needs = tuple(job.name for job in jobs)
    for ensemble in ("stack", "blend"):
        seconds, _ = stage_seconds(f"{ensemble} {name}", n_rows, rates)
        jobs.append(SimulatedJob(f"{ensemble} {name}", seconds, needs=needs))
    return jobs


def disk(n_rows: int, rates: Rates) -> dict[str, float]:
    """Bytes that all parts keep, that pretrained weights take once, and that checkpoints take at most at a time."""
    kept, base, passing = 0.0, dict[str, float](), list[float]()
    for name, (query, target) in TOKENS.items():
        work = Workload(name, FOLDS, n_rows, n_rows // 5, query, target)
        for learner in LEARNERS:
            recipe = load_recipe(learner)
            cost = cost_of(learner, recipe, work, rates)
            kept += FOLDS * cost.kept_bytes
            passing += [cost.passing_bytes] * FOLDS
            if not isinstance(recipe, LexicalRecipe) and (network := network_of(recipe.weights.name)):
                base[recipe.weights.name] = base_bytes(recipe, network)
    return {"parts": kept, "pretrained": sum(base.values()), "checkpoints": sum(sorted(passing)[-64:])}


def learner_jobs(learner: str, work: Workload, rates: Rates) -> list[SimulatedJob]:
    """Five parts; of frozen encoders the embedding of all texts is a job of its own before them."""
    recipe = load_recipe(learner)
    cost = cost_of(learner, recipe, work, rates)
    where = f"{work.task}/{learner}"
    kept = cost.first_seconds * SHARD / work.n_rows
    embed = (
        SimulatedJob(f"embed {where}", cost.first_seconds, checkpoint_seconds=kept) if cost.first_seconds > 1 else None
    )
    parts = [
        SimulatedJob(
            f"train {where}/fold-{fold}",
            cost.seconds,
            gpus=cost.gpus,
            memory_gib=cost.memory_gib,
            needs=(embed.name,) if embed else (),
            checkpoint_seconds=cost.seconds / 2,
        )
        for fold in range(FOLDS)
    ]
    return [embed, *parts] if embed else parts


def in_gangs(jobs: Sequence[SimulatedJob]) -> list[SimulatedJob]:
    """Jobs of large networks on `GANG` GPUs each."""
    return [
        replace(job, gpus=GANG, seconds=job.seconds / (GANG * WORTH), checkpoint_seconds=job.checkpoint_seconds / GANG)
        if job.gpus and is_large(job.name)
        else job
        for job in jobs
    ]


def is_large(job: str) -> bool:
    """Whether the job ``train TASK/LEARNER/FOLD`` trains a network of `LARGE` parameters or more."""
    recipe = load_recipe(job.split("/")[1])
    network = network_of(recipe.weights.name)  # type: ignore[union-attr]  # it has a GPU, so it has weights
    return network is not None and network.n_parameters >= LARGE


def in_slices(jobs: Sequence[SimulatedJob]) -> list[SimulatedJob]:
    """Embeddings cut into `SLICES` jobs, which all parts of that base learner need."""
    sliced: list[SimulatedJob] = []
    for job in jobs:
        if job.name.startswith("embed "):
            sliced += [replace(job, name=f"{job.name}/{i}", seconds=job.seconds / SLICES) for i in range(SLICES)]
        else:
            needs = tuple(slice_ for name in job.needs for slice_ in slices_of(name))
            sliced.append(replace(job, needs=needs))
    return sliced


def slices_of(name: str) -> list[str]:
    """The jobs that a job was cut into, or itself."""
    return [f"{name}/{i}" for i in range(SLICES)] if name.startswith("embed ") else [name]


def line(policy: str, trouble: str, found: Schedule) -> str:
    """A line of the Markdown table."""
    cells = [
        policy, trouble, f"{found.makespan / HOUR:.1f}", f"{found.lower_bound / HOUR:.1f}",
        f"{found.critical_path / HOUR:.1f}", f"{found.makespan / found.lower_bound:.3f}",
        f"{found.gpu_utilisation:.1%}", f"{found.gpu_seconds / HOUR:,.0f}", f"{found.lost_gpu_seconds / HOUR:.1f}",
        str(found.n_failures),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def mean_of(found: Sequence[Schedule], name: str) -> float:
    """The mean of one figure over schedules."""
    return sum(float(getattr(one, name)) for one in found) / len(found)


def jobs_per_second() -> float:
    """Jobs of a larger case, 20,000 on 512 GPUs, simulated per second."""
    jobs = [SimulatedJob(f"job-{i}", 100 + i * 7919 % 1000, gpus=1 + i % 3) for i in range(20_000)]
    began = time.perf_counter()
    simulate(jobs, [Node(cpus=CPUS, gpus=8)] * 64, order="longest")
    return len(jobs) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="training rows of both tasks together")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--card", default="H100")
    parser.add_argument("--seeds", type=int, default=20, help="of failures and stragglers")
    args = parser.parse_args()
    rates = Rates(card=peak_of(args.card))
    jobs = [job for name in TOKENS for job in task_jobs(name, args.rows // len(TOKENS), rates)]
    nodes = [Node(CPUS, args.gpus, MEMORY)] * args.nodes
    gangs = in_gangs(jobs)
    sliced = in_slices(gangs)
    policies: dict[str, tuple[Sequence[SimulatedJob], Order]] = {
        "submitted": (jobs, "submitted"),
        "widest": (jobs, "widest"),
        "longest": (jobs, "longest"),
        "gangs, widest": (gangs, "widest"),
        "gangs, longest": (gangs, "longest"),
        "gangs, widest, CPU in slices": (sliced, "widest"),
        "gangs, longest, CPU in slices": (sliced, "longest"),
    }
    print(
        f"{args.rows:,} rows, {len(LEARNERS)} base learners, {len(jobs)} jobs, {args.nodes} x {args.gpus} {args.card}"
    )
    columns = ("policy", "trouble", "hours", "lower bound", "critical path", "ratio", "GPU use", "GPU-hours", "lost",
               "failures")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    best: dict[tuple[str, str], float] = {}
    for policy, (wanted, order) in policies.items():
        for trouble, what in TROUBLES.items():
            seeds = range(1 if what == Trouble() else args.seeds)
            found = [simulate(wanted, nodes, order=order, trouble=replace(what, seed=seed)) for seed in seeds]
            best[policy, trouble] = mean_of(found, "makespan")
            print(line(policy, trouble, mean_schedule(found)))
    report(best, jobs, nodes)
    for name, size in disk(args.rows // len(TOKENS), rates).items():
        print(f"RESULT disk_{name}_gb {size / 1e9:.0f}")
    print(f"RESULT simulated_jobs_per_second {jobs_per_second():.0f}")


def mean_schedule(found: Sequence[Schedule]) -> Schedule:
    """The first schedule with the means over all."""
    names = ("makespan", "gpu_utilisation", "lost_gpu_seconds")
    n_failures = round(mean_of(found, "n_failures"))
    return replace(found[0], n_failures=n_failures, **{name: mean_of(found, name) for name in names})


def report(best: dict[tuple[str, str], float], jobs: Sequence[SimulatedJob], nodes: Sequence[Node]) -> None:
    """The lines that are worth comparing later."""
    longest = simulate(jobs, nodes, order="longest")
    print(f"RESULT gpu_hours {longest.gpu_seconds / HOUR:.0f}")
    for policy in dict.fromkeys(policy for policy, _ in best):
        name = policy.replace(", ", "_").replace(" ", "_")
        print(f"RESULT hours_{name} {best[policy, 'undisturbed'] / HOUR:.2f}")
    print(f"RESULT longest_over_lower_bound {longest.makespan / longest.lower_bound:.3f}")
    print(f"RESULT widest_over_longest {best['widest', 'undisturbed'] / best['longest', 'undisturbed']:.3f}")


if __name__ == "__main__":
    main()
