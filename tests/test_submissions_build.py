import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError
from competition.tasks import QC
from submissions.build import cut, raw_fields


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
