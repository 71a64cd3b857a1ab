import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError
from competition.tasks import QC, QI
from submissions.build import Submission
from submissions.validate import rate_warnings, validate, validate_files
from submissions.write import write_submission

ROWS = pd.DataFrame(
    {
        "id": [11, 12, 13, 14],
        "language": ["en", "ko", "ja", "es"],
        "raw_query": ['19" monitor', "수건", "ヤカン", " café\t"],
        "raw_target": ["home,kitchen, dining & bar", "집", None, "a\u2028b"],
    }
)


def submission(values: object, ids: object = (11, 12, 13, 14)) -> Submission:
    return Submission(QC, pd.Series(values, index=pd.Index(list(ids))))  # type: ignore[call-overload]


def faults_of(values: object, ids: object = (11, 12, 13, 14)) -> list[str]:
    with pytest.raises(CompetitionError) as caught:
        validate(submission(values, ids), ROWS)
    return [str(fault) for fault in caught.value.faults]


def test_a_complete_submission_has_no_fault() -> None:
    validate(submission([0, 1, 1, 0]), ROWS)
    validate(submission([0, 1, 1, 0], [14, 12, 13, 11]), ROWS)
    validate(submission(pd.array([0, 1, 1, 0], dtype="Int8")), ROWS)


def test_all_faults_are_gathered_and_name_the_id() -> None:
    found = faults_of([0, 1, 1, 0, 7], [11, 12, 12, 99, 14])
    assert len(found) == 4
    for text in ("id 99: is not an id", "id 12: is repeated", "id 13: is missing", "id 14: prediction is 7"):
        assert any(text in fault for fault in found), text


@pytest.mark.parametrize("value", [True, 0.5, 1.0, "1", None, 2, -1, np.nan, np.True_])
def test_a_value_other_than_the_integers_0_and_1_is_a_fault(value: object) -> None:
    (fault,) = faults_of(np.array([0, 1, value, 0], dtype=object))
    assert "id 13: prediction is" in fault


def test_columns_of_bools_and_floats_are_faults_throughout() -> None:
    assert len(faults_of([True, False, True, False])) == 4
    assert len(faults_of([1.0, 0.0, 1.0, 0.0])) == 4


def test_ids_of_another_kind_are_not_the_same_ids() -> None:
    found = faults_of([0, 1, 1, 0], ["11", "12", "13", "14"])
    assert len(found) == 8
    assert "which are integers" in found[0]


def test_a_submission_for_no_rows_is_a_fault() -> None:
    with pytest.raises(CompetitionError, match="no input rows"):
        validate(submission(np.array([], dtype=np.int8), []), ROWS.head(0))


# --- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {"QC": ROWS, "QI": ROWS}
    both = [submission([0, 1, 1, 0]), Submission(QI, submission([1, 1, 0, 1]).predictions)]
    return write_submission(tmp_path / "first", both, rows, manifest={}).folder


def check(path: Path) -> str:
    return str(validate_files(path, {"QC": ROWS, "QI": ROWS}, [QC, QI]))


def refusal(path: Path) -> CompetitionError:
    with pytest.raises(CompetitionError) as caught:
        check(path)
    assert "passed" not in str(caught.value)
    return caught.value


def test_every_form_on_disk_passes(folder: Path) -> None:
    for name in ("", "submit_QC.txt", "submit_QI.csv", "submit.zip"):
        assert check(folder / name).startswith("passed: ")
    found = validate_files(folder, {"QC": ROWS, "QI": ROWS}, [QC, QI])
    assert found.rows == {"QC": 4, "QI": 4}
    assert found.positive_rates == {"QC": 0.5, "QI": 0.75}
    assert "submit.zip/submit_QI.txt" in found.files


def test_blank_lines_at_the_end_and_another_order_of_rows_and_keys_pass(folder: Path) -> None:
    path = folder / "submit_QC.txt"
    lines = [dict(reversed(json.loads(line).items())) for line in path.read_bytes().split(b"\n")[:-1]]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in reversed(lines)) + "\n\n \n"
    path.write_bytes(text.encode())
    assert check(path).startswith("passed: ")


LineChange = Callable[[dict[str, Any]], object]

CHANGES: dict[str, tuple[LineChange, str]] = {
    "another query": (lambda row: row.update(origin_query="수겐"), "origin_query is '수겐'; expected '수건'"),
    "another language": (lambda row: row.update(language="en"), "language is 'en'; expected 'ko'"),
    "null for a text": (lambda row: row.update(category_path=None), "category_path is None; expected '집'"),
    "a prediction as text": (lambda row: row.update(prediction="1"), "prediction is '1'"),
    "a prediction as bool": (lambda row: row.update(prediction=True), "prediction is True"),
    "a prediction as float": (lambda row: row.update(prediction=1.0), "prediction is 1.0"),
    "a prediction of two": (lambda row: row.update(prediction=2), "prediction is 2"),
    "an extra key": (lambda row: row.update(task="QC"), "key 'task' is too much"),
    "a missing key": (lambda row: row.pop("language"), "key 'language' is missing"),
    "no prediction": (lambda row: row.pop("prediction"), "key 'prediction' is missing"),
    "no id": (lambda row: row.pop("id"), "key 'id' is missing"),
    "an id as text": (lambda row: row.update(id="12"), "id '12': is not an id of the input"),
    "an id as float": (lambda row: row.update(id=12.0), "id is 12.0"),
    "an id as bool": (lambda row: row.update(id=True), "id is True"),
    "an id as list": (lambda row: row.update(id=[12]), "id is a list"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_within_a_line_is_named_with_its_line(folder: Path, change: str) -> None:
    path = folder / "submit_QC.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    row = json.loads(lines[1])
    edit, expected = CHANGES[change]
    edit(row)
    lines[1] = json.dumps(row, ensure_ascii=False)
    path.write_bytes("\n".join(lines).encode())
    error = refusal(path)
    assert any(fault.where.startswith("submit_QC.txt:2") and expected in str(fault) for fault in error.faults)


def test_a_row_that_is_null_must_stay_null(folder: Path) -> None:
    path = folder / "submit_QC.txt"
    path.write_bytes(path.read_bytes().replace(b'"category_path":null', b'"category_path":""'))
    (fault,) = refusal(path).faults
    assert str(fault) == "submit_QC.txt:3, id 13: category_path is ''; expected None"


FileChange = Callable[[list[bytes]], list[bytes]]

FILE_CHANGES: dict[str, tuple[FileChange, str]] = {
    "a dropped line": (lambda lines: lines[1:], "submit_QC.txt, id 11: is missing"),
    "a repeated line": (
        lambda lines: [*lines, lines[2]],
        "submit_QC.txt:5, id 13: is repeated, it stands on line 3",
    ),
    "a blank line inside": (lambda lines: [lines[0], b"", *lines[1:]], "submit_QC.txt:2: blank line"),
    "a byte order mark": (
        lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]],
        "starts with a byte order mark",
    ),
    "two objects on a line": (lambda lines: [lines[0] + lines[1], *lines[2:]], "submit_QC.txt:1: unreadable"),
    "an array for an object": (lambda lines: [b"[" + lines[0] + b"]", *lines[1:]], "submit_QC.txt:1: list"),
    "latin-1": (
        lambda lines: [*lines[:3], lines[3].decode().replace("\u2028", "").encode("latin-1")],
        ":4: unreadable",
    ),
    "escapes": (
        lambda lines: [lines[0], json.dumps(json.loads(lines[1])).encode(), *lines[2:]],
        "is escaped",
    ),
    "a comma between lines": (lambda lines: [line + b"," for line in lines], "submit_QC.txt:4: unreadable"),
    "one array": (lambda lines: [b"[" + b",".join(lines) + b"]"], "submit_QC.txt:1: list"),
    "nothing": (lambda lines: lines[:0], "submit_QC.txt, id 14: is missing"),
}


@pytest.mark.parametrize("change", FILE_CHANGES)
def test_a_change_of_the_file_is_named(folder: Path, change: str) -> None:
    path = folder / "submit_QC.txt"
    edit, expected = FILE_CHANGES[change]
    path.write_bytes(b"\n".join(edit(path.read_bytes().rstrip(b"\n").split(b"\n"))))
    assert any(expected in str(fault) for fault in refusal(path).faults)


def test_the_faults_of_all_files_come_in_one_error(folder: Path) -> None:
    for name in ("submit_QC.txt", "submit_QI.txt"):
        path = folder / name
        path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[1:]))
    named = {fault.where.split(",")[0] for fault in refusal(folder).faults}
    assert {"submit_QC.txt", "submit_QI.txt"} <= named


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("id,prediction", "id,label", "submit_QC.csv:1: the header is"),
        ("12,1\n", "", "submit_QC.csv, id '12': is missing"),
        ("12,1\n", "12,1\n12,1\n", "submit_QC.csv:4, id '12': is repeated"),
        ("12,1\n", "012,1\n", "submit_QC.csv:3, id '012': is not an id"),
        ("12,1\n", "12,1.0\n", "submit_QC.csv:3, id '12': prediction is '1.0'"),
        ("12,1\n", "12,True\n", "prediction is 'True'"),
        ("12,1\n", "12,\n", "prediction is ''"),
        ("12,1\n", "12,1,1\n", "submit_QC.csv:3: 3 cells"),
        ("12,1\n", "12,1\n\n", "submit_QC.csv:4: blank line"),
        ("12,1\n", '12,"1\n', "unreadable"),
        ("id,", "\ufeffid,", "starts with a byte order mark"),
        ("12,1\n", "12,\udcff\n", "submit_QC.csv:3: not UTF-8"),
    ],
)
def test_a_faulty_csv_is_named(folder: Path, old: str, new: str, expected: str) -> None:
    path = folder / "submit_QC.csv"
    text = path.read_text(encoding="utf-8").replace(old, new)
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert any(expected in str(fault) for fault in refusal(path).faults)


@pytest.mark.parametrize("old", [b'"\xec\xa7\x91"', b"12", b'"prediction":1'])
def test_values_nested_too_deep_for_python_are_a_fault_of_their_line(folder: Path, old: bytes) -> None:
    path = folder / "submit_QC.txt"
    assert old in path.read_bytes()
    key = b'"prediction":' if b"prediction" in old else b""
    path.write_bytes(path.read_bytes().replace(old, key + b"[" * 1000 + b"]" * 1000, 1))
    assert any(fault.where.startswith("submit_QC.txt:2") for fault in refusal(path).faults)


# --- zips and folders


def repack(folder: Path, members: list[tuple[str, bytes]]) -> Path:
    path = folder / "submit.zip"
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(path, "w") as archive:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # a member twice is what we are after
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["upload/submit_QC.txt", "submit_QI.txt"],
            "submit.zip/upload/submit_QC.txt: is a folder or lies in one",
        ),
        (["submit_QC.txt", "submit_QI.txt", "upload/"], "submit.zip/upload/: is a folder or lies in one"),
        (["submit_QC.txt", "submit_QI.txt", "../submit_QC.txt"], "../submit_QC.txt: points outside"),
        (["submit_QC.txt", "submit_QI.txt", "/submit_QC.txt"], "/submit_QC.txt: points outside"),
        (["submit_QC.txt", "submit_QI.txt", "..\\submit_QC.txt"], "points outside"),
        (["submit_QC.txt", "submit_QI.txt", "notes.txt"], "submit.zip/notes.txt: belongs to no task"),
        (["submit_QC.txt"], "submit.zip/submit_QI.txt: stands there 0 times"),
        (
            ["submit_QC.txt", "submit_QI.txt", "submit_QC.txt"],
            "submit.zip/submit_QC.txt: stands there 2 times",
        ),
    ],
)
def test_a_zip_that_is_not_flat_and_complete_is_named(folder: Path, names: list[str], expected: str) -> None:
    task_of = {name: "submit_QI.txt" if "QI" in name else "submit_QC.txt" for name in names}
    path = repack(folder, [(name, (folder / task_of[name]).read_bytes()) for name in names])
    assert any(expected in str(fault) for fault in refusal(path).faults)


def test_a_faulty_member_is_named_with_zip_and_line(folder: Path) -> None:
    good = (folder / "submit_QI.txt").read_bytes()
    bad = (folder / "submit_QC.txt").read_bytes().replace(b'"prediction":1', b'"prediction":"1"')
    path = repack(folder, [("submit_QC.txt", bad), ("submit_QI.txt", good)])
    assert refusal(path).faults[0].where == "submit.zip/submit_QC.txt:2, id 12"


def test_a_damaged_zip_is_named(folder: Path) -> None:
    path = folder / "submit.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "unreadable" in str(refusal(path))
    start = whole.index(b"submit_QC.txt") + len("submit_QC.txt")
    path.write_bytes(whole[: start + 20] + bytes(8) + whole[start + 28 :])
    assert "submit.zip/submit_QC.txt: unreadable" in str(refusal(path))


def test_a_file_that_is_not_the_one_written_is_refused_even_if_valid(folder: Path) -> None:
    path = folder / "submit_QC.csv"
    path.write_bytes(path.read_bytes() + b"\n")
    (fault,) = refusal(folder).faults
    assert fault.where == "submit_QC.csv"
    assert "is not the file that was written" in fault.found


def test_files_of_one_task_that_disagree_are_refused_by_id(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    path = folder / "submit_QC.csv"
    path.write_bytes(path.read_bytes().replace(b"12,1", b"12,0"))
    (fault,) = refusal(folder).faults
    assert str(fault) == "submit_QC.csv, id 12: prediction is 0; expected 1, as in submit_QC.txt"


def test_a_folder_without_a_tasks_file_or_with_another_tasks_is_refused(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "submit_QI.txt").rename(folder / "submit_QX.txt")
    named = {fault.where for fault in refusal(folder).faults}
    assert named == {"submit_QI.txt", "submit_QX.txt"}


def test_a_folder_of_csv_files_alone_passes(folder: Path) -> None:
    for name in ("manifest.json", "submit.zip", "submit_QC.txt", "submit_QI.txt"):
        (folder / name).unlink()
    assert check(folder).startswith("passed: ")


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    for name in ("mine.txt", "submit_QC.xlsx", "nothing.csv"):
        if name != "nothing.csv":
            (tmp_path / name).write_text("")
        assert refusal(tmp_path / name).advice
    (tmp_path / "mine.csv").write_text("id,prediction\n11,0\n12,1\n13,0\n14,0\n")
    assert validate_files(tmp_path / "mine.csv", {"QC": ROWS}, [QC]).rows == {"QC": 4}


# --- warnings


def test_constant_predictions_are_a_warning_that_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "submit_QC.csv"
    path.write_text("id,prediction\n11,0\n12,0\n13,0\n14,0\n")
    found = validate_files(path, {"QC": ROWS}, [QC])
    assert found.warnings == ("QC: every prediction is 0",)
    assert str(found).startswith("passed with 1 warning: ")
    assert "warning: QC: every prediction is 0" in str(found)


def test_a_rate_far_from_training_is_a_warning_and_a_small_sample_is_not() -> None:
    assert rate_warnings(QC, [1] * 900 + [0] * 100, 0.69)
    assert not rate_warnings(QC, [1] * 800 + [0] * 200, 0.69)
    assert not rate_warnings(QC, [1] * 9 + [0], 0.69)


# --- any single mutation


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_other_character_in_a_field_is_caught(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, 3))
    key, column = data.draw(st.sampled_from([("origin_query", "raw_query"), ("language", "language")]))
    text = str(ROWS[column][row])
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[place]))
    lines = [
        {"id": i, "language": a, "origin_query": q, "category_path": c, "prediction": 1}
        for i, a, q, c in ROWS.astype(object).where(ROWS.notna(), None).itertuples(index=False)
    ]
    lines[row][key] = text[:place] + character + text[place + 1 :]
    path = tmp_path_factory.mktemp("mutation") / "submit_QC.txt"
    path.write_bytes("\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    (fault,) = refusal(path).faults
    assert fault.where == f"submit_QC.txt:{row + 1}, id {ROWS['id'][row]}"
    assert fault.found.startswith(key)
