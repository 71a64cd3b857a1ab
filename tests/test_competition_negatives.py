"""Made-up negatives contradict no label, come from the given rows alone, and get harder with the knob."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from tiny import PATHS, make_rows

from competition.categories import top_level
from competition.errors import CompetitionError
from competition.negatives import (
    LexicalSpace,
    easy_negatives,
    hard_negatives,
    query_meanings,
    resample_to_prior,
)
from competition.tasks import QC, QI, Task

TITLES = [f"{color} {thing}" for color in ("red", "blue", "green") for thing in ("shoes", "shirt", "dog toy", "lamp")]


def task_rows(task: Task, n_rows: int = 400) -> pd.DataFrame:
    """Rows of paths or titles; the query names a colour and a thing."""
    rows = make_rows(n_rows, seed=5, targets=PATHS if task is QC else TITLES)
    return rows.assign(group=rows["query"], label=(rows["id"] % 2).astype("Int8"))


def made(task: Task, rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Easy negatives, and hard ones at several settings of the knob."""
    hard = [hard_negatives(rows, task, share=0.8, hardness=hardness, seed=0) for hardness in (0.0, 0.5, 1.0)]
    return [easy_negatives(rows, task, share=0.8, seed=0), *hard]


@pytest.mark.parametrize("task", [QC, QI])
def test_no_negative_is_a_relevant_pair_in_any_language(task: Task) -> None:
    rows = task_rows(task)
    meaning = dict(zip(rows["id"], query_meanings(rows), strict=True))
    known = {(meaning[key], target) for key, target in zip(rows["id"], rows["target"], strict=True)}
    for negatives in made(task, rows):
        assert (negatives["label"] == 0).all()
        assert not {(meaning[key], t) for key, t in zip(negatives["parent"], negatives["target"], strict=True)} & known


def test_a_translation_or_another_casing_of_a_relevant_pair_is_not_made_negative() -> None:
    rows = pd.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "query": ["zapatos", "Shoes", "chaussures", "hat"],
            "query_en": ["shoes", "", "shoes", ""],
            "target": ["red shoe", "blue shoe", "RED Shoe", "green hat"],
            "label": [1, 1, 1, 1],
        }
    ).astype({"query": "str", "query_en": "str", "target": "str"})
    negatives = hard_negatives(rows, QI, share=1.0, hardness=1.0, seed=0)
    assert set(negatives.loc[negatives["parent"] < 4, "target"]) == {"green hat"}
    assert negatives.loc[negatives["parent"] == 4, "target"].isin(["red shoe", "blue shoe", "RED Shoe"]).all()


def test_nothing_on_the_path_of_a_relevant_category_is_made_negative() -> None:
    paths = ["pets", "pets,dogs", "pets,dogs,toys", "pets,cats", "shoes"]
    rows = pd.DataFrame({"id": range(5), "query": ["dog", "a", "b", "c", "d"], "label": [1, 0, 0, 0, 0]})
    rows["target"] = ["pets,dogs", *[path for path in paths if path != "pets,dogs"]]
    found = {
        hard_negatives(rows, QC, share=1.0, hardness=hardness, seed=0)["target"].item() for hardness in (0, 0.3, 0.7, 1)
    }
    assert found == {"pets,cats", "shoes"}
    easy = {easy_negatives(rows, QC, share=1.0, seed=seed)["target"].item() for seed in range(9)}
    assert easy == {"shoes"}


def test_easy_negatives_are_from_another_branch() -> None:
    rows = task_rows(QC)
    negatives = easy_negatives(rows, QC, share=1.0, seed=0)
    tops = rows[rows["label"] == 1].groupby(query_meanings(rows)[(rows["label"] == 1).to_numpy()])["target"]
    of_meaning = {code: {top_level(path) for path in paths} for code, paths in tops}
    meaning = dict(zip(rows["id"], query_meanings(rows), strict=True))
    assert len(negatives)
    for parent, target in zip(negatives["parent"], negatives["target"], strict=True):
        assert top_level(target) not in of_meaning[meaning[parent]]


def test_targets_come_from_the_given_rows_and_the_rest_from_the_parent() -> None:
    rows = task_rows(QI)
    side = rows[rows["id"] % 3 > 0]
    for negatives in made(QI, side):
        assert set(negatives["target"]) <= set(side["target"])
        parents = side.set_index("id").loc[negatives["parent"]]
        assert (parents["label"] == 1).all()
        for column in ("query", "query_en", "language", "group"):
            np.testing.assert_array_equal(negatives[column], parents[column])
        assert (negatives["weight"] == 1).all()


@pytest.mark.parametrize("task", [QC, QI])
def test_the_order_of_the_rows_changes_nothing(task: Task) -> None:
    rows = task_rows(task)
    for one, other in zip(made(task, rows), made(task, rows.sample(frac=1, random_state=0)), strict=True):
        columns = ["parent", "target"]
        first, second = (frame.sort_values("parent")[columns].reset_index(drop=True) for frame in (one, other))
        pd.testing.assert_frame_equal(first, second)


def test_a_harder_negative_is_more_similar() -> None:
    rows = task_rows(QI)
    space = LexicalSpace(sorted(set(rows["target"])))
    means = []
    for hardness in (0.0, 0.5, 0.8, 1.0):
        negatives = hard_negatives(rows, QI, share=1.0, hardness=hardness, seed=0, space=space)
        asked = negatives["query_en"].where(negatives["query_en"] != "", negatives["query"])
        similar = space.queries(list(asked)).multiply(space.targets(list(negatives["target"]))).sum(axis=1)
        means.append(float(similar.mean()))
    assert means[0] < means[1] < means[3]
    assert means == sorted(means)


class Placed:
    """Vectors that are written down: cosine with the query "dog" is the target's own."""

    vectors = {"dog": [1.0, 0.0], "a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0], "d": [0.8, 0.6]}  # noqa: RUF012

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.vectors[text] for text in texts])

    def targets(self, texts: Sequence[str]) -> np.ndarray:
        return self.queries(texts)


def test_vectors_that_are_given_say_what_is_near() -> None:
    rows = pd.DataFrame({"id": range(4), "query": ["dog", "b", "c", "d"], "target": ["a", "b", "c", "d"]})
    rows["label"] = [1, 0, 0, 0]
    found = [
        hard_negatives(rows, QI, share=1.0, hardness=hardness, seed=0, space=Placed())["target"].item()
        for hardness in (0.0, 0.4, 1.0)
    ]
    assert found == ["c", "b", "d"]


def test_no_negatives_where_nothing_is_left() -> None:
    rows = pd.DataFrame({"id": [1, 2], "query": ["a", "a"], "target": ["x", "y"], "label": [1, 1]})
    assert hard_negatives(rows, QI, share=1.0, hardness=1.0, seed=0).empty
    assert easy_negatives(rows, QI, share=1.0, seed=0).empty
    with pytest.raises(CompetitionError, match=r"hardness.*between 0 and 1"):
        hard_negatives(rows, QI, share=1.0, hardness=1.5, seed=0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_reached(rate: float) -> None:
    rows = task_rows(QI)
    kept = resample_to_prior(rows, rate, seed=0)
    assert abs(kept["label"].mean() - rate) < 0.01
    assert kept["id"].is_monotonic_increasing
    assert len(kept) == round(200 / max(rate, 1 - rate))  # one label is whole


def test_a_row_is_dropped_whatever_the_order() -> None:
    rows = task_rows(QI)
    turned = resample_to_prior(rows[::-1], 0.3, seed=0)
    assert set(turned["id"]) == set(resample_to_prior(rows, 0.3, seed=0)["id"])
    with pytest.raises(CompetitionError, match="one of the two labels"):
        resample_to_prior(rows[rows["label"] == 1], 0.5, seed=0)
