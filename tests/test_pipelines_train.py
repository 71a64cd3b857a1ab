"""One job, one part: what the backbone is given, what the part records, and what is never done twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pipelines.backbones
from competition.errors import CompetitionError, MismatchError
from competition.sample import write_sample
from competition.tasks import Task
from oof.store import PartKey
from pipelines.backbones.lexical import Lexical
from pipelines.config import recipe_path, recipe_values
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.steps import train_folds
from pipelines.train import job_table, part_keys, record_recipes, train

KEY = PartKey("QI", "lexical", 1)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    write_sample(tmp_path / "data", n_train=120, n_dev=30, n_test=30, tasks=("QI",))
    folder = RunFolder(tmp_path / "run")
    prepare(folder, RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3, recipes=("lexical",)))
    split(folder)
    folder.add_recipes(["lexical"], ["lexical:head.rounds=5"])
    return folder


class Watched(Lexical):
    """The lexical base learner, which writes down what it is given."""

    given: list[tuple[str, pd.DataFrame]] = []  # noqa: RUF012

    def fit(self, train: pd.DataFrame, task: Task) -> "Watched":
        self.given.append(("fit", train))
        return super().fit(train, task)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        self.given.append(("predict", rows))
        return super().predict(rows, task)


def test_held_out_rows_never_reach_fit_and_labels_never_predict(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    train(run, KEY)
    rows = run.rows("QI")["train"]
    held_out = set(rows["id"][(run.folds("QI").align(rows) == KEY.fold).to_numpy()])
    fitted = [frame for what, frame in Watched.given if what == "fit"]
    scored = [frame for what, frame in Watched.given if what == "predict"]
    assert [set(frame["id"]) for frame in fitted] == [set(rows["id"]) - held_out]
    groups = run.folds("QI").groups_of(rows).set_axis(rows["id"])
    assert (fitted[0].set_index("id")["group"] == groups[fitted[0]["id"]]).all()
    assert set(scored[0]["id"]) == held_out
    assert len(scored) == 3
    assert not any("label" in frame for frame in scored)


def test_withheld_rows_never_reach_fit_and_the_part_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(tmp_path / "data", n_train=300, n_dev=30, n_test=30, tasks=("QC",))
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(tmp_path / "data"), tasks=("QC",), folds=3, plan="test-matched"))
    folds = split(run)["QC"]
    run.add_recipes(["lexical"], ["lexical:head.rounds=5"])
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    key = PartKey("QC", "lexical", 1)
    train(run, key)
    rows = run.rows("QC")["train"]
    fitted = [frame for what, frame in Watched.given if what == "fit"]
    scored = [frame for what, frame in Watched.given if what == "predict"]
    held_out = set(rows["id"][(folds.align(rows) == 1).to_numpy()])
    assert [set(frame["id"]) for frame in fitted] == [set(rows["id"][folds.training_rows(1, rows)])]
    assert set(scored[0]["id"]) == held_out
    withheld = len(rows) - len(held_out) - len(fitted[0])
    assert run.parts.manifest(key).details["rows_withheld"] == folds.n_withheld(1) == withheld > 0


def test_a_part_records_what_it_was_made_from(run: RunFolder) -> None:
    train(run, KEY)
    manifest = run.parts.manifest(KEY)
    assert manifest.origin == run.origin("QI", recipe_values(run.recipe("lexical")))
    assert manifest.origin.recipe["head"]["rounds"] == 5
    assert manifest.n_scored == manifest.n_oof + 60
    assert manifest.rows_per_second > 0
    assert manifest.details["rows_withheld"] == 0
    assert "torch" in manifest.versions


def test_the_same_seed_gives_the_same_part(run: RunFolder, tmp_path: Path) -> None:
    scores = []
    for _ in range(2):
        folder = train(run, KEY)
        scores.append({name: (folder / f"{name}.parquet").read_bytes() for name in ("oof", "dev", "test")})
        folder.rename(tmp_path / f"moved-{len(scores)}")
    assert scores[0] == scores[1]


def test_a_finished_part_is_left_alone_and_a_changed_recipe_refused(run: RunFolder) -> None:
    folder = train(run, KEY)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert train(run, KEY) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    run.add_recipes([], ["lexical:head.rounds=6"])
    with pytest.raises(MismatchError, match=r"recipe\.head\.rounds"):
        train(run, KEY)


def test_a_fold_that_is_not_there_is_refused(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="no fold 3"):
        train(run, PartKey("QI", "lexical", 3))


def test_recipes_that_cannot_serve_a_task_have_no_parts(run: RunFolder) -> None:
    train(run, KEY)
    assert part_keys(run, ["QI"], ["lexical", "e5-tree"]) == [PartKey("QI", "lexical", fold) for fold in range(3)]
    assert job_table(run)["folds_to_do"].tolist() == ["0,2"]


def test_a_recipe_that_cannot_be_is_not_recorded(run: RunFolder) -> None:
    before = run.settings_file.read_bytes()
    for model, override in (("lexical", "head.roundz=3"), ("lexcal", "head.rounds=3")):
        with pytest.raises(CompetitionError, match=model):
            list(train_folds(run, "QI", model, overrides=[override]))
    assert run.settings_file.read_bytes() == before


def test_an_override_of_one_base_learner_leaves_the_others_alone(run: RunFolder) -> None:
    list(train_folds(run, "QI", "lexical", fold=0, overrides=["head.rounds=4"]))
    assert run.settings().overrides == ("lexical:head.rounds=5", "lexical:head.rounds=4")


def test_what_contradicts_finished_parts_is_not_recorded(run: RunFolder, tmp_path: Path) -> None:
    train(run, KEY)
    before = run.settings_file.read_bytes()
    with pytest.raises(MismatchError, match=r"head\.rounds"):
        list(train_folds(run, "QI", "lexical", fold=0, overrides=["head.rounds=7"]))
    with pytest.raises(MismatchError, match=r"head\.rounds"):
        record_recipes(run, ["lexical-linear"], ["head.rounds=7"])
    other = tmp_path / "lexical.toml"
    other.write_text(recipe_path("lexical").read_text("utf-8"), "utf-8")
    with pytest.raises(CompetitionError, match="two recipes have one name"):
        list(train_folds(run, "QI", str(other), fold=0))
    assert run.settings_file.read_bytes() == before


def test_a_recipe_file_that_is_gone_is_read_from_the_run(run: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(recipe_path("lexical").read_text("utf-8"), "utf-8")
    list(train_folds(run, "QI", str(mine), fold=0, overrides=["head.rounds=4"]))
    recipe = run.recipe("mine")
    mine.unlink()
    assert run.recipe("mine") == recipe
    assert job_table(run)["model"].tolist() == ["lexical", "mine"]
