"""New rows among those of a file: the features of the file's own rows, and those of each row if it were added alone."""

import numpy as np
import pandas as pd
import pytest

from oof.blend import WeightedMean
from oof.context import Context
from oof.features import level2_features, percentile_ranks
from oof.frame import PredictionFrame

LANGUAGES = ("en", "es")
TARGETS = ["pets", "pets,dogs", "pets,dogs,toys", "pets,cats", "shoes"]


def made_frame(n_rows: int, *, seed: int) -> PredictionFrame:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"id": np.arange(n_rows)})
    rows["language"] = rng.choice(["en", "es", "xx"], n_rows)
    rows["query"] = rng.choice(["dog", "red dog", "cat", "shoe"], n_rows)
    rows["target"] = rng.choice(TARGETS, n_rows)
    rows["query_en"] = ""
    rows["unseen_language"] = rows["language"] == "xx"
    scores = rng.integers(1, 20, (n_rows, 3)) / 20  # with ties
    pairs = rows.groupby(["language", "query", "target"]).ngroup().to_numpy()
    return PredictionFrame(rows, scores[pairs], ("a", "b", "c"))


@pytest.fixture(scope="module")
def file() -> PredictionFrame:
    return made_frame(40, seed=1)


def among(rows: PredictionFrame, file: PredictionFrame) -> PredictionFrame:
    return PredictionFrame(rows.rows, rows.scores, rows.learners, context=Context(file))


def features(frame: PredictionFrame) -> pd.DataFrame:
    return level2_features(frame, languages=LANGUAGES, paths=True)


def new_rows(file: PredictionFrame) -> PredictionFrame:
    """Rows of which the file has no pair."""
    rows = made_frame(60, seed=2)
    return rows.take(Context(file).places(rows.rows) < 0)


def added(file: PredictionFrame, row: PredictionFrame) -> PredictionFrame:
    rows = pd.concat([file.rows, row.rows]).assign(id=np.arange(file.n_rows + 1))
    return PredictionFrame(rows, np.vstack([file.scores, row.scores]), file.learners)


def test_rows_of_the_file_have_the_features_of_the_file(file: PredictionFrame) -> None:
    chosen = np.array([7, 3, 21, 3])
    rows = file.take(chosen)
    rows = PredictionFrame(rows.rows.assign(id=range(4)), rows.scores, rows.learners)
    expected = features(file).iloc[chosen].reset_index(drop=True)
    pd.testing.assert_frame_equal(features(among(rows, file)), expected)


def test_a_new_row_has_the_features_that_it_has_when_added_alone(file: PredictionFrame) -> None:
    rows = new_rows(file)
    assert rows.n_rows > 10
    found = features(among(rows, file))
    for place in range(rows.n_rows):
        alone = features(added(file, rows.take(np.array([place])))).tail(1).reset_index(drop=True)
        pd.testing.assert_frame_equal(found.iloc[[place]].reset_index(drop=True), alone, atol=1e-6)


def test_a_row_alone_is_the_row_in_a_batch(file: PredictionFrame) -> None:
    rows = made_frame(60, seed=2)
    together = features(among(rows, file))
    for place in range(rows.n_rows):
        alone = features(among(rows.take(np.array([place])), file))
        pd.testing.assert_frame_equal(alone, together.iloc[[place]].reset_index(drop=True))


def test_a_file_without_the_query_or_target_is_no_obstacle(file: PredictionFrame) -> None:
    rows = made_frame(3, seed=5)
    rows = PredictionFrame(rows.rows.assign(query="new", target="new"), rows.scores, rows.learners)
    found = features(among(rows, file))
    assert (found[["query_size", "target_size"]] == 1).all(axis=None)
    assert (found["query_rank__a"] == 1).all()
    assert (found["path_above_size"] == 0).all()


def test_blends_of_ranks_and_of_fewer_learners_see_the_context(file: PredictionFrame) -> None:
    blend = WeightedMean(("c", "a"), (0.5, 0.5), "rank")
    rows = new_rows(file)
    row = rows.take(np.array([0]))
    expected = percentile_ranks(added(file, row))[-1, [2, 0]].mean()
    assert blend.predict(among(rows, file))[0] == pytest.approx(expected)
