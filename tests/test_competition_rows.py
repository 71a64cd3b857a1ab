"""Reading rows: what must load loads as it stands in the file; every fault is named with its line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError
from competition.rows import digest_rows, find_files, read_competition, read_rows
from competition.tasks import QC, QI

FIELDS = ("id", "task", "language", "origin_query", "item_title", "label")
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def record(row_id=1, **changes):
    return {
        "id": row_id,
        "task": "QI",
        "language": "en",
        "origin_query": "red shoes",
        "item_title": "Shoes, red",
        "label": 1,
    } | changes


def json_lines(*records) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in records)


def read(tmp_path: Path, content: bytes, *, name="train_QI.txt", task=QI, labelled=True) -> pd.DataFrame:
    path = tmp_path / name
    path.write_bytes(content)
    return read_rows(path, task, labelled=labelled)


def faults(tmp_path: Path, content: bytes, **options) -> list[tuple[str, str]]:
    with pytest.raises(CompetitionError) as caught:
        read(tmp_path, content, **options)
    return [(fault.where, fault.found) for fault in caught.value.faults]


def write_csv(path: Path, rows: list[list[str]], *, delimiter=",", header=FIELDS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(rows)
    return path


# Round trips

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=8)
NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    unique=True,
    min_size=1,
    max_size=8,
)
TITLES = TEXTS | st.none()
LANGUAGES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@st.composite
def tables(draw, *, ids=NUMBERS | NAMES, targets=TITLES):
    """Lists of (id, language, query, target, label), ids unique and of one type."""
    labels = st.sampled_from([0, 1])
    return [(each, draw(LANGUAGES), draw(TEXTS), draw(targets), draw(labels)) for each in draw(ids)]


def as_tuples(rows: pd.DataFrame) -> list[tuple]:
    targets = [None if pd.isna(target) else target for target in rows["target"]]
    columns = (rows["id"], rows["language"], rows["query"], targets, rows["label"])
    return list(zip(*(list(column) for column in columns), strict=True))


@QUICK
@given(table=tables(), escaped=st.booleans(), ending=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_come_back_as_written(tmp_path, table, escaped, ending):
    lines = [
        json.dumps(dict(zip(("id", "language", "origin_query", "item_title", "label"), row, strict=True)),
                   ensure_ascii=escaped)
        for row in table
    ]  # fmt: skip
    rows = read(tmp_path, ending.join(lines).encode())
    assert as_tuples(rows) == table


@QUICK
@given(table=tables(ids=NUMBERS, targets=TEXTS), suffix=st.sampled_from("ct"))
def test_csv_and_tsv_come_back_as_written(tmp_path, table, suffix):
    path = tmp_path / f"train_QI.{suffix}sv"
    cells = [[str(row_id), "QI", *texts, str(label)] for row_id, *texts, label in table]
    write_csv(path, cells, delimiter="," if suffix == "c" else "\t")
    assert as_tuples(read_rows(path, QI, labelled=True)) == table


@QUICK
@given(table=tables(), compression=st.sampled_from(["snappy", "none"]))
def test_parquet_comes_back_as_written(tmp_path, table, compression):
    names = ("id", "language", "origin_query", "item_title", "label")
    columns = {name: [row[place] for row in table] for place, name in enumerate(names)}
    columns["item_title"] = pa.array(columns["item_title"], type=pa.string())
    path = tmp_path / "train_QI.parquet"
    pq.write_table(pa.table(columns), path, compression=compression)
    assert as_tuples(read_rows(path, QI, labelled=True)) == table


BROKEN = json_lines(record(2, note="?")).strip().replace(b"?", b"\xff")


# What must load


def test_rows_have_our_columns_and_types_in_file_order(tmp_path):
    rows = read(tmp_path, json_lines(record(9), record(3, item_title=None), record(5, label=0)))
    assert list(rows.columns) == ["id", "language", "query", "target", "label"]
    assert [str(dtype) for dtype in rows.dtypes] == ["int64", "str", "str", "str", "Int8"]
    assert rows["id"].tolist() == [9, 3, 5]
    assert rows["target"].isna().tolist() == [False, True, False]
    assert isinstance(rows.index, pd.RangeIndex)


@pytest.mark.parametrize("label", [1, "1", 1.0, "1.0"])
def test_a_label_may_be_a_number_or_text(tmp_path, label):
    assert read(tmp_path, json_lines(record(label=label)))["label"].tolist() == [1]


def test_byte_order_mark_crlf_blank_lines_and_no_final_newline_load(tmp_path):
    first, second = (json_lines(record(number)).strip() for number in (1, 2))
    rows = read(tmp_path, b"\xef\xbb\xbf" + first + b"\r\n\r\n" + second + b"\r\n \r\n\n")
    assert rows["id"].tolist() == [1, 2]
    assert read(tmp_path, first)["id"].tolist() == [1]


def test_unknown_columns_are_ignored_and_vn_is_a_language(tmp_path):
    rows = read(tmp_path, json_lines(record(language="vn", price={"euro": [3]}, note=None)))
    assert rows["language"].tolist() == ["vn"]


def test_line_separators_of_unicode_end_no_line(tmp_path):
    query = "a\u2028b\u0085c\u2029d\x0be"
    assert read(tmp_path, json_lines(record(origin_query=query)))["query"].tolist() == [query]
    path = write_csv(tmp_path / "dev_QI.csv", [["1", "QI", "en", query, "t", ""], ["2", "QI", "en", "q", "t", "7"]])
    with pytest.raises(CompetitionError, match=r"dev_QI\.csv:3: label"):
        read_rows(path, QI, labelled=False)


def test_empty_texts_and_very_long_lines_load(tmp_path):
    long = "x" * 3_000_000
    rows = read(tmp_path, json_lines(record(origin_query="", item_title=""), record(2, item_title=long)))
    assert rows["target"].tolist() == ["", long]
    limit = csv.field_size_limit()
    path = write_csv(tmp_path / "train_QI.csv", [["1", "QI", "en", "", long, "1"]])
    assert read_rows(path, QI, labelled=True)["target"].tolist() == [long]
    assert csv.field_size_limit() == limit


def test_the_task_column_may_be_absent_or_null(tmp_path):
    without = {name: value for name, value in record(2).items() if name != "task"}
    assert len(read(tmp_path, json_lines(record(1, task=None), without))) == 2


def test_dev_labels_may_be_absent_null_or_partial(tmp_path):
    bare = {name: value for name, value in record(3).items() if name != "label"}
    rows = read(tmp_path, json_lines(record(1), record(2, label=None), bare), labelled=False)
    assert rows["label"].isna().tolist() == [False, True, True]
    path = write_csv(
        tmp_path / "dev_QI.csv",
        [["1", "en", "q", "t"]],
        header=("id", "language", "origin_query", "item_title"),
    )
    assert read_rows(path, QI, labelled=False)["label"].isna().all()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["7", "-12", "0"], [7, -12, 0]),
        (["007", "8"], ["007", "8"]),
        (["1", "a"], ["1", "a"]),
        (["-0", "1"], ["-0", "1"]),
        (["1 ", "2"], ["1 ", "2"]),
        (["٣", "4"], ["٣", "4"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["9" * 5000], ["9" * 5000]),
    ],
)
def test_csv_ids_are_numbers_only_if_printing_them_repeats_the_file(tmp_path, ids, expected):
    path = write_csv(tmp_path / "dev_QI.csv", [[each, "QI", "en", "q", "t", ""] for each in ids])
    assert read_rows(path, QI, labelled=False)["id"].tolist() == expected


def test_json_ids_keep_their_type(tmp_path):
    assert read(tmp_path, json_lines(record("007"), record("8")))["id"].tolist() == ["007", "8"]


def test_parquet_labels_with_gaps_and_dictionary_texts_load(tmp_path):
    frame = pd.DataFrame([record(1), record(2), record(3)]).astype({"language": "category"})
    frame["label"] = [1.0, float("nan"), 0.0]
    frame.to_parquet(tmp_path / "dev_QI.parquet")
    rows = read_rows(tmp_path / "dev_QI.parquet", QI, labelled=False)
    assert rows["label"].fillna(-1).tolist() == [1, -1, 0]
    assert rows["language"].tolist() == ["en"] * 3


# Faults


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"id": None}, "id is null"),
        ({"id": ""}, "id is empty"),
        ({"id": 1.5}, "id is the number 1.5"),
        ({"id": True}, "id is the truth value true"),
        ({"id": [1]}, "id is a list"),
        ({"id": 2**63}, f"id is the number {2**63}"),
        ({"id": 2**64}, "id is the number 1.8446744073709552e+19"),
        ({"id": "a7"}, "id is the text 'a7'"),
        ({"id": 1}, "id 1 repeats line 1"),
        ({"task": "QC"}, "task is the text 'QC'"),
        ({"task": 3}, "task is the number 3"),
        ({"language": None}, "language is null"),
        ({"language": ""}, "language is empty"),
        ({"language": 5}, "language is the number 5"),
        ({"origin_query": None}, "origin_query is null"),
        ({"origin_query": 12}, "origin_query is the number 12"),
        ({"origin_query": ["a"]}, "origin_query is a list"),
        ({"item_title": {"a": 1}}, "item_title is an object"),
        ({"item_title": False}, "item_title is the truth value false"),
        ({"label": None}, "label is null"),
        ({"label": ""}, "label is empty"),
        ({"label": 2}, "label is the number 2"),
        ({"label": 0.5}, "label is the number 0.5"),
        ({"label": "yes"}, "label is the text 'yes'"),
        ({"label": True}, "label is the truth value true"),
        ({"label": [1]}, "label is a list"),
    ],
)
def test_a_wrong_value_is_named_at_its_line(tmp_path, changes, found):
    content = json_lines(record(1), record(2) | changes, record(3))
    assert faults(tmp_path, content) == [("train_QI.txt:2", found)]


@pytest.mark.parametrize("name", ["id", "language", "origin_query", "item_title", "label"])
def test_a_field_missing_on_a_json_line_is_named_at_its_line(tmp_path, name):
    short = {field: value for field, value in record(2).items() if field != name}
    assert faults(tmp_path, json_lines(record(1), short)) == [("train_QI.txt:2", f"{name} is missing")]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"id": 2, "task": "QI", "lan', "the line is not valid JSON: unexpected end of data at column 29"),
        (b'{"id": 2, "x": NaN}', "the line is not valid JSON: unexpected character"),
        (b'{"id": 2, "x": "\\ud800"}', "the line is not valid JSON"),
        (b"[1, 2]", "the line is a list"),
        (b"17", "the line is the number 17"),
        (b"null", "the line is null"),
        (b'"text"', "the line is the text 'text'"),
        (BROKEN, "byte 0xff at byte offset 120 of the line is not UTF-8"),
        (b'{"id": \xc3', "byte 0xc3 at byte offset 7 of the line is not UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_is_no_object_is_named(tmp_path, line, found, place):
    lines = [json_lines(record(1)).strip(), json_lines(record(3)).strip()]
    lines.insert(place, line)
    [(where, told)] = faults(tmp_path, b"\n".join(lines))
    assert where == f"train_QI.txt:{place + 1}"
    assert told.startswith(found)


def test_a_line_in_a_wrong_encoding_is_still_checked(tmp_path):
    bad = json_lines(record(1, origin_query="?", label=7)).replace(b"?", b"\xff")
    assert [found.split(" at ")[0] for _, found in faults(tmp_path, json_lines(record(1)) + bad)] == [
        "byte 0xff",
        "label is the number 7",
        "id 1 repeats line 1",
    ]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_document_is_told_apart_from_json_lines(tmp_path, indent):
    array = json.dumps([record(1), record(2)], indent=indent).encode()
    assert faults(tmp_path, array) == [("train_QI.txt", "the file is a JSON array")]
    single = json.dumps(record(1), indent=1).encode()
    found = "the file is a JSON object spread over several lines"
    assert faults(tmp_path, single) == [("train_QI.txt", found)]


@pytest.mark.parametrize("name", ["train_QI.txt", "train_QI.csv", "train_QI.tsv"])
@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_fault(tmp_path, name, content):
    assert faults(tmp_path, content, name=name) == [(name, "the file has no rows")]


def test_a_header_without_rows_is_a_fault(tmp_path):
    content = ",".join(FIELDS).encode()
    assert faults(tmp_path, content, name="train_QI.csv") == [("train_QI.csv", "the file has no rows")]


@pytest.mark.parametrize("name", ["train_QI.txt", "train_QI.csv"])
def test_a_utf_16_file_is_one_fault(tmp_path, name):
    content = json_lines(record(1), record(2)).decode().encode("utf-16")
    assert faults(tmp_path, content, name=name) == [(name, "the file is UTF-16")]


def test_twenty_faults_of_different_kinds_are_all_told_and_nothing_else(tmp_path):
    lines = [
        (record(1), []),
        (record(None), ["id is null"]),
        (record(1.5), ["id is the number 1.5"]),
        (record(False), ["id is the truth value false"]),
        (record("x1"), ["id is the text 'x1'"]),
        (record(2**63), [f"id is the number {2**63}"]),
        (record(1), ["id 1 repeats line 1"]),
        (b"", []),
        (record(9, task="QC"), ["task is the text 'QC'"]),
        (record(10, language=None), ["language is null"]),
        (record(11, language=4), ["language is the number 4"]),
        (record(12, origin_query=None), ["origin_query is null"]),
        (record(13, origin_query=4, label="no"), ["origin_query is the number 4", "label is the text 'no'"]),
        (record(14, item_title=["a"]), ["item_title is a list"]),
        (record(15, label=None), ["label is null"]),
        (record(16, label=True), ["label is the truth value true"]),
        (record(17, label=3), ["label is the number 3"]),
        ({"id": 18}, [f"{name} is missing" for name in ("language", "origin_query", "item_title", "label")]),
        (b"[1]", ["the line is a list"]),
        (b'{"id": 20, "tas', ["the line is not valid JSON: unexpected end of data at column 16"]),
        (b'{"id": "\xe9", ', ["byte 0xe9 at byte offset 8 of the line is not UTF-8"]),
        (record(22), []),
    ]  # fmt: skip
    content = b"".join(each + b"\n" if isinstance(each, bytes) else json_lines(each) for each, _ in lines)
    expected = [(f"train_QI.txt:{number}", found) for number, (_, told) in enumerate(lines, start=1) for found in told]
    assert len(expected) > 20
    assert faults(tmp_path, content) == expected


def test_a_fault_of_all_rows_is_told_once(tmp_path):
    content = json_lines(*(record(number, task="QC") for number in range(1, 12)), record(12, task="QC", label=5))
    assert faults(tmp_path, content) == [
        ("train_QI.txt:1", "task is the text 'QC', here and on all 12 rows"),
        ("train_QI.txt:12", "label is the number 5"),
    ]


# Faults of CSV and Parquet


def test_csv_faults_are_named_at_the_line_where_the_row_starts(tmp_path):
    content = b"\n".join(
        [
            b"id,language,origin_query,item_title,label",
            b'1,en,"two',
            b'lines",t,1',
            b"",
            b"2,en,q,t",
            b"3,en,q,t,1,extra",
            b'4,en,"q"x,t,1',
            b'5,,"a',
            b'b",t,2',
            b"6,en,caf\xe9,t,1",
            b"1,en,q,t,0",
            b",en,q,t,0",
            b"7,en,a\rb,t,0",
            b'8,en,"never closed,t,0',
            b"9,en,q,t,0",
        ]
    )
    assert faults(tmp_path, content, name="train_QI.csv") == [
        ("train_QI.csv:5", "the row has 4 cells"),
        ("train_QI.csv:6", "the row has 6 cells"),
        ("train_QI.csv:7", "the quotes are wrong: ',' expected after '\"'"),
        ("train_QI.csv:8", "language is empty"),
        ("train_QI.csv:8", "label is the text '2'"),
        ("train_QI.csv:10", "byte 0xe9 at byte offset 8 of the line is not UTF-8"),
        ("train_QI.csv:11", "id '1' repeats line 2"),
        ("train_QI.csv:12", "id is empty"),
        ("train_QI.csv:13", "a carriage return stands outside quotes"),
        (
            "train_QI.csv:14",
            "a quote opened in this row is never closed; it takes in all lines up to 15, which were not checked",
        ),
    ]


def test_a_column_missing_in_a_header_is_told_once(tmp_path):
    path = write_csv(tmp_path / "train_QI.csv", [["1", "q"], ["2", "q"]], header=("id", "origin_query"))
    expected = [f"there is no column {name!r}" for name in ("language", "item_title", "label")]
    assert faults(tmp_path, path.read_bytes(), name=path.name) == [("train_QI.csv:1", each) for each in expected]
    pd.DataFrame({"id": [1, 2], "origin_query": ["q", "r"]}).to_parquet(tmp_path / "train_QI.parquet")
    with pytest.raises(CompetitionError) as caught:
        read_rows(tmp_path / "train_QI.parquet", QI, labelled=True)
    assert [fault.found for fault in caught.value.faults] == expected


def test_a_broken_or_ambiguous_header_is_the_only_claim(tmp_path):
    content = b'"id"x,language,origin_query,item_title,label\n1,en,q,t,1\n'
    assert [where for where, _ in faults(tmp_path, content, name="train_QI.csv")] == ["train_QI.csv:1"]
    content = b"id,id,language,origin_query,item_title,label\n1,2,en,q,t,1\n"
    found = "column 'id' stands 2 times in the header"
    assert faults(tmp_path, content, name="train_QI.csv") == [("train_QI.csv:1", found)]


def test_parquet_faults_are_named_by_row(tmp_path):
    frame = pd.DataFrame([record(1), record(2, language=None), record(1, label=4)])
    frame.to_parquet(tmp_path / "train_QI.parquet")
    content = (tmp_path / "train_QI.parquet").read_bytes()
    assert faults(tmp_path, content, name="train_QI.parquet") == [
        ("train_QI.parquet:2", "language is null"),
        ("train_QI.parquet:3", "label is the number 4"),
        ("train_QI.parquet:3", "id 1 repeats row 1"),
    ]


def test_parquet_text_that_is_not_utf_8_is_named_by_row(tmp_path):
    bad = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    columns = {
        "id": [1, 2],
        "language": ["en", "fr"],
        "origin_query": bad,
        "item_title": ["t", "t"],
        "label": [0, 1],
    }
    path = tmp_path / "train_QI.parquet"
    pq.write_table(pa.table(columns), path)
    assert faults(tmp_path, path.read_bytes(), name=path.name) == [
        ("train_QI.parquet:2", "byte 0xe9 at byte offset 3 of origin_query is not UTF-8")
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"id,label\n1,1\n"])
def test_an_unreadable_parquet_file_is_a_fault(tmp_path, content):
    [(where, found)] = faults(tmp_path, content, name="train_QI.parquet")
    assert where == "train_QI.parquet"
    assert found.startswith("the file cannot be read as Parquet: ")


def test_a_file_that_is_not_there_or_of_unknown_suffix_is_a_fault(tmp_path):
    with pytest.raises(CompetitionError, match="No such file"):
        read_rows(tmp_path / "train_QI.txt", QI, labelled=True)
    with pytest.raises(CompetitionError, match=r"suffix is '\.xlsx'"):
        read_rows(tmp_path / "train_QI.xlsx", QI, labelled=True)


# Folders


def write_competition(folder: Path, **files: bytes) -> None:
    for stem, content in files.items():
        (folder / f"{stem}.txt").write_bytes(content)


def qc_record(row_id, **changes):
    fields = {name: value for name, value in record(row_id).items() if name != "item_title"}
    return fields | {"task": "QC", "category_path": "a,b"} | changes


def test_files_are_found_by_task_and_split(tmp_path):
    for name in ("train_QC.jsonl", "dev_QC.csv", "train_QI.parquet", "notes.txt", "train_QC.bak"):
        (tmp_path / name).touch()
    files = {place: path.name for place, path in find_files(tmp_path, [QC, QI]).items()}
    assert files == {
        ("QC", "train"): "train_QC.jsonl",
        ("QC", "dev"): "dev_QC.csv",
        ("QI", "train"): "train_QI.parquet",
    }


def test_two_files_for_one_place_and_a_task_without_train_are_both_told(tmp_path):
    for name in ("train_QC.jsonl", "train_QC.csv", "dev_QI.txt"):
        (tmp_path / name).touch()
    with pytest.raises(CompetitionError) as caught:
        find_files(tmp_path, [QC, QI])
    assert [fault.found for fault in caught.value.faults] == [
        "train_QC.jsonl and train_QC.csv are both there",
        "dev_QI.txt without train_QI",
    ]


@pytest.mark.parametrize("folder", ["", "missing"])
def test_an_empty_or_missing_folder_lists_what_was_looked_for(tmp_path, folder):
    with pytest.raises(CompetitionError, match=r"(?s)train_QC, dev_QC and test_QC .*\.jsonl.*train_QI"):
        find_files(tmp_path / folder, [QC, QI])


def test_a_competition_is_read_by_task_and_split(tmp_path):
    unlabelled = record(1, label=None)
    write_competition(
        tmp_path,
        train_QC=json_lines(qc_record(1), qc_record(2)),
        train_QI=json_lines(record(1)),
        test_QI=json_lines(unlabelled),
    )
    rows = read_competition(tmp_path, [QC, QI])
    assert {task: {split: len(each) for split, each in splits.items()} for task, splits in rows.items()} == {
        "QC": {"train": 2},
        "QI": {"train": 1, "test": 1},
    }


def test_the_faults_of_all_files_come_together(tmp_path):
    write_competition(
        tmp_path,
        train_QC=json_lines(qc_record(1), qc_record(2, label=None)),
        dev_QC=json_lines(qc_record(1, label=None), qc_record(1, label=5)),
        train_QI=b"[\n",
    )
    with pytest.raises(CompetitionError, match="has 4 faults") as caught:
        read_competition(tmp_path, [QC, QI])
    assert [fault.where for fault in caught.value.faults] == [
        "train_QC.txt:2",
        "dev_QC.txt:2",
        "dev_QC.txt:2",
        "train_QI.txt",
    ]


# Digest


def sample() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [1, 2, 3],
            "language": ["en", "ja", "vn"],
            "query": ["a", "靴", ""],
            "target": ["b", None, ""],
            "label": pd.array([1, None, 0], dtype="Int8"),
        }
    ).astype({"language": "str", "query": "str", "target": "str"})


def test_the_digest_sees_content_only():
    rows = sample()
    expected = digest_rows(rows)
    assert len(expected) == 16
    doubled = pd.concat([rows, rows])
    assert digest_rows(doubled.iloc[3:]) == expected  # a slice that starts in the middle of its buffers
    assert digest_rows(rows.astype({"query": object, "target": object})) == expected
    assert digest_rows(rows.astype({"query": "category", "label": "Int64"})) == expected
    assert digest_rows(rows.set_index(pd.Index([7, 8, 9])).assign(fold=1)) == expected


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (0, "id", 4),
        (1, "language", "en"),
        (2, "query", " "),
        (1, "target", ""),
        (2, "target", None),
        (1, "label", 0),
        (2, "label", None),
    ],
)
def test_the_digest_changes_with_any_value(row, column, value):
    rows = sample()
    rows.loc[row, column] = value
    assert digest_rows(rows) != digest_rows(sample())


def test_the_digest_changes_with_order_id_type_and_borders():
    rows = sample()
    moved = rows.assign(query=["a靴", "", ""])
    digests = {digest_rows(each) for each in (rows, rows.iloc[::-1], rows.astype({"id": "str"}), moved)}
    assert len(digests) == 4


def test_the_digest_is_the_same_in_another_process():
    code = "from tests.test_competition_rows import sample, digest_rows; print(digest_rows(sample()))"
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    root = Path(__file__).parents[1]
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environment
    ).stdout
    assert printed.strip() == digest_rows(sample())
