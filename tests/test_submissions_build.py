import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError
from competition.tasks import QC
from submissions.build import cut, json_records, raw_fields


def test_a_score_at_the_threshold_is_a_one() -> None:
    submission = cut(QC, [5, 6, 7], np.array([0.3, 0.4, 0.5]), 0.4)
    assert submission.predictions.to_dict() == {5: 0, 6: 1, 7: 1}
    assert submission.predictions.dtype == np.int8
    assert submission.threshold == 0.4


def test_float32_scores_are_not_cut_at_a_rounded_threshold() -> None:
    score = np.array([0.3], dtype=np.float32)
    above = float(score[0]) + 1e-9
    assert np.float32(above) == score[0]
    assert cut(QC, [1], score, above).predictions.tolist() == [0]


def test_every_row_may_have_its_own_threshold() -> None:
    submission = cut(QC, ["a", "b"], [0.5, 0.5], np.array([0.4, 0.6]))
    assert submission.predictions.tolist() == [1, 0]
    assert submission.threshold is None


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5, float("inf")])
def test_a_score_that_is_no_probability_is_refused_by_id(score: float) -> None:
    with pytest.raises(CompetitionError, match="id 'b'") as caught:
        cut(QC, ["a", "b", "c"], [0.1, score, 0.2], 0.5)
    assert len(caught.value.faults) == 1


def test_a_threshold_that_is_nan_is_refused() -> None:
    with pytest.raises(CompetitionError, match="threshold is NaN"):
        cut(QC, [1], [0.5], float("nan"))


@pytest.mark.parametrize("dtype", ["str", "object", "string"])
@pytest.mark.parametrize("null", [None, pd.NA, float("nan")])
def test_a_null_title_is_repeated_as_null(dtype: str, null: object) -> None:
    target = pd.Series(["cap", null], dtype=dtype)
    rows = pd.DataFrame({"language": ["en", "ko"], "raw_query": ["a", "b"], "raw_target": target})
    assert raw_fields(rows) == [("en", "a", "cap"), ("ko", "b", None)]


def test_a_key_twice_is_found_however_the_line_is_spelled() -> None:
    lines = [
        b'{"id":1,"id":1,"language":"en","origin_query":"q","category_path":"c","prediction":1}',
        b'{"id":1,"language":"en","origin_query":"19\\" q","category_path":"","prediction":1, "x":1,"x" : 1}',
        b'{"id":1,"i\\u0064":1,"language":"en","origin_query":"q","category_path":"c","prediction":1}',
    ]
    for line in lines:
        (record,) = json_records(line, "f", QC)
        assert any("is repeated" in fault.found for fault in record.faults), line


def test_spaces_between_tokens_and_escapes_of_ascii_are_allowed() -> None:
    line = b'{ "id": 1, "prediction": 0, "language": "en", "category_path": "c", '
    line += b'"origin_query": "\\u0041\\\\u00e9\\n" }\r\n'
    (record,) = json_records(line, "f", QC)
    assert record.faults == []
    assert record.fields == ("en", "A\\u00e9\n", "c")
