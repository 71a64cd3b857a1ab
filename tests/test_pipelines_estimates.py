"""Estimates: rates come from parts of the same recipe, best source first; figures follow from rows by hand."""

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from competition.errors import CompetitionError
from competition.sample import write_sample
from oof.store import PartKey
from pipelines.cards import gpu_names
from pipelines.cli import DEFAULT_RECIPES, main
from pipelines.config import load_recipe, recipe_names
from pipelines.engines.local import Local
from pipelines.engines.protocol import EngineOptions
from pipelines.estimates import COMPUTED, ELSEWHERE, HERE, SHIPPED, Rates, cost_of, known_peak, peak_of
from pipelines.footprint import gpus_of
from pipelines.jobs import job_graph
from pipelines.planning import expected, group_table, plan_run, plan_table, planned_name, schedule_of
from pipelines.prepare import prepare, split
from pipelines.rates import TABLE, Line, Observation, Rate, observed, observed_stages, rate_of, shipped
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.slots import Slots, slots_here
from pipelines.workload import Workload, workloads

WORK = Workload("QC", 5, n_train=1000, n_unseen=300, query_tokens=6.0, target_tokens=20.0)


def part(fold: int, size: int, *, fit: float, predict: float = 0.0) -> Observation:
    """A planted part of a run with `size` rows."""
    key = PartKey("QC", "mine", fold)
    return Observation(key, {}, "cpu", size, size, size, fit, predict, kept_bytes=10 * size, peak_mib=100.0)


def dry_run(run: Path, *more: Any) -> Result:
    """The dry run of a run with the settings of `finished_run`."""
    words = ["run", "--data", run.parent / "data", "--run", run, "--folds", 3, "--tasks", "QI", "--recipes",
             "lexical,lexical-linear", "--set", "lexical:head.rounds=20", "--dry-run", *more]  # fmt: skip
    return CliRunner().invoke(main, [*map(str, words)])


def with_program(folder: Path, monkeypatch: pytest.MonkeyPatch, *cards: str) -> Path:
    """The only program of the search path: an nvidia-smi that tells of these cards."""
    program = folder / "nvidia-smi"
    program.write_text("".join(["#!/bin/sh\n", *(f"echo '{card}'\n" for card in cards)]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


@pytest.fixture
def half_done(finished_run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the finished run without one part and without ensembles."""
    shutil.copytree(finished_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    shutil.rmtree(run.parts.folder(PartKey("QI", "lexical", 1)))
    shutil.rmtree(run.root / "ensembles")
    return run


def test_two_sizes_tell_fixed_part_part_per_row_and_what_only_the_first_takes() -> None:
    parts = [
        part(fold, size, fit=2 + 0.01 * size + (fold == 0) * 0.05 * size, predict=0.5 + 0.001 * size)
        for size in (100, 400)
        for fold in range(3)
    ]
    rate = rate_of(parts, None)
    assert (rate.fit.fixed, rate.fit.per_row) == pytest.approx((2, 0.01))
    assert (rate.predict.fixed, rate.predict.per_row) == pytest.approx((0.5, 0.001))
    assert (rate.first.fixed, rate.first.per_row) == pytest.approx((0, 0.05), abs=1e-6)
    assert rate.kept.at(1000) == pytest.approx(10_000)


def test_one_size_takes_its_shape_from_the_known_rate() -> None:
    known = Rate(fit=Line(1.0, 0.01), first=Line(10.0, 0.1))
    rate = rate_of([part(fold, 100, fit=4.0 + 60 * (fold == 0)) for fold in range(3)], known)
    assert rate.fit == Line(2.0, 0.02)
    assert rate.first.at(100) == pytest.approx(60)
    assert rate.first.fixed / rate.first.per_row == pytest.approx(100)


def test_of_a_single_part_only_its_share_is_expected_of_the_others() -> None:
    known = Rate(fit=Line(0.0, 0.01), first=Line(0.0, 0.09))
    rate = rate_of([part(0, 100, fit=20.0)], known)
    assert (rate.fit.at(100), rate.first.at(100)) == pytest.approx((2.0, 18.0))


def test_observed_parts_are_those_of_the_run(finished_run: Path) -> None:
    run = RunFolder(finished_run)
    rows = run.rows("QI")
    parts = observed(run)
    assert len(parts) == len({one.key for one in parts}) == 2 * 3
    for one in parts:
        assert one.n_rows == sum(map(len, rows.values()))
        assert one.n_fitted == len(rows["train"]) - run.parts.manifest(one.key).n_oof
        assert one.fit_seconds >= run.parts.manifest(one.key).fit_seconds
        assert one.kept_bytes > 1000
    sizes = {name: size for name, (size, _) in observed_stages(run).items()}
    assert sizes["stack QI"] == len(rows["train"])
    assert sizes["prepare"] == sum(map(len, rows.values()))


def test_the_shipped_table_names_its_sources_and_has_the_default_recipes() -> None:
    entries = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    for kind in ("learner", "stage", "card"):
        assert all(entry["source"] for entry in entries[kind])
    assert all(section["source"] for section in entries["computed"].values())
    learners = {name for name, _ in shipped().learners}
    assert learners >= set(DEFAULT_RECIPES.split(","))
    lines = [line for rate in shipped().learners.values() for line in vars(rate).values()]
    assert all(line.fixed >= 0 and line.per_row >= 0 for line in [*lines, *shipped().stages.values()])


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_has_an_estimate_with_and_without_a_gpu(name: str) -> None:
    for card in (None, peak_of("H100")):
        cost = cost_of(name, load_recipe(name), WORK, Rates(card=card))
        assert cost.seconds > 0
        assert cost.kept_bytes > 0
        assert cost.memory_gib > 0
        assert cost.basis in (SHIPPED, COMPUTED)
        assert (cost.gpu_gib is not None) == (cost.gpus > 0)


def test_a_computed_estimate_reaches_the_public_figure_that_it_rests_on() -> None:
    recipe = load_recipe("qwen3-14b", ["training.epochs=1"])
    much = replace(WORK, n_train=1_250_000_000, n_unseen=0)
    seconds = cost_of("qwen3-14b", recipe, much, Rates(card=peak_of("H100"))).seconds
    tokens = much.n_fitted * much.tokens(recipe)
    scored = much.n_scored * much.tokens(recipe) / 2  # scoring takes half of the operations
    assert (tokens + scored) / seconds == pytest.approx(5800, rel=0.02)


def test_estimates_follow_epochs_gpus_cards_and_rows() -> None:
    def seconds(*overrides: str, card: str = "H100", work: Workload = WORK) -> float:
        recipe = load_recipe("xlm-roberta-large", overrides)
        return cost_of("xlm-roberta-large", recipe, work, Rates(card=peak_of(card))).seconds

    much = replace(WORK, n_train=10_000_000)
    usual = seconds(work=much)
    assert seconds("training.epochs=6", work=much) == pytest.approx(2 * usual, rel=0.05)
    assert seconds("training.gpus=2", work=much) == pytest.approx(usual / 2, rel=0.01)
    assert seconds(card="A100", work=much) == pytest.approx(usual * 989 / 312, rel=0.01)
    assert seconds("training.max_rows=1000", work=much) < usual / 5
    assert seconds("training.freeze_layers=12", work=much) < usual
    assert seconds(work=WORK) < usual / 100


def test_cards_are_known_by_the_names_that_the_driver_tells() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA L40S") == peak_of("l40s") != peak_of("NVIDIA L4")
    assert peak_of("NVIDIA A100-SXM4-80GB") == peak_of("a100")
    assert peak_of("NVIDIA GeForce RTX 4090") == peak_of("rtx 4090")


@pytest.mark.parametrize("card", ["NVIDIA L40", "NVIDIA RTX A1000", "NVIDIA T400 4GB", "NVIDIA A10G", "NVIDIA GH200"])
def test_a_card_is_not_taken_for_one_whose_name_begins_alike(card: str) -> None:
    assert known_peak(card) is None


def test_an_unknown_card_is_an_error_where_it_was_named() -> None:
    with pytest.raises(CompetitionError, match="Voodoo"):
        peak_of("Voodoo 3")


def test_frozen_encoders_take_the_gpu_that_their_jobs_get() -> None:
    for name in ("lexical", "e5-bi", "e5-tree", "e5-ce"):
        recipe = load_recipe(name)
        assert cost_of(name, recipe, WORK, Rates(card=peak_of("H100"))).gpus == gpus_of(recipe)
        assert cost_of(name, recipe, WORK, Rates()).gpus == 0
    assert gpus_of(load_recipe("e5-bi")) == 1


def test_an_unknown_network_is_named_with_what_to_do() -> None:
    recipe = load_recipe("e5-ce", ["weights.name=someone/else"])
    with pytest.raises(CompetitionError, match="someone/else") as error:
        cost_of("e5-ce", recipe, WORK, Rates())
    assert "--rates-from" in error.value.advice


def test_a_larger_frozen_encoder_takes_longer_to_embed_and_is_computed() -> None:
    small, large = (cost_of(name, load_recipe(name), WORK, Rates()) for name in ("e5-bi", "e5-bi-large"))
    assert (small.basis, large.basis) == (SHIPPED, COMPUTED)
    assert large.seconds == small.seconds
    assert large.first_seconds > 10 * small.first_seconds


def test_the_best_source_is_taken_and_parts_of_other_recipes_are_not(finished_run: Path, half_done: RunFolder) -> None:
    settings = half_done.settings()

    def bases(run: RunFolder, others: list[RunFolder], **changes: Any) -> dict[str, str]:
        plan = plan_run(run, settings.model_copy(update=changes), others)
        return {job.group: job.basis for job in plan if not job.done}

    new, there = RunFolder(finished_run / "new"), RunFolder(finished_run)
    assert bases(half_done, [there])["train QI/lexical"] == HERE
    assert bases(new, [there])["train QI/lexical"] == ELSEWHERE
    assert bases(new, [there], overrides=())["train QI/lexical"] == SHIPPED
    assert bases(new, [there], overrides=())["train QI/lexical-linear"] == ELSEWHERE
    assert bases(new, [])["train QI/lexical"] == COMPUTED  # 20 rounds are not what the table measured
    assert bases(new, [there])["stack QI"] == ELSEWHERE


def test_a_run_foretells_itself(finished_run: Path) -> None:
    run = RunFolder(finished_run)
    plan = plan_run(RunFolder(finished_run / "new"), run.settings(), [run])
    actual = sum(one.fit_seconds + one.predict_seconds for one in observed(run))
    predicted = sum(job.seconds for job in plan if job.name.startswith("train "))
    assert predicted == pytest.approx(actual, rel=0.05)


def test_only_what_is_to_do_has_hours(half_done: RunFolder) -> None:
    plan = plan_run(half_done, half_done.settings())
    todo = [job.name for job in plan if not job.done]
    assert todo == ["train QI/lexical/fold-1", "stack QI", "blend QI", "leaderboard", "submit"]
    table = plan_table(plan).set_index("job")
    assert table["hours"].notna().sum() == 5
    assert table.loc["train QI/lexical/fold-0", "state"] == "done"
    total = group_table(plan).set_index("jobs").loc["all"]
    assert (total["done"], total["to_do"]) == (len(plan) - 5, 5)
    assert total["hours"] == pytest.approx(sum(job.seconds for job in plan if not job.done) / 3600, abs=1e-4)


def test_ensembles_are_to_do_again_where_a_part_is_to_do_and_what_is_always_made_is(finished_run: Path) -> None:
    run = RunFolder(finished_run)
    state = {job.name: job.done for job in plan_run(run, run.settings())}
    assert [name for name, done in state.items() if not done] == ["leaderboard", "submit"]
    more = run.settings().model_copy(update={"recipes": (*run.settings().recipes, "e5-bi")})
    state = {job.name: job.done for job in plan_run(run, more)}
    assert state["train QI/lexical/fold-0"]
    assert not state["stack QI"]
    assert not state["blend QI"]


def test_the_plan_has_all_jobs_of_the_run_with_what_they_need_and_their_seconds(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=200, n_dev=30, n_test=30)
    recipes = ("lexical", "e5-tree", "e5-ce-tapt")
    settings = RunSettings(data=str(tmp_path / "data"), tasks=("QC", "QI"), recipes=recipes, folds=3)
    run = RunFolder(tmp_path / "run")
    before = plan_run(run, settings)
    prepare(run, settings)
    split(run)
    run.add_recipes(recipes, ())
    graph = job_graph(run, ["QC", "QI"], recipes)
    planned = {job.name: job for job in plan_run(run, settings)}
    assert [job.name for job in before] == list(planned)
    called = {job.name: planned_name(job) for job in graph}
    for job in graph:
        wanted = {called[name] for name in job.needs}
        assert wanted == {n for n in planned[called[job.name]].needs if not n.startswith("split")}
    assert expected(run, settings, graph).keys() == called.keys()
    assert sum(name.startswith("pretrain") for name in planned) == 2


def test_pretraining_takes_all_rows_of_the_other_task_and_scores_none(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=200, n_dev=30, n_test=30)
    settings = RunSettings(data=str(tmp_path / "data"), tasks=("QC", "QI"), recipes=("e5-ce-tapt",), folds=3)
    run, other = RunFolder(tmp_path / "run"), replace(WORK, n_train=300, folds=3, n_unseen=0)
    assert (other.as_one_training().n_fitted, other.as_one_training().n_scored) == (300, 0)
    planned = {job.name: job for job in plan_run(run, settings)}
    _, qi = workloads(run, settings)
    whole = cost_of("e5-ce", load_recipe("e5-ce"), replace(qi, folds=10**9, n_unseen=0), Rates())
    assert planned["pretrain QC/e5-ce-tapt"].seconds == pytest.approx(whole.seconds)
    assert planned["pretrain QC/e5-ce-tapt"].needs == ("split QC",)
    alone = plan_run(run, settings.model_copy(update={"tasks": ("QC",)}))
    assert not any(job.name.startswith("pretrain") for job in alone)  # nothing to learn from: made by hand


def test_the_first_part_to_do_carries_the_embedding_once(finished_run: Path) -> None:
    settings = RunFolder(finished_run).settings().model_copy(update={"recipes": ("e5-bi",), "overrides": ()})
    parts = [job.seconds for job in plan_run(RunFolder(finished_run / "new"), settings) if "e5-bi" in job.name]
    assert parts[0] > parts[1] == parts[2]


def test_wall_time_is_that_of_the_slots(finished_run: Path) -> None:
    run = RunFolder(finished_run)
    plan = plan_run(RunFolder(finished_run / "new"), run.settings(), [run])
    alone = schedule_of(plan, Slots())
    assert alone.makespan == pytest.approx(sum(job.seconds for job in plan))
    wide = schedule_of(plan, Slots(workers=100))
    assert wide.makespan == pytest.approx(wide.critical_path)
    assert schedule_of([replace(job, done=True) for job in plan], Slots()).makespan == 0


def test_a_plan_has_as_many_workers_as_the_engine_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with_program(tmp_path, monkeypatch, "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    for asked in (None, 2, 5):
        engine = Local.of(RunFolder(tmp_path), EngineOptions(workers=asked))
        assert slots_here(asked, None) == Slots(engine.workers, "NVIDIA H100 80GB HBM3", 3)
    assert slots_here(2, "H100:8") == Slots(2, "H100", 8)
    assert slots_here(None, "H100:8") == Slots(8, "H100", 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with_program(tmp_path, monkeypatch)
    assert slots_here(None, None) == Slots(Local.of(RunFolder(tmp_path), EngineOptions()).workers)


def test_a_card_of_this_machine_that_nobody_knows_stops_no_dry_run(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_program(tmp_path, monkeypatch, "NVIDIA RTX A6000")
    done = dry_run(finished_run)
    assert done.exit_code == 0
    assert "NVIDIA RTX A6000: the plan does without it" in caplog.text
    assert "no GPU (simulated)" in done.stderr
    assert dry_run(finished_run, "--gpus", "A6000:1").exit_code == 3


def test_gpus_are_taken_by_nodes_of_eight() -> None:
    assert [node.gpus for node in Slots(64, "H100", 20).nodes] == [8, 8, 4]
    assert [node.gpus for node in Slots(3).nodes] == [0]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_rows_of_raw_files_are_counted_and_texts_sampled_from_all_over(suffix: str, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "id": range(6000),
            "language": ["en"] * 3000 + ["ja"] * 3000,
            "origin_query": ["red shoes"] * 3000 + ["赤い靴"] * 3000,
            "item_title": "a title",
            "label": 1,
        }
    )
    path = tmp_path / f"train_QI{suffix}"
    if suffix == ".txt":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows.to_dict("records")), encoding="utf-8")
    elif suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    settings = RunSettings(data=str(tmp_path), tasks=("QI",), recipes=("lexical",))
    (work,) = workloads(RunFolder(tmp_path / "run"), settings)
    assert (work.n_train, work.n_unseen) == (6000, 0)
    assert work.query_tokens == pytest.approx((9 * 0.28 + 3 * 0.70) / 2, rel=0.05)
    assert work.target_tokens == pytest.approx(7 * 0.28)
    (few,) = workloads(RunFolder(tmp_path / "run"), settings.model_copy(update={"limit": 100}))
    assert few.n_train == 100
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_of_a_file_that_splits_share_only_the_rows_of_a_split_count(suffix: str, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "example_id": range(100),
            "query": "red shoes",
            "item": "a title",
            "label": 1,
            "split": ["train"] * 70 + ["test"] * 30,
            "small_version": [1, 0] * 50,
        }
    )
    if suffix == ".csv":
        rows.to_csv(tmp_path / "all.csv", index=False)
    else:
        rows.to_parquet(tmp_path / "all.parquet", index=False)
    contest = tmp_path / "shared.toml"
    contest.write_text(
        f"""name = "shared"
about = "Both splits in one file"
[tasks.T]
[tasks.T.files]
train = "all{suffix}"
test = "all{suffix}"
[tasks.T.filters]
all = {{ small_version = 1 }}
train = {{ split = "train" }}
test = {{ split = "test" }}
[tasks.T.columns]
id = "example_id"
query = "query"
target = "item"
language_is = "en"
label = "label"
[tasks.T.submission]
csv = "submission.csv"
""",
        encoding="utf-8",
    )
    settings = RunSettings(data=str(tmp_path), tasks=("T",), recipes=("lexical",), competition=str(contest))
    (work,) = workloads(RunFolder(tmp_path / "run"), settings)
    assert (work.n_train, work.n_unseen) == (35, 15)


def test_tokens_of_prompts_and_views() -> None:
    english = replace(WORK, english_tokens=5.0)
    both = load_recipe("gemma-3-12b")
    assert WORK.tokens(both) == 6 + 20 + 3
    assert english.tokens(both) == 6 + 5 + 20 + 3
    assert WORK.tokens(load_recipe("gemma-3-12b-yesno")) > 50
    assert replace(WORK, target_tokens=500.0).tokens(both) == 96


def test_the_dry_run_prints_jobs_sums_and_wall_time(half_done: RunFolder, finished_run: Path) -> None:
    shutil.copytree(finished_run.parent / "data", half_done.root.parent / "data")
    before = sorted(half_done.root.rglob("*"))
    done = dry_run(half_done.root, "--format", "json", "--rates-from", finished_run)
    lines = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {"job", "state", "hours", "gpu_hours", "disk_gb", "memory_gib", "gpu_gib", "basis"} == set(lines[0])
    assert [line["job"] for line in lines if line["state"] == "to do"] == [
        "train QI/lexical/fold-1",
        "stack QI",
        "blend QI",
        "leaderboard",
        "submit",
    ]
    assert "wall time" in done.stderr
    assert "1 workers, no GPU" in done.stderr or gpu_names()
    assert sorted(half_done.root.rglob("*")) == before
    assert "8 x H100" in dry_run(half_done.root, "--gpus", "H100:8").stderr
    refused = dry_run(half_done.root, "--rates-from", half_done.root / "nothing")
    assert refused.exit_code == 3
    assert "is not a run folder" in refused.stderr


@pytest.mark.parametrize("gpus", ["H100:many", "H100:0", ":2", "Voodoo:1"])
def test_gpus_that_make_no_sense_are_refused(finished_run: Path, gpus: str) -> None:
    assert dry_run(finished_run, "--gpus", gpus).exit_code in (2, 3)


def test_gpus_of_this_machine_are_told_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = with_program(tmp_path, monkeypatch, "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    assert gpu_names() == ("NVIDIA H100 80GB HBM3",) * 2
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names() == ()
    program.unlink()
    assert gpu_names() == ()


def test_the_memory_table_is_a_command() -> None:
    done = CliRunner().invoke(main, ["memory", "--recipes", "gemma-3-12b", "--format", "json"])
    assert json.loads(done.stdout)[0]["smallest_card_gb"] == 40
