import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.errors import CompetitionError
from submissions.leaderboard import COLUMNS, NUMBERS, OTHER_METRIC, USUAL_COLUMNS, Entry, Leaderboard

CHARACTER = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
NAME = st.text(CHARACTER, min_size=1, max_size=8).filter(str.isprintable)
NUMBER = st.none() | st.floats(allow_infinity=False)
ENTRY = st.builds(Entry, task=st.sampled_from(["QC", "QI"]), name=NAME, kind=NAME, **dict.fromkeys(NUMBERS, NUMBER))
BOARD = st.lists(ENTRY, max_size=6, unique_by=lambda entry: (entry.task, entry.name)).map(Leaderboard.from_entries)


def entry(task: str, name: str, f1: float | None) -> Entry:
    return Entry(task=task, name=name, kind="base", f1=f1)


def test_entries_stand_by_task_and_the_best_first() -> None:
    board = Leaderboard.from_entries(
        [
            entry("QI", "a", 0.5),
            entry("QC", "b", 0.6),
            entry("QC", "d", None),
            entry("QC", "c", 0.7),
            entry("QC", "a", 0.6),
        ]
    )
    assert [(each.task, each.name) for each in board.entries] == [
        ("QC", "c"),
        ("QC", "a"),
        ("QC", "b"),
        ("QC", "d"),
        ("QI", "a"),
    ]


def test_only_names_in_every_task_have_an_average() -> None:
    board = Leaderboard.from_entries(
        [
            entry("QC", "a", 0.5),
            entry("QI", "a", 0.25),
            entry("QC", "b", 0.5),
            entry("QI", "c", 0.9),
            entry("QI", "b", None),
        ]
    ).with_averages()
    assert {(each.task, each.name): each.f1_avg for each in board.entries} == {
        ("QC", "a"): 0.375,
        ("QI", "a"): 0.375,
        ("QC", "b"): None,
        ("QI", "b"): None,
        ("QI", "c"): None,
    }


def test_one_task_alone_has_no_average_and_an_old_one_is_dropped() -> None:
    stale = Entry("QC", "a", "base", 0.5, f1_avg=0.9)
    assert Leaderboard.from_entries([stale]).with_averages().entries[0].f1_avg is None


def test_a_model_twice_is_refused() -> None:
    with pytest.raises(CompetitionError, match="stands there 2 times"):
        Leaderboard.from_entries([entry("QC", "a", 0.5), entry("QC", "a", 0.6)])


@pytest.mark.parametrize("name", ["", "two\nlines", "a\rb"])
def test_a_name_that_breaks_a_line_is_refused(name: str) -> None:
    with pytest.raises(CompetitionError, match="without line breaks"):
        entry("QC", name, 0.5)


def test_an_infinite_number_is_refused_and_nan_is_none() -> None:
    with pytest.raises(CompetitionError, match="f1 is inf"):
        entry("QC", "a", float("inf"))
    assert entry("QC", "a", float("nan")).f1 is None
    assert type(entry("QC", "a", np.float32(0.1)).f1) is float  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(board=BOARD)
def test_csv_gives_back_an_equal_leaderboard(tmp_path_factory: pytest.TempPathFactory, board: Leaderboard) -> None:
    path = tmp_path_factory.mktemp("board") / "leaderboard.csv"
    board.write_csv(path)
    assert Leaderboard.read_csv(path) == board
    assert [file.name for file in path.parent.iterdir()] == ["leaderboard.csv"]


@settings(max_examples=40, deadline=None)
@given(board=BOARD)
def test_json_has_exactly_the_fields_and_null_for_what_is_not_there(board: Leaderboard) -> None:
    objects = json.loads(board.to_json(), parse_constant=pytest.fail)
    assert [tuple(each) for each in objects] == [board.columns] * len(board.entries)
    assert [Entry(**each) for each in objects] == list(board.entries)


def test_the_columns_are_the_fields_in_order() -> None:
    assert ",".join(USUAL_COLUMNS) == (
        "task,name,kind,f1,f1_low,f1_high,f1_fold_std,f1_at_half,auc,positive_rate,threshold,rows_per_second,"
        "dev_f1,f1_avg,dev_f1_seen_languages,difference,difference_low,difference_high"
    )
    assert (*USUAL_COLUMNS, *OTHER_METRIC) == COLUMNS == tuple(field.name for field in fields(Entry))


def test_another_metric_ranks_and_stands_in_the_file_only_where_there_is_one(tmp_path: Path) -> None:
    plain = Leaderboard.from_entries([entry("QC", "a", 0.5), entry("QC", "b", 0.6)])
    judged = Leaderboard.from_entries(
        [Entry("HD", "a", "base", 0.9, metric=-0.7), Entry("HD", "b", "base", 0.8, metric=-0.6)]
    )
    assert [each.name for each in judged.entries] == ["b", "a"]  # by the metric, not by F1
    for board, columns in ((plain, USUAL_COLUMNS), (judged, COLUMNS)):
        board.write_csv(tmp_path / "leaderboard.csv")
        assert (tmp_path / "leaderboard.csv").read_text().splitlines()[0] == ",".join(columns)
        assert tuple(board.to_frame().columns) == columns
        assert Leaderboard.read_csv(tmp_path / "leaderboard.csv") == board


def test_the_frame_has_numbers_and_text_even_when_empty() -> None:
    for board in (Leaderboard(), Leaderboard.from_entries([entry("QC", "a", None)])):
        frame = board.to_frame()
        assert frame.columns.tolist() == list(USUAL_COLUMNS)
        assert (frame[list(USUAL_COLUMNS[3:])].dtypes == "float64").all()
        assert len(frame) == len(board.entries)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0.5", "half", r":2: f1 is 'half'"),
        (",f1,", ",f2,", ":1: the columns"),
        (",base", ",base,,", ":2: 20 cells"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "leaderboard.csv"
    Leaderboard.from_entries([entry("QC", "a", 0.5)]).write_csv(path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CompetitionError, match=expected):
        Leaderboard.read_csv(path)
    path.write_text("")
    with pytest.raises(CompetitionError):
        Leaderboard.read_csv(path)
