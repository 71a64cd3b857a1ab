"""The prediction frame: nothing enters that is not whole, nothing is joined by position."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from oof.frame import PredictionFrame


def _frame() -> PredictionFrame:
    rows = pd.DataFrame(
        {
            "id": [3, 1, 2],
            "language": ["en", "fr", "en"],
            "label": pd.array([1, 0, 1], dtype="Int8"),
            "fold": np.array([0, 1, 1], dtype=np.int8),
            "group": ["a", "b", "b"],
        }
    )
    return PredictionFrame(rows, np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]), ("a", "b"))


def test_labels_folds_and_groups_come_as_arrays() -> None:
    frame = _frame()
    assert (frame.n_rows, frame.n_learners) == (3, 2)
    assert frame.labels.tolist() == [1, 0, 1]
    assert frame.labels.dtype == np.int8
    assert frame.fold.tolist() == [0, 1, 1]
    assert frame.group.tolist() == ["a", "b", "b"]


def test_without_a_group_column_every_row_is_its_own_group() -> None:
    frame = _frame()
    bare = PredictionFrame(frame.rows.drop(columns="group"), frame.scores, frame.learners)
    assert bare.group.tolist() == [3, 1, 2]


def test_every_fault_is_gathered() -> None:
    rows = pd.DataFrame({"id": [1, 1], "label": [2, 0], "fold": [-1, 0]})
    with pytest.raises(CompetitionError) as error:
        PredictionFrame(rows, np.array([[np.nan, 0.5], [0.1, 1.5]]), ("a", "a"))
    told = str(error.value)
    for part in (
        "no column 'language'",
        "repeated: 1 id (1)",
        "label",
        "fold",
        "'a' repeated",
        "NaN: 1 id",
        "out of range",
    ):
        assert part in told
    assert len(error.value.faults) == 7


@pytest.mark.parametrize("scores", [np.zeros((2, 2)), np.zeros((3, 1)), np.zeros(3)])
def test_other_shapes_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(CompetitionError, match="shape"):
        PredictionFrame(_frame().rows, scores, ("a", "b"))


def test_missing_labels_are_named() -> None:
    rows = _frame().rows
    rows["label"] = pd.array([1, None, None], dtype="Int8")
    frame = PredictionFrame(rows, _frame().scores, ("a", "b"))
    with pytest.raises(CompetitionError, match=r"missing for 2 ids \(1, 2\)"):
        _ = frame.labels
    with pytest.raises(CompetitionError, match="no column 'label'"):
        _ = frame.without_labels().labels
    with pytest.raises(CompetitionError, match="no column 'fold'"):
        _ = PredictionFrame(rows.drop(columns="fold"), frame.scores, frame.learners).fold


def test_take_by_mask_and_by_position_keeps_rows_and_scores_together() -> None:
    frame = _frame()
    by_mask, by_position = frame.take(frame.fold == 1), frame.take(np.array([2, 0]))
    assert by_mask.rows["id"].tolist() == [1, 2]
    assert by_mask.scores[:, 0].tolist() == [0.2, 0.3]
    assert by_position.rows["id"].tolist() == [2, 3]
    assert by_position.scores[:, 1].tolist() == [0.7, 0.9]
    assert frame.take(frame.id_order()).rows["id"].tolist() == [1, 2, 3]


def test_learners_are_chosen_by_name() -> None:
    assert _frame().with_learners(["b"]).scores.tolist() == [[0.9], [0.8], [0.7]]
    assert _frame().with_learners(["b", "a"]).learners == ("b", "a")
    with pytest.raises(CompetitionError, match=r"c: no scores; expected one of a, b"):
        _frame().with_learners(["a", "c"])


def test_scores_cannot_be_changed_and_are_no_view_of_the_input() -> None:
    scores = np.array([[0.1], [0.2], [0.3]])
    frame = PredictionFrame(_frame().rows, scores, ("a",))
    scores[0, 0] = 0.9
    assert frame.scores[0, 0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        frame.scores[0, 0] = 0.5


def test_logits_are_the_inverse_of_the_sigmoid_and_clipped() -> None:
    rows = pd.DataFrame({"id": [1, 2, 3, 4], "language": "en"})
    scores = np.array([[0.0], [0.2], [0.5], [1.0]])
    assert PredictionFrame(rows, scores, ("a",)).logits()[:, 0] == pytest.approx([-12, np.log(0.25), 0, 12])
    assert PredictionFrame(rows, scores, ("a",)).logits(clip=1.0)[:, 0].tolist() == [-1, -1, 0, 1]


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_parts_are_joined_by_id_whatever_their_order(first: list[int], second: list[int]) -> None:
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(6)], "language": "en"})
    parts = {
        name: pd.Series([i / 10 for i in order], index=[f"r{i}" for i in order])
        for name, order in (("a", first), ("b", second))
    }
    frame = PredictionFrame.from_parts(rows, parts)
    assert frame.learners == ("a", "b")
    assert frame.scores[:, 0].tolist() == frame.scores[:, 1].tolist() == [i / 10 for i in range(6)]


def test_missing_extra_and_repeated_ids_are_named() -> None:
    rows = pd.DataFrame({"id": [1, 2, 3], "language": "en"})
    parts = {"a": pd.Series([0.1, 0.2, 0.3, 0.4], index=[1, 1, 2, 9]), "b": pd.Series([0.1], index=[1])}
    with pytest.raises(CompetitionError) as error:
        PredictionFrame.from_parts(rows, parts)
    assert [str(fault).split(";")[0] for fault in error.value.faults] == [
        "learner 'a': repeated: 1 id (1)",
        "learner 'a': missing: 1 id (3)",
        "learner 'a': extra: 1 id (9)",
        "learner 'b': missing: 2 ids (2, 3)",
    ]


def test_no_part_at_all_is_an_error() -> None:
    with pytest.raises(CompetitionError, match="at least one"):
        PredictionFrame.from_parts(pd.DataFrame({"id": [1], "language": "en"}), {})
