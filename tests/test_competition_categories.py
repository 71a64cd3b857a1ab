"""Category paths: commas inside names, prefixes, and the tree that paths span."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.categories import ROOT, CategoryTree, leaf, levels, prefix, top_level

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
