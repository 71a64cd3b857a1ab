"""Extra training rows: off by default and then nothing changes; held-out rows stay as they are; networks read them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import PATHS, make_rows, one_by_one

import pipelines.backbones
from competition.augmentation import SHOWN
from competition.errors import CompetitionError
from competition.sample import write_sample
from competition.tasks import QC, QI, Task
from oof.store import PartKey
from pipelines.augment_section import AugmentSection, TextAugmentSection
from pipelines.augmenting import augmented, neighbour_space
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.evaluation import carve
from pipelines.backbones.lexical import Lexical
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe, recipe_names, recipe_values
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.text import target_text
from pipelines.train import train

ROWS = make_rows(300, seed=0, targets=PATHS)
ROWS = ROWS.assign(group=ROWS["query"])
EVERYTHING = {"typos": 0.3, "casing": 0.2, "easy_negatives": 0.3, "hard_negatives": 0.3, "positive_rate": 0.4}


def test_with_everything_off_the_rows_are_the_very_same() -> None:
    assert augmented(ROWS, AugmentSection(), QC, seed=0) is ROWS
    assert augmented(ROWS, AugmentSection(typo_rate=0.9, hardness=0.1), QC, seed=0) is ROWS
    assert augmented(ROWS, TextAugmentSection(), QI, seed=0) is ROWS


@pytest.mark.parametrize("name", ["lexical", "e5-bi", "e5-tree", "e5-ce", "gemma-3-270m"])
def test_recipes_that_say_nothing_of_it_keep_their_digest(name: str) -> None:
    assert name in recipe_names()
    assert "augment" not in recipe_values(load_recipe(name))
    assert recipe_values(load_recipe(name, ["augment.typos=0.1"]))["augment"]["typos"] == 0.1


def test_suffixes_are_for_kinds_that_read_texts() -> None:
    assert load_recipe("e5-ce", ["augment.suffixes=0.2"])
    with pytest.raises(CompetitionError, match=r"augment\.suffixes"):
        load_recipe("lexical", ["augment.suffixes=0.2"])


@pytest.mark.parametrize("task", [QC, QI])
def test_own_rows_stay_and_extra_rows_follow_with_parent_and_group(task: Task) -> None:
    section = TextAugmentSection(**{**EVERYTHING, "positive_rate": None}, suffixes=0.3)
    rows = augmented(ROWS, section, task, seed=0)
    pd.testing.assert_frame_equal(rows[list(ROWS)][: len(ROWS)], ROWS)
    extra = rows[len(ROWS) :]
    assert rows["id"].is_unique
    assert len(extra) > 80
    groups = ROWS.set_index("id")["group"]
    np.testing.assert_array_equal(extra["group"], groups[extra["parent"]])
    assert (SHOWN in rows) == (task is QC)
    assert rows["label"].notna().all()
    pd.testing.assert_frame_equal(augmented(ROWS, section, task, seed=0), rows)


def test_the_rate_is_that_of_all_rows() -> None:
    rows = augmented(ROWS, AugmentSection(**EVERYTHING), QC, seed=0)
    assert abs(rows["label"].mean() - 0.4) < 0.01
    assert "weight" not in rows


def test_what_is_shown_is_what_networks_read() -> None:
    rows = augmented(ROWS, TextAugmentSection(suffixes=1.0), QC, seed=0)
    extra = rows[len(ROWS) :]
    assert target_text(rows, QC, "path")[: len(ROWS)].tolist() == ROWS["target"].tolist()
    assert target_text(extra, QC, "path").tolist() == extra[SHOWN].tolist()
    assert extra["target"].isin(PATHS).all()
    unmarked = pd.concat([rows, ROWS.assign(id=ROWS["id"] + 1000)], ignore_index=True)  # as rows of other sets come
    assert target_text(unmarked, QC, "leaf").notna().all()


def test_extra_rows_are_not_evaluated_on_nor_trained_on_with_their_parents_held_back() -> None:
    rows = augmented(ROWS, AugmentSection(typos=0.5, easy_negatives=0.5), QC, seed=0)
    trained, judged = carve(rows, 60, seed=0)
    assert judged["parent"].isna().all()
    assert len(judged)
    assert not set(judged["group"]) & set(trained["group"])
    assert trained["parent"].notna().any()
    assert not set(trained["parent"].dropna()) & set(judged["id"])


def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([ROWS]), seed=0, threads=1)


def test_neighbours_are_those_of_the_encoder_that_is_named(bert: Path, tmp_path: Path) -> None:
    section = AugmentSection(hard_negatives=1.0, hardness=1.0, neighbours={"name": str(bert)})  # type: ignore[arg-type]
    space = neighbour_space(section, workspace(tmp_path))
    assert space is not None
    assert neighbour_space(AugmentSection(hard_negatives=1.0), workspace(tmp_path)) is None
    assert neighbour_space(section.model_copy(update={"hard_negatives": 0.0}), workspace(tmp_path)) is None
    by_vectors = augmented(ROWS, section, QC, seed=0, space=space)
    by_letters = augmented(ROWS, section, QC, seed=0)
    assert len(by_vectors) == len(by_letters) > len(ROWS)
    assert by_vectors["target"].tolist() != by_letters["target"].tolist()


@pytest.mark.parametrize("view", ["ancestors", "siblings"])
def test_networks_learn_from_suffixes_and_read_what_surrounds_a_category(view: str, bert: Path, tmp_path: Path) -> None:
    sets = [f"weights.name={bert}", f"text.target={view}", "training.epochs=1", "training.learning_rate=1e-2"]
    recipe = load_recipe(
        "e5-ce", [*sets, "training.precision=fp32", "training.evaluate=1", "training.evaluate_rows=20"]
    )
    few = ROWS[:80]
    rows = augmented(few, TextAugmentSection(suffixes=0.9), QC, seed=0)
    fitted = [
        CrossEncoder(recipe, workspace(tmp_path / name)).fit(each, QC) for name, each in (("a", few), ("b", rows))
    ]  # type: ignore[arg-type]
    own, more = (model.predict(few, QC) for model in fitted)
    assert np.abs(own - more).max() > 1e-4
    np.testing.assert_allclose(one_by_one(fitted[1], few[:8], QC), more[:8], atol=1e-6)


class Watched(Lexical):
    """The lexical base learner, which writes down what it is given."""

    given: list[tuple[str, pd.DataFrame]] = []  # noqa: RUF012

    def fit(self, train: pd.DataFrame, task: Task) -> "Watched":
        self.given.append(("fit", train))
        return super().fit(train, task)

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        self.given.append(("predict", rows))
        return super().predict(rows, task)


def test_held_out_rows_are_neither_augmented_nor_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path / "data", n_train=150, n_dev=20, n_test=20, tasks=("QI",))
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(tmp_path / "data"), tasks=("QI",), folds=3, recipes=("lexical",)))
    split(run)
    overrides = [f"lexical:augment.{name}={value}" for name, value in EVERYTHING.items() if name != "positive_rate"]
    run.add_recipes(["lexical"], ["lexical:head.rounds=5", *overrides])
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    key = PartKey("QI", "lexical", 1)
    train(run, key)
    rows = run.rows("QI")["train"]
    held_out = rows[(run.folds("QI").align(rows) == 1).to_numpy()]
    (fitted,) = [frame for what, frame in Watched.given if what == "fit"]
    scored = [frame for what, frame in Watched.given if what == "predict"]
    assert set(scored[0]["id"]) == set(held_out["id"])
    assert all("parent" not in frame for frame in scored)
    extra = fitted[fitted["parent"].notna()]
    assert len(extra) > 20
    assert not set(extra["parent"]) & set(held_out["id"])
    assert set(fitted["id"]) - set(extra["id"]) == set(rows["id"]) - set(held_out["id"])
    own = rows[~rows["id"].isin(held_out["id"])]
    assert set(extra["target"]) <= set(own["target"])
    details = run.parts.manifest(key).details["augment"]
    assert details == {"rows": len(own), "became": len(fitted)}
