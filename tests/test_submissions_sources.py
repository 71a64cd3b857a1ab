from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.tasks import QC
from submissions.build import Fields, RowId, Submission, csv_name, text_name
from submissions.formats import csv_predictions, csv_records, json_predictions, json_records
from submissions.sources import Contents, Source, collect
from submissions.write import csv_lines, json_lines

NUMBERED: dict[RowId, Fields] = {
    7: ("en", 'a "b"', "home,kitchen"),
    -8: ("ko", "수건\u2028", None),
    9: ("vn", "", "\x7f"),
}
NAMED: dict[RowId, Fields] = {"7": ("en", "pan", "home"), "": ("ko", "수건", None), 'x,"\r': ("vn", "", "")}


def write(fields: dict[RowId, Fields], name: str) -> bytes:
    rows = pd.DataFrame(list(fields.values()), columns=["language", "raw_query", "raw_target"]).assign(id=list(fields))
    predictions = pd.Series([1, 0, 1], index=pd.Index(list(fields)), dtype=np.int8)
    lines = json_lines if name == text_name(QC) else csv_lines
    return lines(Submission(QC, predictions), rows)


def read_in_full(data: bytes, name: str, fields: dict[RowId, Fields]) -> Contents:
    if name == text_name(QC):
        return collect(json_records(data, name, QC), name, fields, QC)
    return collect(csv_records(data, name, QC), name, {str(row_id): None for row_id in fields}, QC)


def test_files_of_our_own_take_the_short_way() -> None:
    for fields in (NUMBERED, NAMED):
        assert json_predictions(write(fields, text_name(QC)), QC, fields) == [1, 0, 1]
    assert csv_predictions(write(NUMBERED, csv_name(QC)), QC, NUMBERED) == [1, 0, 1]
    assert csv_predictions(write(NAMED, csv_name(QC)), QC, NAMED) is None


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([text_name(QC), csv_name(QC)]),
    fields=st.sampled_from([NUMBERED, NAMED]),
    place=st.floats(0, 1),
    n_cut=st.integers(0, 3),
    put=st.sampled_from([b"", b"0", b"1", b"2", b"\n", b"\r", b" ", b'"', b",", b"}", b"\\", b"\xff", b"\xef\xbb\xbf"]),
)
def test_the_short_way_accepts_nothing_that_the_long_way_refuses(
    name: str, fields: dict[RowId, Fields], place: float, n_cut: int, put: bytes
) -> None:
    whole = write(fields, name)
    start = int(place * len(whole))
    data = whole[:start] + put + whole[start + n_cut :]
    full, found = read_in_full(data, name, fields), Source(name, QC, data).contents(fields)
    assert list(found.faults) == list(full.faults)
    assert {str(row_id): value for row_id, value in found.by_id.items()} == {
        str(row_id): value for row_id, value in full.by_id.items()
    }


@pytest.mark.parametrize("fields", [NUMBERED, NAMED, {}])
def test_a_file_without_rows_lacks_them_all(fields: dict[RowId, Fields], tmp_path: Path) -> None:
    for name, data in ((text_name(QC), b""), (csv_name(QC), b"id,prediction\n")):
        assert len(Source(name, QC, data).contents(fields).faults) == len(fields)
