"""Features that tell train from test are found without labels, and the stacker does without them."""

import numpy as np
import pandas as pd

from oof.crossfit import cross_fitted_scores
from oof.features import level2_features
from oof.frame import PredictionFrame
from oof.shift import feature_shift, shifted_features
from oof.stack import LightGBMStacker


def make_frame(n_rows: int, *, rows_per_target: int, seed: int, labelled: bool) -> PredictionFrame:
    """Rows whose targets repeat as often as asked; the scores say something of the labels, the targets nothing."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n_rows)
    rows = pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "language": rng.choice(["en", "fr"], n_rows),
            "query": [f"query {i // 2:04d}" for i in range(n_rows)],
            "target": [f"target x{i:04d}" for i in rng.integers(0, max(1, n_rows // rows_per_target), n_rows)],
            "query_en": "",
        }
    )
    if labelled:
        rows = rows.assign(label=label, fold=(np.arange(n_rows) // 2 % 4).astype(np.int8))
    scores = 1 / (1 + np.exp(-(label[:, None] - 0.5) * 2 + rng.normal(0, 1.5, (n_rows, 2))))
    return PredictionFrame(rows, scores, ("a", "b"))


TRAIN = make_frame(1200, rows_per_target=8, seed=0, labelled=True)


def test_a_feature_that_means_something_else_in_test_is_found() -> None:
    other = make_frame(900, rows_per_target=30, seed=1, labelled=False)
    found = shifted_features(TRAIN, [other])
    assert "target_size" in found
    assert not {"logit__a", "logit_mean", "language", "query_size", "query_gap__a"} & set(found)


def test_nothing_is_found_in_rows_like_those_of_train() -> None:
    # A fold of train has 300 rows and 150 targets.
    same_size_of_folds = make_frame(300, rows_per_target=2, seed=2, labelled=False)
    assert shifted_features(TRAIN, [same_size_of_folds]) == ()
    assert shifted_features(TRAIN, []) == ()


def test_a_handful_of_rows_excludes_nothing_by_chance() -> None:
    few = [make_frame(12, rows_per_target=2, seed=seed, labelled=False) for seed in range(20)]
    found = [name for frame in few for name in shifted_features(TRAIN, [frame])]
    really_others = ("target_min", "target_max")  # targets have fewer rows here, so their extremes lie elsewhere
    assert not {name for name in found if not (name.endswith(("_size", "_length")) or name.startswith(really_others))}


def test_missing_values_count_as_a_value_of_their_own() -> None:
    train, other = pd.DataFrame({"x": [1.0, 2.0, 3.0]}), pd.DataFrame({"x": [np.nan, np.nan]})
    assert feature_shift(train, other)["x"] == 1.0
    assert feature_shift(train.astype(np.float32), other.astype(np.float32))["x"] == 1.0


def test_excluded_features_change_nothing_for_the_stacker() -> None:
    excluded = tuple(name for name in level2_features(TRAIN, languages=["en", "fr"]) if name.startswith("target_"))
    stacker = LightGBMStacker(excluded=excluded)
    other_targets = TRAIN.rows.assign(target=[f"t{i}" for i in range(TRAIN.n_rows)])
    moved = PredictionFrame(other_targets, TRAIN.scores, TRAIN.learners)
    assert not set(stacker.fit(TRAIN).features) & set(excluded)
    np.testing.assert_array_equal(cross_fitted_scores(stacker, TRAIN), cross_fitted_scores(stacker, moved))
