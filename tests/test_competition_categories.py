"""Category paths: commas inside names, prefixes, and the tree that paths span."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.categories import ROOT, CategoryTree, category_coverage, leaf, levels, prefix, top_level

NAMES = st.sampled_from(["a", "b", "c & d", "kitchen, dining & bar", "ü"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(",".join)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_levels_are_the_names_that_were_joined(names: list[str]) -> None:
    path = ",".join(names)
    assert levels(path) == names
    assert (top_level(path), leaf(path)) == (names[0], names[-1])
    assert [prefix(path, depth) for depth in (1, len(names), 9)] == [names[0], path, path]


def test_a_comma_before_a_blank_belongs_to_the_name() -> None:
    assert levels("home,kitchen, dining & bar") == ["home", "kitchen, dining & bar"]


@given(st.lists(PATHS, min_size=1, max_size=12))
def test_the_nodes_are_all_prefixes_and_each_once(paths: list[str]) -> None:
    tree = CategoryTree.of(paths)
    expected = {prefix(path, depth) for path in paths for depth in range(1, len(levels(path)) + 1)}
    assert set(tree.paths) == expected
    assert len(tree.paths) == len(expected)


@given(st.lists(PATHS, min_size=1, max_size=12))
def test_the_arrays_tell_what_the_paths_tell(paths: list[str]) -> None:
    tree = CategoryTree.of(paths)
    for i, path in enumerate(tree.paths):
        names = levels(path)
        chain = tree.places([prefix(path, depth) for depth in range(1, len(names) + 1)]).tolist()
        assert tree.depth[i] == len(names)
        assert chain[-1] == i
        assert tree.parent[i] == (chain[-2] if len(chain) > 1 else ROOT)
        padding = [ROOT] * (tree.ancestors.shape[1] - len(chain))
        assert tree.ancestors[i].tolist() == [*chain, *padding]
        assert chain == sorted(chain), "ancestors come before their descendants"
        assert tree.n_children[i] == sum(other == i for other in tree.parent)


@given(st.lists(PATHS, min_size=1, max_size=8), st.randoms())
def test_the_tree_does_not_depend_on_order_or_repeats(paths: list[str], random: object) -> None:
    shuffled = paths * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = CategoryTree.of(paths), CategoryTree.of(shuffled)
    assert one.paths == other.paths
    np.testing.assert_array_equal(one.ancestors, other.ancestors)


def test_a_path_that_is_no_node_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        CategoryTree.of(["pets"]).places(["toys"])


def test_coverage_tells_seen_from_partly_seen_and_unseen() -> None:
    train = pd.DataFrame({"target": ["pets,dogs,toys", "home,kitchen, dining & bar", "home,kitchen, dining & bar"]})
    other = pd.DataFrame(
        {
            "target": [
                "pets,dogs,toys",  # a target of train
                "pets,dogs",  # a node above one
                "pets,dogs,toys,balls",  # below one
                "home,kitchen, dining & bar,pans",
                "home,kitchen",  # half a name is another name
                "garden",
                "garden",
            ],
            "label": pd.array([1, 0, 1, None, None, 0, 1], dtype="Int8"),
        }
    )
    table = category_coverage(train, other).set_index("coverage")
    assert table.index.tolist() == ["seen", "partly seen", "unseen"]
    assert table["rows"].tolist() == [1, 4, 2]
    assert table["targets"].tolist() == [1, 4, 1]
    assert table["share"].tolist() == pytest.approx([1 / 7, 4 / 7, 2 / 7])
    assert table["depth"].tolist() == pytest.approx([3, (2 + 4 + 3 + 2) / 4, 1])
    assert table["known_levels"].tolist() == pytest.approx([3, (2 + 3 + 2 + 1) / 4, 0])
    assert table["positive_rate"].tolist() == pytest.approx([1, 0.5, 0.5])


def test_coverage_of_nothing_and_without_labels() -> None:
    train = pd.DataFrame({"target": ["a"]})
    nothing = pd.DataFrame({"target": pd.Series([], dtype="str"), "label": pd.array([], dtype="Int8")})
    assert category_coverage(train, nothing)["rows"].tolist() == [0, 0, 0]
    blind = pd.DataFrame({"target": ["a"], "label": pd.array([None], dtype="Int8")})
    assert category_coverage(train, blind)["positive_rate"].isna().all()


def test_names_below_list_every_node_once() -> None:
    tree = CategoryTree.of(["pets,dogs,toys", "pets,cats", "home,kitchen, dining & bar"])
    assert tree.names_below == {
        "": ("home", "pets"),
        "home": ("kitchen, dining & bar",),
        "pets": ("cats", "dogs"),
        "pets,dogs": ("toys",),
    }
