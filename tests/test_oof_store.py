"""The OOF store: written once, manifest last, joined by id, foreign and damaged parts refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.artefacts import MANIFEST, SCRATCH
from competition.errors import CompetitionError, MismatchError, MissingPartError
from oof.store import Origin, PartKey, PartManifest, PartStore

N_ROWS, N_FOLDS = 12, 3
FOLD = pd.Series(np.arange(N_ROWS) % N_FOLDS, dtype="int8", name="fold")
ROWS = {"train": pd.DataFrame({"id": np.arange(100, 100 + N_ROWS)}), "test": pd.DataFrame({"id": ["a", "b", "c"]})}
ORIGIN = Origin({"train": "r1", "test": "t1"}, "f1", {"kind": "lexical", "head": {"c": 1.0}}, 0)


def scores_of(ids: pd.Series, value: float) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "score": np.float32(value)})


def save_nothing(folder: Path) -> None:
    folder.mkdir(parents=True)


def write_part(store: PartStore, fold: int, *, origin: Origin = ORIGIN, oof: pd.DataFrame | None = None) -> Path:
    manifest = PartManifest("QC", "a", fold, origin, 4, 7, 1.0, 0.5, "cpu", {"python": "3"})
    own = ROWS["train"]["id"][fold == FOLD].sample(frac=1, random_state=fold)
    scores = {
        "oof": scores_of(own, 0.1 * (fold + 1)) if oof is None else oof,
        "test": scores_of(ROWS["test"]["id"][::-1], 0.3 * fold),
    }
    return store.write(manifest, scores, save_weights=save_nothing)


@pytest.fixture
def store(tmp_path: Path) -> PartStore:
    store = PartStore(tmp_path / "parts")
    for fold in range(N_FOLDS):
        write_part(store, fold)
    return store


def test_gather_gives_every_row_its_own_folds_score_by_id(store: PartStore) -> None:
    found = store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=ORIGIN)
    assert found.scores["train"] == pytest.approx(0.1 * (FOLD.to_numpy() + 1))
    assert found.scores["test"] == pytest.approx([0.3, 0.3, 0.3])
    assert found.rows_per_second == pytest.approx(14)


def test_a_missing_part_is_named_with_its_command(store: PartStore) -> None:
    (store.folder(PartKey("QC", "a", 1)) / MANIFEST).unlink()
    with pytest.raises(MissingPartError, match="relstack train --task QC --model a --fold 1"):
        store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=ORIGIN)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"folds": "f2"}, "folds"), ({"rows": {"train": "r2", "test": "t1"}}, "rows.train"), ({"seed": 1}, "seed")],
)
def test_a_part_of_other_rows_folds_or_seed_is_refused(store: PartStore, change: dict[str, object], named: str) -> None:
    with pytest.raises(MismatchError, match=named):
        store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=replace(ORIGIN, **change))


def test_parts_of_two_recipes_do_not_meet(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    for fold in range(N_FOLDS):
        recipe = {"kind": "lexical", "head": {"c": 1.0 if fold else 2.0}}
        write_part(store, fold, origin=replace(ORIGIN, recipe=recipe))
    with pytest.raises(MismatchError, match=r"head\.c"):
        store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=ORIGIN)


def test_rows_that_are_missing_or_foreign_are_named(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    wrong = scores_of(pd.Series([100, 103, 106, 999]), 0.5)
    for fold in range(N_FOLDS):
        write_part(store, fold, oof=wrong if fold == 0 else None)
    with pytest.raises(MismatchError) as error:
        store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=ORIGIN)
    assert "109" in str(error.value)
    assert "999" in str(error.value)


def test_a_finished_part_is_written_once(store: PartStore) -> None:
    with pytest.raises(MismatchError, match="written once"):
        write_part(store, 0)


@pytest.mark.parametrize("score", [np.nan, 1.5, -0.1])
def test_unusable_scores_leave_no_part(tmp_path: Path, score: float) -> None:
    store = PartStore(tmp_path)
    with pytest.raises(CompetitionError, match="unusable"):
        write_part(store, 0, oof=scores_of(ROWS["train"]["id"][FOLD == 0], score))
    assert not store.is_finished(PartKey("QC", "a", 0))
    assert not list(tmp_path.rglob("*.parquet"))


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    twice = scores_of(pd.Series([100, 100, 103, 106]), 0.5)
    with pytest.raises(CompetitionError, match="repeated"):
        write_part(PartStore(tmp_path), 0, oof=twice)


def test_a_changed_score_file_is_found_out(store: PartStore) -> None:
    path = store.folder(PartKey("QC", "a", 2)) / "oof.parquet"
    frame = pd.read_parquet(path)
    frame.assign(score=np.float32(0.9)).to_parquet(path, index=False)
    with pytest.raises(CompetitionError, match="damaged"):
        store.gather("QC", "a", rows=ROWS, fold=FOLD, origin=ORIGIN)


def test_checkpoints_do_not_outlive_the_part(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    checkpoint = store.workdir(PartKey("QC", "a", 0)) / SCRATCH / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    folder = write_part(store, 0)
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "oof.parquet", "test.parquet", "weights"]


def test_an_unfinished_part_does_not_exist(tmp_path: Path) -> None:
    store = PartStore(tmp_path)

    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    manifest = PartManifest("QC", "a", 0, ORIGIN, 4, 7, 1.0, 0.5, "cpu", {})
    with pytest.raises(KeyboardInterrupt):
        store.write(manifest, {"oof": scores_of(ROWS["train"]["id"][FOLD == 0], 0.5)}, save_weights=die)
    assert not store.is_finished(PartKey("QC", "a", 0))
    assert store.learners("QC") == []
    write_part(store, 0)
    assert store.is_finished(PartKey("QC", "a", 0))
