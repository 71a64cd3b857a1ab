import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError
from competition.tasks import QC, QI, Task
from submissions.build import Submission, cut
from submissions.compare import read_predictions
from submissions.validate import validate_files
from submissions.write import write_submission


def make_rows(ids: list[int] | list[str], texts: list[tuple[str, str, str | None]]) -> pd.DataFrame:
    languages, queries, targets = zip(*texts, strict=True)
    kind = "int64" if isinstance(ids[0], int) else "str"
    return pd.DataFrame(
        {
            "id": pd.Series(ids, dtype=kind),
            "language": pd.Series(languages, dtype="str"),
            "raw_query": pd.Series(queries, dtype="str"),
            "raw_target": pd.Series(targets, dtype="str"),
        }
    )


ROWS = make_rows([3, 1, 2], [("en", "pan", "home,kitchen"), ("ko", "수건", None), ("vn", 'a "b"\\', "x\n")])


def submission(task: Task = QC, values: tuple[int, ...] = (1, 0, 1)) -> Submission:
    return Submission(task, pd.Series(np.array(values, dtype=np.int8), index=[3, 1, 2]))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_files_are_in_the_competitions_form(tmp_path: Path) -> None:
    files = write_submission(
        tmp_path / "first", [submission(), submission(QI)], {"QC": ROWS, "QI": ROWS}, manifest={"seed": 7}
    )
    assert files.texts["QC"].read_text(encoding="utf-8").split("\n") == [
        '{"id":3,"language":"en","origin_query":"pan","category_path":"home,kitchen","prediction":1}',
        '{"id":1,"language":"ko","origin_query":"수건","category_path":null,"prediction":0}',
        '{"id":2,"language":"vn","origin_query":"a \\"b\\"\\\\","category_path":"x\\n","prediction":1}',
        "",
    ]
    assert '"item_title":null' in files.texts["QI"].read_text(encoding="utf-8")
    assert files.csvs["QC"].read_bytes() == b"id,prediction\n3,1\n1,0\n2,1\n"
    with zipfile.ZipFile(files.zip) as archive:
        assert archive.namelist() == ["submit_QC.txt", "submit_QI.txt"]
        assert archive.read("submit_QI.txt") == files.texts["QI"].read_bytes()


def test_the_manifest_names_every_file_with_its_digest(tmp_path: Path) -> None:
    made = cut(QC, ROWS["id"], [0.5, 0.1, 0.9], 0.45)
    files = write_submission(tmp_path / "first", [made], {"QC": ROWS}, manifest={"seed": 7}, train_rates={"QC": 0.1})
    manifest = json.loads(files.manifest.read_text())
    assert manifest["seed"] == 7
    assert manifest["tasks"] == {"QC": {"rows": 3, "positive_rate": 2 / 3, "threshold": 0.45}}
    assert set(manifest["files"]) == set(snapshot(files.folder)) - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((files.folder / name).read_bytes()).hexdigest()


def test_the_same_predictions_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    shuffled = Submission(QC, submission().predictions.iloc[[2, 0, 1]])
    first = write_submission(tmp_path / "first", [submission()], {"QC": ROWS}, manifest={})
    second = write_submission(tmp_path / "second", [shuffled], {"QC": ROWS}, manifest={})
    assert snapshot(first.folder) == snapshot(second.folder)
    with zipfile.ZipFile(first.zip) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_is_written_when_a_submission_is_faulty(tmp_path: Path) -> None:
    faulty = [submission(values=(1, 0, 2)), Submission(QI, submission().predictions.drop(3))]
    with pytest.raises(CompetitionError) as caught:
        write_submission(tmp_path / "first", faulty, {"QC": ROWS, "QI": ROWS}, manifest={})
    assert {fault.where for fault in caught.value.faults} == {"QC, id 2", "QI, id 3"}
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_writing_fails_midway(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_submission(tmp_path / "first", [submission()], {"QC": ROWS}, manifest={"odd": object()})
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    write_submission(folder, [submission()], {"QC": ROWS}, manifest={})
    before = snapshot(folder)
    other = submission(values=(0, 0, 1))
    with pytest.raises(CompetitionError, match="is there already"):
        write_submission(folder, [other], {"QC": ROWS}, manifest={})
    assert snapshot(folder) == before
    write_submission(folder, [other], {"QC": ROWS}, manifest={}, replace=True)
    assert read_predictions(folder, QC).to_dict() == {3: 0, 1: 0, 2: 1}
    assert [file.name for file in tmp_path.iterdir()] == ["first"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    with pytest.raises(CompetitionError, match=r"thesis\.tex"):
        write_submission(tmp_path / "precious", [submission()], {"QC": ROWS}, manifest={}, replace=True)
    assert snapshot(tmp_path) == {"precious/thesis.tex": b"years of work"}


def test_a_task_twice_or_without_rows_or_none_is_refused(tmp_path: Path) -> None:
    for submissions, rows in (([submission()] * 2, {"QC": ROWS}), ([submission(QI)], {"QC": ROWS}), ([], {})):
        with pytest.raises(CompetitionError):
            write_submission(tmp_path / "first", submissions, rows, manifest={})
    assert not list(tmp_path.iterdir())


def test_constant_predictions_are_written_with_a_warning(tmp_path: Path) -> None:
    files = write_submission(tmp_path / "first", [submission(values=(1, 1, 1))], {"QC": ROWS}, manifest={})
    assert files.validation.warnings == ("QC: every prediction is 1",)
    assert json.loads(files.manifest.read_text())["warnings"] == ["QC: every prediction is 1"]


TEXT = st.text(max_size=12)
IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5, unique=True),
    st.lists(TEXT.map(lambda text: f"x{text}"), min_size=1, max_size=5, unique=True),
)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), ids=IDS)
def test_what_is_written_validates_and_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ids: list[int] | list[str]
) -> None:
    n_rows = len(ids)
    texts = data.draw(
        st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT), min_size=n_rows, max_size=n_rows), label="texts"
    )
    values = data.draw(st.lists(st.integers(0, 1), min_size=n_rows, max_size=n_rows), label="values")
    rows = make_rows(ids, texts)
    predictions = pd.Series(values, index=pd.Index(rows["id"], name="id"), dtype=np.int8, name="prediction")
    folder = tmp_path_factory.mktemp("round") / "trip"
    files = write_submission(folder, [Submission(QI, predictions)], {"QI": rows}, manifest={})
    for path in (folder, files.texts["QI"], files.csvs["QI"], files.zip):
        assert validate_files(path, {"QI": rows}, [QI]).rows == {"QI": n_rows}
        pd.testing.assert_series_equal(read_predictions(path, QI), predictions)


def test_text_ids_that_look_like_numbers_keep_their_kind_in_json(tmp_path: Path) -> None:
    rows = make_rows(["1", "02"], [("en", "a", "b"), ("en", "c", "d")])
    made = cut(QC, rows["id"], [0.1, 0.9], 0.5)
    files = write_submission(tmp_path / "first", [made], {"QC": rows}, manifest={})
    assert b'"id":"1"' in files.texts["QC"].read_bytes()
    assert read_predictions(files.texts["QC"], QC).index.tolist() == ["1", "02"]
    assert io.BytesIO(files.csvs["QC"].read_bytes()).readline() == b"id,prediction\n"
