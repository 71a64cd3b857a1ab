import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError, MismatchError
from competition.fold_store import Folds, digest_folds, load_folds, save_folds
from competition.folds import Dealt, FoldPlan
from competition.tasks import QC

QUERY = FoldPlan("query-group", n_splits=3)


def make_rows(n_rows: int) -> pd.DataFrame:
    """Rows of a category task, one category, queries of about four rows."""
    rng = np.random.default_rng(0)
    frame = {
        "id": pd.Series(rng.permutation(n_rows) + 1000),
        "language": pd.Series(["en"] * n_rows, dtype="str"),
        "query": pd.Series([f"query {q}" for q in rng.integers(0, n_rows // 4 + 1, n_rows)], dtype="str"),
        "target": pd.Series(["home,garden"] * n_rows, dtype="str"),
        "label": pd.Series(rng.integers(0, 2, n_rows), dtype="Int8"),
    }
    return pd.DataFrame(frame)


def save(folder: Path, rows: pd.DataFrame, plan: FoldPlan = QUERY, *, digest: str = "d1") -> Folds:
    dealt = Dealt(plan.assign(rows, QC), plan.group(rows, QC))
    return save_folds(folder, "plan", rows=rows, dealt=dealt, plan=plan, task=QC, rows_digest=digest)


@pytest.mark.parametrize("as_text", [False, True])
def test_saved_folds_come_back(tmp_path, as_text):
    rows = make_rows(200)
    if as_text:
        rows["id"] = rows["id"].astype("str")
    saved = save(tmp_path / "folds" / "QC", rows)
    loaded = load_folds(tmp_path / "folds" / "QC", "plan")
    assert (loaded.task, loaded.plan, loaded.rows_digest, loaded.digest) == ("QC", QUERY, "d1", saved.digest)
    assert loaded.ids.equals(rows["id"])
    assert loaded.fold.equals(QUERY.assign(rows, QC))
    assert loaded.group.equals(QUERY.group(rows, QC))


def test_nothing_but_the_two_files_is_left(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "plan.parquet"]
    manifest = json.loads((tmp_path / "plan.json").read_text())
    assert manifest["counts"]["rows"] == 200
    assert sum(manifest["counts"]["positives_per_fold"]) == (rows["label"] == 1).sum()


def test_saving_the_same_folds_again_writes_nothing(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    written = (tmp_path / "plan.parquet").stat().st_mtime_ns
    save(tmp_path, rows)
    assert (tmp_path / "plan.parquet").stat().st_mtime_ns == written


def test_other_folds_are_refused_with_the_difference_spelled_out(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    before = (tmp_path / "plan.parquet").read_bytes()
    with pytest.raises(MismatchError) as caught:
        save(tmp_path, rows[:150], dataclasses.replace(QUERY, seed=5), digest="d2")
    text = str(caught.value)
    assert "plan.seed: 5, saved 0" in text
    assert "rows_digest: d2, saved d1" in text
    assert f"50 of the saved folds are missing: id {rows['id'][150]}" in text
    assert (tmp_path / "plan.parquet").read_bytes() == before


def test_the_same_rows_in_another_order_are_refused(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    with pytest.raises(MismatchError, match="another order"):
        save(tmp_path, rows[::-1])


def test_a_changed_parquet_is_refused(tmp_path):
    save(tmp_path, make_rows(200))
    path = tmp_path / "plan.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    table.to_parquet(path, index=False)
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


def test_a_changed_plan_is_refused(tmp_path):
    save(tmp_path, make_rows(200))
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


@pytest.mark.parametrize("name", ["plan.json", "plan.parquet"])
def test_a_truncated_file_is_refused(tmp_path, name):
    save(tmp_path, make_rows(200))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


def test_folds_without_a_manifest_do_not_exist_and_may_be_written_anew(tmp_path):
    rows = make_rows(200)
    save(tmp_path, rows)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CompetitionError, match="no folds are saved"):
        load_folds(tmp_path, "plan")
    save(tmp_path, rows, dataclasses.replace(QUERY, seed=5))
    assert load_folds(tmp_path, "plan").plan.seed == 5


def test_align_finds_folds_by_id_not_by_place(tmp_path):
    rows = make_rows(200)
    saved = save(tmp_path, rows)
    shuffled = rows.sample(frac=1, random_state=2)
    assert saved.align(shuffled).equals(QUERY.assign(rows, QC)[shuffled.index])


def test_align_names_rows_without_a_fold_and_folds_without_a_row(tmp_path):
    rows = make_rows(200)
    saved = save(tmp_path, rows)
    other = rows[1:].assign(id=rows["id"].where(rows["id"] != rows["id"][9], 5))
    with pytest.raises(MismatchError) as caught:
        saved.align(other)
    text = str(caught.value)
    assert "1 are not in the saved folds: id 5" in text
    assert f"2 of the saved folds are missing: id {rows['id'][0]}, {rows['id'][9]}" in text


def test_a_group_in_two_folds_is_refused(tmp_path):
    rows = make_rows(200)
    folds = pd.Series(np.arange(200) % 3, index=rows.index, name="fold").astype("int8")
    dealt = Dealt(folds, QUERY.group(rows, QC))
    with pytest.raises(CompetitionError, match="span several folds"):
        save_folds(tmp_path, "plan", rows=rows, dealt=dealt, plan=QUERY, task=QC, rows_digest="d1")
    assert list(tmp_path.iterdir()) == []


def test_digest_sees_the_type_of_an_id():
    fold, group = pd.Series([0], dtype="int8"), pd.Series(["a"], dtype="str")
    digests = {digest_folds(QUERY, ids=pd.Series([one]), fold=fold, group=group) for one in (1, "1")}
    assert len(digests) == 2


def save_withheld(folder: Path, rows: pd.DataFrame, *, seed: int = 3) -> Folds:
    fold = QUERY.assign(rows, QC)
    drawn = np.random.default_rng(seed).random((len(rows), 3)) < 0.2
    withheld = drawn & (fold.to_numpy()[:, None] != np.arange(3))
    dealt = Dealt(fold, QUERY.group(rows, QC), withheld)
    return save_folds(folder, "plan", rows=rows, dealt=dealt, plan=QUERY, task=QC, rows_digest="d1")


def test_withheld_rows_come_back_and_count(tmp_path):
    rows = make_rows(200)
    saved, loaded = save_withheld(tmp_path, rows), load_folds(tmp_path, "plan")
    assert loaded.digest == saved.digest
    assert (loaded.withheld == saved.withheld).all()
    manifest = json.loads((tmp_path / "plan.json").read_text())
    assert manifest["counts"]["withheld_per_fold"] == [saved.n_withheld(fold) for fold in range(3)]
    assert min(manifest["counts"]["withheld_per_fold"]) > 0


def test_training_rows_are_neither_held_out_nor_withheld_whatever_the_order(tmp_path):
    rows = make_rows(200)
    saved, shuffled = save_withheld(tmp_path, rows), rows.sample(frac=1, random_state=2)
    for fold in range(3):
        expected = (saved.fold != fold).to_numpy() & ~saved.withheld[:, fold]
        assert set(shuffled["id"][saved.training_rows(fold, shuffled)]) == set(rows["id"][expected])
        assert saved.n_withheld(fold) + expected.sum() + (saved.fold == fold).sum() == len(rows)
    with pytest.raises(CompetitionError, match="no fold 3"):
        saved.training_rows(3, rows)
    with pytest.raises(MismatchError):
        saved.training_rows(0, rows[1:])


def test_folds_that_withhold_nothing_train_on_all_other_rows(tmp_path):
    rows = make_rows(200)
    saved = save(tmp_path, rows)
    assert (saved.training_rows(1, rows) == (saved.fold != 1).to_numpy()).all()
    assert saved.n_withheld(1) == 0


def test_other_withheld_rows_are_other_folds(tmp_path):
    rows = make_rows(200)
    first = save_withheld(tmp_path, rows)
    with pytest.raises(MismatchError, match="withheld elsewhere"):
        save_withheld(tmp_path, rows, seed=4)
    with pytest.raises(MismatchError, match="withheld elsewhere"):
        save(tmp_path, rows)
    assert first.digest != save(tmp_path / "plain", rows).digest


def test_a_changed_withheld_row_is_refused(tmp_path):
    save_withheld(tmp_path, make_rows(200))
    path = tmp_path / "plan.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "withheld_1"] = not table.loc[0, "withheld_1"]
    table.to_parquet(path, index=False)
    with pytest.raises(CompetitionError, match="damaged"):
        load_folds(tmp_path, "plan")


def test_the_digest_of_plans_that_withhold_nothing_is_what_it_was():
    ids, fold, group = pd.Series([7, 8]), pd.Series([0, 1], dtype="int8"), pd.Series(["a", "b"], dtype="str")
    plan = FoldPlan("query-group", n_splits=5, seed=0, depth=3)
    assert digest_folds(plan, ids=ids, fold=fold, group=group) == "0f099713002a6db3"
