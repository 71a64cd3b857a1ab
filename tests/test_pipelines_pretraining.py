"""Pre-training: what is dropped, what the trail proves, how fold training begins from it, chains and joint training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from tiny import save_tiny

from competition.cleaning import normalise_query
from competition.errors import CompetitionError, MismatchError
from competition.leaks import shares_query
from competition.sample import write_sample
from oof.store import PartKey
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.cli import main
from pipelines.engine import unfinished
from pipelines.engines.here import Here
from pipelines.jobs import job_graph
from pipelines.prepare import prepare, split
from pipelines.pretraining import Pretraining, find_pretrained, held_out_rows, pretrain
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scheduling import work_off
from pipelines.train import train

SHORT = ["training.epochs=1", "training.batch_size=16", "training.learning_rate=1e-3"]
ON_QI = Pretraining("tapt", task="QC", on="QI", recipe="e5-ce")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample competition in which some QI queries are QC queries too."""
    folder = tmp_path_factory.mktemp("data") / "data"
    write_sample(folder, n_train=150, n_dev=20, n_test=20)
    categories = [json.loads(line) for line in (folder / "train_QC.txt").read_text("utf-8").splitlines()]
    titles = [json.loads(line) for line in (folder / "train_QI.txt").read_text("utf-8").splitlines()]
    for i in range(0, 60, 3):
        for name in ("origin_query", "language"):
            titles[i][name] = categories[i][name]
    lines = [json.dumps(row, ensure_ascii=False) for row in titles]
    (folder / "train_QI.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def run(data: Path, bert: Path, tmp_path: Path) -> RunFolder:
    return make_run(data, bert, tmp_path / "run")


def make_run(data: Path, model: Path, folder: Path) -> RunFolder:
    run = RunFolder(folder)
    prepare(run, RunSettings(data=str(data), tasks=("QC", "QI"), folds=3, plan="query-group"))
    split(run)
    run.add_recipes(["e5-ce"], [f"e5-ce:{setting}" for setting in (f"weights.name={model}", *SHORT)])
    return run


def shared_with(run: RunFolder, fold: int | None) -> pd.Series:
    """Which QI training rows share a query with held-out QC rows, ids."""
    rows = run.rows("QI")["train"]
    known = {*map(normalise_query, held_out_rows(run, "QC", fold)["query"])}
    return rows["id"][rows["query"].map(normalise_query).isin(known)]


# As jobs of a run


def test_a_run_makes_the_weights_that_a_base_learner_begins_with(run: RunFolder, bert: Path) -> None:
    run.add_recipes(["e5-ce-tapt"], [f"e5-ce-tapt:{setting}" for setting in (f"weights.name={bert}", *SHORT)])
    jobs = unfinished(run, job_graph(run, ["QC"], ["e5-ce-tapt"]))
    first = [job for job in jobs if job.name in ("pretrain.QC.e5-ce-tapt", "train.QC.e5-ce-tapt.fold-0")]
    assert work_off(first, Here(run)) == ([], [])
    init = run.parts.manifest(PartKey("QC", "e5-ce-tapt", 0)).details["init"]
    assert init["digest"] == find_pretrained(run, "e5-ce-tapt", task="QC", fold=0).digest
    assert [job.name for job in unfinished(run, jobs)] == [job.name for job in jobs if job not in first]


def test_weights_that_no_job_makes_are_refused_before_work_begins(run: RunFolder) -> None:
    run.add_recipes([], ["e5-ce:init_from=mine"])
    with pytest.raises(CompetitionError, match="no pretrained weights for QC are called 'mine'"):
        unfinished(run, job_graph(run, ["QC"], ["e5-ce"]))


# Leaks


def test_rows_that_share_a_query_with_held_out_rows_are_dropped_and_counted(run: RunFolder) -> None:
    folder = pretrain(run, ON_QI)
    manifest = json.loads((folder / "manifest.json").read_text())
    trail, shared = find_pretrained(run, "tapt", task="QC", fold=0).trail, shared_with(run, None)
    assert manifest["dropped"] == {"by_id": 0, "by_query": len(shared)}
    assert len(shared) >= 20
    assert set(trail["id"]) == set(run.rows("QI")["train"]["id"]) - set(shared)
    assert not shares_query(trail, run.rows("QC")["train"]).any()


def test_on_its_own_task_a_fold_learns_no_more_than_its_training_rows(data: Path, bert: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(data), tasks=("QC",), folds=3, plan="test-matched"))
    folds = split(run)["QC"]
    run.add_recipes(["e5-ce"], [f"e5-ce:{setting}" for setting in (f"weights.name={bert}", *SHORT)])
    rows = run.rows("QC")["train"]
    assert folds.n_withheld(1) > 0
    pretrain(run, replace(ON_QI, on="QC", fold=1))
    trail = find_pretrained(run, "tapt", task="QC", fold=1).trail
    assert len(trail) > 0
    assert set(trail["id"]) <= set(rows["id"][folds.training_rows(1, rows)])


def test_for_one_fold_only_that_folds_queries_are_dropped(run: RunFolder) -> None:
    for fold in range(3):
        pretrain(run, replace(ON_QI, fold=fold))
    found = [find_pretrained(run, "tapt", task="QC", fold=fold) for fold in range(3)]
    assert len({one.digest for one in found}) == 1
    for fold, one in enumerate(found):
        assert set(run.rows("QI")["train"]["id"]) - set(one.trail["id"]) == set(shared_with(run, fold))
    with pytest.raises(CompetitionError, match="has weights for single folds"):
        pretrain(run, ON_QI)


def test_weights_that_saw_a_held_out_row_are_refused_by_fold_training(run: RunFolder) -> None:
    own = replace(ON_QI, name="own", on="QC", fold=0)
    trail = pd.read_parquet(pretrain(run, own) / "trail.parquet")
    assert not set(trail["id"]) & set(held_out_rows(run, "QC", 0)["id"])
    run.pretrained("QC", "own").joinpath("fold-0").rename(run.pretrained("QC", "own") / "fold-1")
    run.add_recipes([], ["e5-ce:init_from=own"])
    with pytest.raises(CompetitionError, match="rows that are held out"):
        train(run, PartKey("QC", "e5-ce", 1))
    assert not run.parts.is_finished(PartKey("QC", "e5-ce", 1))


def test_with_all_folds_held_out_nothing_of_the_own_task_is_left(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="0 rows are left to learn from"):
        pretrain(run, replace(ON_QI, on="QC"))


# Beginning from weights


def test_fold_training_begins_from_the_weights_and_the_part_says_so(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pretrain(run, ON_QI)
    run.add_recipes([], ["e5-ce:init_from=tapt", "e5-ce:training.learning_rate=1e-12", "e5-ce:training.warmup=0"])
    key = PartKey("QC", "e5-ce", 1)
    part = train(run, key)
    manifest = run.parts.manifest(key)
    assert manifest.details["init"]["name"] == "tapt"
    assert manifest.origin.recipe["init_digest"] == find_pretrained(run, "tapt", task="QC", fold=1).digest
    space = None
    first, later = (CrossEncoder.load(path / "weights", space) for path in (folder, part))  # type: ignore[arg-type]
    states = [model.model.state_dict() for model in (first, later)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        np.testing.assert_allclose(tensor.numpy(), states[1][name].numpy(), atol=1e-6, err_msg=name)


def test_a_chain_keeps_the_trail_of_every_step(run: RunFolder) -> None:
    pretrain(run, replace(ON_QI, name="first", fold=2))
    folder = pretrain(run, replace(ON_QI, name="second", on="QC", fold=2, parent="first"))
    trail = pd.read_parquet(folder / "trail.parquet")
    assert trail.groupby("step").size().to_dict() == {
        "first": len(find_pretrained(run, "first", task="QC", fold=2).trail),
        "second": int((~run.rows("QC")["train"]["id"].isin(held_out_rows(run, "QC", 2)["id"])).sum()),
    }
    run.add_recipes([], ["e5-ce:init_from=second"])
    train(run, PartKey("QC", "e5-ce", 2))


@pytest.mark.parametrize("kind", ["e5-ce", "gemma-3-12b", "gemma-3-270m-yesno"])
def test_adapters_and_heads_are_trained_further(kind: str, data: Path, gemma: Path, tmp_path: Path) -> None:
    run = make_run(data, gemma, tmp_path / "run")
    extra = ["training.lora.r=4"] if kind == "e5-ce" else []
    settings = [f"weights.name={gemma}", "training.precision=fp32", *SHORT, *extra]
    run.add_recipes([kind], [f"{kind}:{setting}" for setting in settings])
    folder = pretrain(run, replace(ON_QI, recipe=kind))
    run.add_recipes([], [f"{kind}:init_from=tapt"])
    key = PartKey("QC", kind, 0)
    part = train(run, key)
    first, later = (CrossEncoder.load(path / "weights", None).model.state_dict() for path in (folder, part))  # type: ignore[arg-type]
    moved = {name for name in first if not np.array_equal(first[name].numpy(), later[name].numpy())}
    assert any("lora_" in name for name in moved)
    assert run.parts.manifest(key).details["trainable_parameters"] > 0
    run.add_recipes([], [f"{kind}:training.lora.r=2"])
    with pytest.raises(CompetitionError, match=r"training\.lora"):
        train(run, PartKey("QC", kind, 1))


def test_missing_weights_name_the_command_that_makes_them(run: RunFolder) -> None:
    run.add_recipes([], ["e5-ce:init_from=absent"])
    with pytest.raises(CompetitionError, match="relstack pretrain"):
        train(run, PartKey("QC", "e5-ce", 0))


def test_finished_weights_are_left_alone_and_other_settings_refused(run: RunFolder) -> None:
    folder = pretrain(run, ON_QI)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert pretrain(run, ON_QI) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(MismatchError, match="recipe"):
        pretrain(run, ON_QI, overrides=["training.batch_size=8"])


def test_kinds_that_are_not_trained_end_to_end_are_refused(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="kind lexical"):
        pretrain(run, replace(ON_QI, recipe="lexical"))
    with pytest.raises(CompetitionError, match="not an encoder trained as a whole"):
        pretrain(run, replace(ON_QI, recipe="gemma-3-12b", objective="masked-lm"))


# Filling gaps


@pytest.mark.parametrize("kind", ["bert", "xlmr"])
def test_masked_language_modelling_learns_and_fold_training_begins_with_its_encoder(
    kind: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch
    from transformers import AutoModel

    model = save_tiny(tmp_path / kind, kind, mask=True)
    run = make_run(data, model, tmp_path / "run")
    folder = pretrain(run, replace(ON_QI, objective="masked-lm"))
    old, new = (AutoModel.from_pretrained(path) for path in (model, folder / "weights" / "encoder"))
    assert not torch.equal(old.get_input_embeddings().weight, new.get_input_embeddings().weight)
    run.add_recipes([], ["e5-ce:init_from=tapt", "e5-ce:training.learning_rate=1e-12"])
    part = train(run, PartKey("QC", "e5-ce", 0))
    trained = AutoModel.from_pretrained(part / "weights" / "model").get_input_embeddings().weight
    torch.testing.assert_close(trained, new.get_input_embeddings().weight)


# Joint training


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("e5-ce", "heads"),
        ("e5-ce-varlen", "heads"),
        ("e5-ce", "tag"),
        ("xlm-roberta-base", "tag"),
        ("gemma-3-270m-yesno", "tag"),
    ],
)
def test_joint_training_takes_the_other_tasks_rows_without_shared_queries(
    kind: str, mode: str, request: pytest.FixtureRequest, data: Path, tmp_path: Path
) -> None:
    model = request.getfixturevalue({"xlm-roberta-base": "xlmr", "gemma-3-270m-yesno": "gemma"}.get(kind, "bert"))
    run = make_run(data, model, tmp_path / "run")
    extra = ["text.template={query} {target} {kind}?"] if "yesno" in kind else []
    if kind.endswith("-varlen"):
        kind, extra = kind.removesuffix("-varlen"), ["training.attention=varlen"]
    settings = [f"weights.name={model}", f"joint={mode}", "training.precision=fp32", *SHORT, *extra]
    run.add_recipes([kind], [f"{kind}:{setting}" for setting in settings])
    key = PartKey("QC", kind, 1)
    part = train(run, key)
    manifest = run.parts.manifest(key)
    shared = len(shared_with(run, 1))
    assert manifest.details["joint"]["QI"] == {"rows": 150 - shared, "by_id": 0, "by_query": shared}
    assert set(manifest.origin.recipe["joint_rows"]) == {"QI"}
    rows, task = run.rows("QC")["dev"], run.tasks()[0]
    loaded = CrossEncoder.load(part / "weights", make_space(tmp_path, rows))
    stored = run.parts.read(key, "dev").reindex(rows["id"]).to_numpy()
    np.testing.assert_allclose(loaded.predict(rows.drop(columns="label"), task), stored, atol=1e-6)


def make_space(folder: Path, rows: pd.DataFrame) -> object:
    from pipelines.backbones.protocol import Corpus, Workspace

    return Workspace(folder, folder, Corpus.of([rows]), 0, threads=1)


def test_joint_settings_that_cannot_be_are_refused() -> None:
    from pipelines.config import load_recipe

    with pytest.raises(CompetitionError, match='needs pooling = "mean"'):
        load_recipe("xlm-roberta-base", ["joint=heads"])
    with pytest.raises(CompetitionError, match=r"needs \{kind\}"):
        load_recipe("gemma-3-270m-yesno", ["joint=tag"])


# The command


def test_the_command_pretrains_for_every_fold(run: RunFolder) -> None:
    words = ["pretrain", "--run", str(run.root), "--task", "QC", "--model", "e5-ce", "--every-fold"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert [Path(line).name for line in done.stdout.splitlines()] == ["fold-0", "fold-1", "fold-2"]
    assert CliRunner().invoke(main, [*words, "--fold", "1"]).exit_code == 2
    failed = CliRunner().invoke(main, [*words[:-1], "--on", "QX", "--name", "x"])
    assert failed.exit_code == 3
    assert "no task 'QX'" in failed.stderr
