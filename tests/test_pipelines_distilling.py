"""Students: what they learn from, what is recorded, and that labels of dev decide nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import pipelines.backbones
from competition.errors import CompetitionError, MismatchError
from competition.metrics import f1
from competition.sample import write_sample
from competition.tasks import QI, Task
from oof.store import PartKey
from oof.threshold import decide
from pipelines.backbones import load
from pipelines.backbones.lexical import Lexical
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.cli import main
from pipelines.distilling import Distillation, distil, distilled_table, student_decisions
from pipelines.ensembling import ensemble
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings, without_labels
from pipelines.teachers import taught_by
from pipelines.train import train

LEARNERS = ("lexical", "lexical-linear")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("world")
    write_sample(root / "data", n_train=400, n_dev=120, n_test=60, tasks=("QI",))
    run = RunFolder(root / "run")
    prepare(run, RunSettings(data=str(root / "data"), tasks=("QI",), folds=3, recipes=LEARNERS))
    split(run)
    run.add_recipes(["lexical"], ["lexical:head.rounds=30"])
    for learner in LEARNERS:
        for fold in range(3):
            train(run, PartKey("QI", learner, fold))
    ensemble(run, "QI", "stack")
    return run


@pytest.fixture
def run(world: RunFolder, tmp_path: Path) -> RunFolder:
    """The run, to do with as one likes."""
    shutil.copytree(world.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def asked(**changes: Any) -> Distillation:
    values: dict[str, Any] = {"task": "QI", "student": "lexical", "name": "small", "ensemble": "stack"}
    return Distillation(**{**values, **changes})


class Watched(Lexical):
    """The lexical base learner, which writes down what it is given."""

    given: list[tuple[str, pd.DataFrame]] = []  # noqa: RUF012

    def fit(self, train: pd.DataFrame, task: Task) -> "Watched":
        self.given.append(("fit", train))
        return super().fit(train, task)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        self.given.append(("predict", rows))
        return super().predict(rows, task)


def test_a_student_learns_scores_and_labels_of_train_and_scores_of_the_rest(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    distil(run, asked(mix=0.25, splits=("test",)))
    taught, rows = taught_by(run, "QI", "stack"), run.rows("QI")
    fitted = next(frame for what, frame in Watched.given if what == "fit")
    own, extra = fitted[~fitted["extra"]], fitted[fitted["extra"]]
    assert own["id"].tolist() == rows["train"]["id"].tolist()
    mixed = 0.25 * taught.scores["train"] + 0.75 * rows["train"]["label"].to_numpy(dtype=float)
    np.testing.assert_allclose(own["soft_label"], mixed)
    assert extra["id"].tolist() == rows["test"]["id"].tolist()
    np.testing.assert_allclose(extra["soft_label"], taught.scores["test"])
    assert (fitted["weight"] == 1).all()
    assert not any("label" in frame for what, frame in Watched.given if what == "predict")


def test_without_a_share_of_the_teacher_it_is_plain_training_on_all_rows(run: RunFolder, tmp_path: Path) -> None:
    folder = distil(run, asked(mix=0, splits=()))
    rows = run.rows("QI")
    space = Workspace(tmp_path, tmp_path, Corpus.of(map(without_labels, rows.values())), 0, threads=1)
    plain = Lexical(run.recipe("lexical"), space).fit(rows["train"], QI).predict(rows["dev"], QI)  # type: ignore[arg-type]
    np.testing.assert_allclose(pd.read_parquet(folder / "dev.parquet")["score"], plain, atol=1e-7)


def test_the_weights_that_are_kept_give_the_scores_that_are_kept(run: RunFolder, tmp_path: Path) -> None:
    folder, rows = distil(run, asked()), run.rows("QI")
    space = Workspace(tmp_path, tmp_path, Corpus.of(map(without_labels, rows.values())), 0, threads=1)
    scores = load(folder / "weights", space).predict(without_labels(rows["test"]), QI)
    kept = pd.read_parquet(folder / "test.parquet")
    assert kept["id"].tolist() == rows["test"]["id"].tolist()
    np.testing.assert_allclose(kept["score"], scores, atol=1e-7)
    assert {path.name for path in folder.iterdir()} == {"weights", "dev.parquet", "test.parquet", "manifest.json"}


@pytest.mark.parametrize("name", ["stack", "lexical-linear"])
def test_a_teacher_is_an_ensemble_or_a_base_learner(run: RunFolder, name: str) -> None:
    table = distilled_table(run, "QI", distil(run, asked(ensemble=name)).name)
    assert table["name"].tolist() == [name, "small"]
    assert table["train_rows"].tolist() == [267, 580]
    dev = run.rows("QI")["dev"]
    labels = dev["label"].to_numpy(dtype=np.int8)
    taught = taught_by(run, "QI", name)
    gap = table["dev_f1"][1] - table["dev_f1"][0]
    assert table["dev_f1"][0] == pytest.approx(f1(labels, taught.decisions["dev"]))
    assert table["dev_f1"][1] == pytest.approx(f1(labels, student_decisions(run, "QI", "small", "dev")))
    assert table["difference"][1] == pytest.approx(gap)
    assert table["low"][1] <= gap <= table["high"][1]
    assert table["size_mb"][1] < table["size_mb"][0]


def test_a_student_repeats_what_it_was_taught(run: RunFolder) -> None:
    """Of rows that it has learnt from it says nearly what its teacher says; labels alone would not get it there."""
    taught = taught_by(run, "QI", "stack")
    errors, large = {}, ("lexical:head.rounds=300", "lexical:head.min_rows_per_leaf=5")
    for name, mix, splits in (("taught", 1.0, None), ("plain", 0.0, ())):
        folder = distil(run, asked(name=name, mix=mix, splits=splits), overrides=large)
        scores = pd.read_parquet(folder / "dev.parquet")["score"].to_numpy()
        errors[name] = float(np.abs(scores - taught.scores["dev"]).mean())
    assert errors["taught"] < 0.5 * errors["plain"]


def test_each_split_is_cut_where_the_teacher_expects_the_best_f1(run: RunFolder) -> None:
    folder = distil(run, asked(splits=("test",)))
    taught, thresholds = (
        taught_by(run, "QI", "stack"),
        json.loads((folder / "manifest.json").read_text("utf-8"))["thresholds"],
    )
    for name in ("dev", "test"):
        scores, expected = pd.read_parquet(folder / f"{name}.parquet")["score"].to_numpy(), taught.scores[name]

        def f1_at(cut: float, scores: np.ndarray = scores, expected: np.ndarray = expected) -> float:
            return float(2 * expected[scores >= cut].sum() / ((scores >= cut).sum() + expected.sum()))

        assert f1_at(thresholds[name]) == pytest.approx(max(map(f1_at, np.append(scores, 0.0))))


def test_the_same_is_left_alone_and_another_refused(run: RunFolder) -> None:
    folder = distil(run, asked())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert distil(run, asked()) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    for other in ({"mix": 0.7}, {"splits": ("dev",)}, {"ensemble": "lexical"}):
        with pytest.raises(MismatchError, match=rf"made differently[\s\S]*{next(iter(other))}"):
            distil(run, asked(**other))
    with pytest.raises(MismatchError, match="recipe"):
        distil(run, asked(), overrides=("lexical:head.leaves=7",))


def test_labels_of_dev_decide_nothing(run: RunFolder) -> None:
    first = distil(run, asked())
    kept = {name: (first / name).read_bytes() for name in ("dev.parquet", "test.parquet", "weights/head.txt")}
    thresholds = json.loads((first / "manifest.json").read_text("utf-8"))["thresholds"]
    file = run.rows_file("QI", "dev")
    rows = pd.read_parquet(file)
    rows.assign(label=1 - rows["label"]).to_parquet(file)
    for part in run.root.glob("parts/QI/*/fold-*/manifest.json"):  # else the run is refused as another one
        values = json.loads(part.read_text("utf-8"))
        values["origin"]["rows"] = dict(run.origin("QI", {}).rows)
        part.write_text(json.dumps(values), encoding="utf-8")
    again = distil(run, asked(name="again"))
    assert {name: (again / name).read_bytes() for name in kept} == kept
    assert json.loads((again / "manifest.json").read_text("utf-8"))["thresholds"] == thresholds


def test_without_dev_and_test_the_cut_is_that_of_train(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=150, n_dev=5, n_test=5, tasks=("QI",))
    for name in ("dev", "test"):
        (tmp_path / "data" / f"{name}_QI.txt").unlink()
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3))
    split(run)
    for fold in range(3):
        train(run, PartKey("QI", "lexical-linear", fold))
    folder = distil(run, asked(student="lexical-linear", ensemble="lexical-linear"))
    assert not list(folder.glob("*.parquet"))
    (cut,) = json.loads((folder / "manifest.json").read_text("utf-8"))["thresholds"].values()
    assert 0 < cut < 1
    assert "dev_f1" not in distilled_table(run, "QI", "small")


@pytest.mark.parametrize(
    ("changes", "overrides", "fault"),
    [
        ({"ensemble": "blend"}, (), "relstack ensemble make --name blend"),
        ({"ensemble": "e5-bi"}, (), "no base learner with all its parts"),
        ({"mix": 1.5}, (), "0 to 1"),
        ({"splits": ("later",)}, (), "later"),
        ({}, ("extra.pseudo=mine",), "extra: set"),
        ({"student": "e5-ce-joint"}, ("init_from=t",), r"init_from: set[\s\S]*joint: set"),
        ({"student": "e5-tree"}, (), "needs a category path"),
    ],
)
def test_what_cannot_be_is_refused(
    run: RunFolder, changes: dict[str, Any], overrides: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(CompetitionError, match=fault):
        distil(run, asked(**changes), overrides=overrides)
    assert not list(run.root.glob("students/*/*/manifest.json"))


def relstack(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def test_the_command_line_distils(run: RunFolder) -> None:
    done = relstack("distil", "--run", run.root, "--student", "lexical", "--splits", "none", "--format", "json")
    assert done.exit_code == 0, done.output
    (lines,) = json.loads(done.stdout).values()
    assert [line["name"] for line in lines] == ["stack", "lexical"]
    scores = pd.read_parquet(run.student("QI", "lexical") / "test.parquet")["score"]
    manifest = json.loads((run.student("QI", "lexical") / "manifest.json").read_text("utf-8"))
    assert manifest["splits"] == []
    dev = student_decisions(run, "QI", "lexical", "dev")
    assert lines[1]["positive"] == pytest.approx(np.r_[dev, decide(scores, manifest["thresholds"]["test"])].mean())
