from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from competition.errors import CompetitionError, MismatchError
from competition.tasks import QC, QI
from submissions.build import Submission
from submissions.compare import compare, read_predictions
from submissions.write import write_submission

RNG = np.random.default_rng(5)
N_ROWS = 300
ROWS = pd.DataFrame(
    {
        "id": RNG.permutation(N_ROWS),
        "language": RNG.choice(["en", "ja", "th"], N_ROWS),
        "label": pd.array(RNG.integers(0, 2, N_ROWS), dtype="Int8"),
        "raw_query": "q",
        "raw_target": "t",
    }
)


def predictions(seed: int) -> pd.Series:
    values = np.random.default_rng(seed).integers(0, 2, N_ROWS).astype(np.int8)
    return pd.Series(values, index=pd.Index(ROWS["id"], name="id"), name="prediction")


A, B = predictions(1), predictions(2)


def test_a_comparison_counted_by_hand() -> None:
    rows = pd.DataFrame({"id": ["a", "b", "c"], "language": ["ko", "en", "ko"], "label": [1, 1, 0]})
    one = pd.Series([1, 0, 1], index=["a", "b", "c"])
    two = pd.Series([1, 1, 0], index=["a", "b", "c"])
    table = compare(one, two, rows).set_index("language")
    assert table.index.tolist() == ["all", "en", "ko"]
    assert table["differing"].tolist() == [2, 1, 1]
    assert table["share_differing"].tolist() == [2 / 3, 1.0, 0.5]
    assert table.loc["all", "f1_a"] == 0.5
    assert table.loc["all", "f1_b"] == 1.0
    assert table.loc["en", "f1_a"] == 0.0


def test_kappa_and_f1_agree_with_scikit_learn() -> None:
    table = compare(A, B, ROWS).set_index("language")
    for language in ("all", "en", "ja", "th"):
        part = ROWS if language == "all" else ROWS[ROWS["language"] == language]
        a, b, label = A[part["id"]], B[part["id"]], part["label"].astype(int)
        assert table.loc[language, "rows"] == len(part)
        assert table.loc[language, "kappa"] == pytest.approx(cohen_kappa_score(a, b))
        assert table.loc[language, "f1_a"] == pytest.approx(f1_score(label, a))
        assert table.loc[language, "f1_b"] == pytest.approx(f1_score(label, b))
        assert table.loc[language, "positive_rate_b"] == pytest.approx(b.mean())


def test_the_order_of_rows_changes_nothing() -> None:
    shuffled = compare(A.sample(frac=1, random_state=1), B.sort_index(), ROWS.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(compare(A, B, ROWS), shuffled)


def test_f1_counts_only_rows_that_have_a_label() -> None:
    partly = ROWS.assign(label=ROWS["label"].where(ROWS["language"] == "en"))
    table = compare(A, B, partly).set_index("language")
    part = ROWS[ROWS["language"] == "en"]
    assert table.loc["all", "labelled"] == len(part)
    assert table.loc["all", "f1_a"] == pytest.approx(f1_score(part["label"].astype(int), A[part["id"]]))
    assert table.loc["en", "f1_a"] == table.loc["all", "f1_a"]
    assert np.isnan(table.loc["th", "f1_a"])


@pytest.mark.parametrize("label", [None, pd.NA])
def test_without_labels_there_is_no_f1(label: object) -> None:
    rows = ROWS.drop(columns="label") if label is None else ROWS.assign(label=pd.array([pd.NA] * N_ROWS, dtype="Int8"))
    assert "f1_a" not in compare(A, B, rows)


def test_one_class_throughout_has_no_kappa() -> None:
    assert compare(A * 0, A * 0, ROWS)["kappa"].isna().all()
    assert compare(A, A, ROWS)["kappa"].tolist() == [1.0] * 4


def test_ids_that_differ_are_named() -> None:
    missing, extra = int(A.index[0]), pd.concat([B, pd.Series([1], index=[9_999])])
    with pytest.raises(MismatchError) as caught:
        compare(A.drop(missing), extra, ROWS)
    assert [str(fault) for fault in caught.value.faults] == [
        f"a, id {missing}: is missing",
        "b, id 9999: is not an id of the rows",
    ]
    with pytest.raises(MismatchError, match="is repeated"):
        compare(pd.concat([A, A.head(1)]), B, ROWS)


def test_a_csv_of_text_ids_that_look_like_numbers_can_be_compared(tmp_path: Path) -> None:
    rows = ROWS.assign(id=ROWS["id"].astype("str"))
    texts = A.set_axis(A.index.astype("str"))
    files = write_submission(tmp_path / "first", [Submission(QC, texts)], {"QC": rows}, manifest={})
    assert compare(read_predictions(files.csvs["QC"], QC), texts, rows)["differing"].tolist() == [0] * 4


def test_one_tasks_predictions_are_read_from_a_zip_of_two(tmp_path: Path) -> None:
    both = [Submission(QC, A), Submission(QI, B)]
    files = write_submission(tmp_path / "first", both, {"QC": ROWS, "QI": ROWS}, manifest={})
    for path in (files.folder, files.zip, files.texts["QI"], files.csvs["QI"]):
        pd.testing.assert_series_equal(read_predictions(path, QI), B)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "id,prediction\n1,0\n1,1\n", r"a\.csv:3, id '1': is repeated"),
        ("a.csv", "id,prediction\n1,maybe\n", "prediction is 'maybe'"),
        ("a.txt", '{"id":1}\n', "key 'prediction' is missing"),
        ("a.zip", "no zip", "unreadable"),
        ("b.csv", "", "the header is"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CompetitionError, match=expected):
        read_predictions(tmp_path / name, QC)
    with pytest.raises(CompetitionError):
        read_predictions(tmp_path, QC)


def test_ids_of_two_kinds_in_one_file_are_refused(tmp_path: Path) -> None:
    line = '{"id":%s,"language":"en","origin_query":"q","category_path":"c","prediction":1}\n'
    (tmp_path / "a.txt").write_text(line % "1" + line % '"1"')
    with pytest.raises(CompetitionError, match="some are text"):
        read_predictions(tmp_path / "a.txt", QC)
