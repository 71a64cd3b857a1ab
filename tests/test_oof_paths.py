"""Scores along a path: compared within one query and fold only, by hand and as properties; the stacker takes them."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from competition.categories import levels
from oof.crossfit import cross_fitted_scores
from oof.features import level2_features
from oof.frame import PredictionFrame
from oof.paths import has_paths, path_features, related_rows
from oof.shift import shifted_features
from oof.stack import FittedLightGBM, LightGBMStacker

NODES = ["pets", "pets,dogs", "pets,dogs,toys", "pets,dogs,food", "pets,cats", "kitchen, dining & bar", "shoes"]


def make_frame(n_queries: int, *, seed: int, labelled: bool = True) -> PredictionFrame:
    """Each query stands with four nodes, and is about one of `NODES`: relevant are that one and all above it.

    The two learners know the label of a row, with noise of their own.
    """
    rng = np.random.default_rng(seed)
    lines: list[tuple[str, str, int]] = []
    for query in range(n_queries):
        about = NODES[rng.integers(len(NODES))]
        nodes = [NODES[place] for place in rng.permutation(len(NODES))[:4]]
        lines += [(f"query {query}", node, int(f"{about},".startswith(f"{node},"))) for node in nodes]
    rows = pd.DataFrame(lines, columns=["query", "target", "label"]).astype({"query": "str", "target": "str"})
    rows = rows.assign(id=np.arange(len(rows)), language="en")
    logits = (rows["label"].to_numpy()[:, None] - 0.5) * 2 + rng.normal(0, 1.2, (len(rows), 2))
    if labelled:
        rows["fold"] = (rows["query"].str[6:].astype(int) % 4).astype(np.int8)
    else:
        rows = rows.drop(columns="label")
    return PredictionFrame(rows, 1 / (1 + np.exp(-logits)), ("a", "b"))


def by_hand() -> PredictionFrame:
    targets = ["pets", "pets,dogs", "pets,dogs,toys", "pets,cats", "pets", "pets,dogs"]
    rows = pd.DataFrame(
        {
            "id": range(6),
            "language": ["en"] * 5 + ["fr"],
            "query": ["dog"] * 4 + ["cat", "dog"],
            "target": targets,
        }
    )
    logits = np.array([0.0, 2.0, 1.0, -1.0, 5.0, 7.0])
    return PredictionFrame(rows, 1 / (1 + np.exp(-logits))[:, None], ("a",))


def test_features_by_hand() -> None:
    found = path_features(by_hand())
    assert found["path_above_size"].tolist() == [0, 1, 2, 1, 0, 0]
    assert found["path_below_size"].tolist() == [3, 1, 0, 0, 0, 0]
    nan = float("nan")
    for name, values in {
        "path_above_min": [nan, 0, 0, 0, nan, nan],
        "path_above_mean": [nan, 0, 1, 0, nan, nan],
        "path_above_max": [nan, 0, 2, 0, nan, nan],
        "path_below_min": [-1, 1, nan, nan, nan, nan],
        "path_below_mean": [2 / 3, 1, nan, nan, nan, nan],
        "path_below_max": [2, 1, nan, nan, nan, nan],
        "path_monotone": [1, 1, 0.5, -1, 5, 7],
        "path_gap": [1, -1, -0.5, 0, 0, 0],
    }.items():
        np.testing.assert_allclose(found[name], values, atol=1e-9, err_msg=name)


def test_related_rows_are_all_pairs_of_one_query_and_fold_and_no_others() -> None:
    frame = make_frame(60, seed=0)
    rows = frame.rows
    expected = set()
    for i, j in itertools.product(range(frame.n_rows), repeat=2):
        below, above = levels(rows["target"].iloc[i]), levels(rows["target"].iloc[j])
        same = rows["query"].iloc[i] == rows["query"].iloc[j]
        if same and len(above) < len(below) and below[: len(above)] == above:
            expected.add((i, j))
    found = list(zip(*(places.tolist() for places in related_rows(frame)), strict=True))
    assert set(found) == expected
    assert len(found) == len(expected) > 0


def test_rows_of_another_fold_do_not_count() -> None:
    frame = by_hand()
    folded = PredictionFrame(frame.rows.assign(fold=np.array([0, 1, 0, 0, 0, 0], dtype=np.int8)), frame.scores, ("a",))
    assert path_features(folded)["path_above_size"].tolist() == [0, 0, 1, 1, 0, 0]


def test_features_are_blind_to_labels_and_row_order() -> None:
    frame = make_frame(80, seed=3)
    flipped = PredictionFrame(frame.rows.assign(label=1 - frame.rows["label"]), frame.scores, frame.learners)
    pd.testing.assert_frame_equal(path_features(frame), path_features(flipped))
    order = np.random.default_rng(0).permutation(frame.n_rows)
    turned = PredictionFrame(frame.rows.iloc[order].reset_index(drop=True), frame.scores[order], frame.learners)
    expected = path_features(frame).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(path_features(turned), expected)


def test_titles_have_no_paths() -> None:
    frame = make_frame(60, seed=4)
    titles = frame.rows.assign(target=[f"title, {i}" for i in range(frame.n_rows)])
    assert has_paths(frame)
    assert not has_paths(PredictionFrame(titles, frame.scores, frame.learners))
    bare = PredictionFrame(frame.rows[["id", "language"]], frame.scores, frame.learners)
    assert not has_paths(bare)
    assert path_features(bare).empty


def test_the_stacker_gains_where_one_path_says_more_than_one_row(tmp_path: Path) -> None:
    frame = make_frame(700, seed=5)
    losses = {}
    for paths in (False, True):
        scores = cross_fitted_scores(LightGBMStacker(paths=paths), frame)
        losses[paths] = -np.log(np.where(frame.labels == 1, scores, 1 - scores)).mean()
    assert losses[True] < losses[False] - 0.01


def test_a_fitted_stacker_with_paths_survives_save_and_load(tmp_path: Path) -> None:
    frame, other = make_frame(400, seed=6), make_frame(50, seed=7, labelled=False)
    fitted = LightGBMStacker(paths=True).fit(frame)
    assert {"path_monotone", "path_above_max"} <= set(fitted.features)
    assert not any(name.startswith("path_") for name in LightGBMStacker().fit(frame).features)
    fitted.to_folder(tmp_path)
    np.testing.assert_array_equal(FittedLightGBM.from_folder(tmp_path).predict(other), fitted.predict(other))


def test_path_features_that_differ_in_test_are_found() -> None:
    frame = make_frame(400, seed=8)
    apart = make_frame(400, seed=9, labelled=False)
    alone = PredictionFrame(apart.rows.assign(query=apart.rows["id"].astype("str")), apart.scores, apart.learners)
    found = shifted_features(frame, [alone], paths=True)
    assert "path_above_max" in found
    assert not any(name.startswith("path_") for name in shifted_features(frame, [alone]))
    assert not any(name.startswith("path_") for name in shifted_features(frame, [apart], paths=True))


def test_without_paths_features_are_what_they_were() -> None:
    frame = make_frame(40, seed=10)
    plain = level2_features(frame, languages=["en"])
    more = level2_features(frame, languages=["en"], paths=True)
    pd.testing.assert_frame_equal(more[list(plain)], plain)
    assert [name for name in more if name not in plain] == list(path_features(frame))
