"""LightGBM's text format, checked before LightGBM reads it.

LightGBM believes its files: a child that points nowhere is read beyond the end of an array, a loop of children never
ends, wrong `tree_sizes` are read from wherever they point to, and a stray line among the parameters ends the process.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from competition.errors import CompetitionError, Fault
from competition.regular_files import read_bytes

if TYPE_CHECKING:
    import lightgbm as lgb

MOST_BYTES = 512 * 2**20
HEAD = {"num_class": "1", "num_tree_per_iteration": "1", "objective": "binary sigmoid:1"}
HEAD_KEYS = (
    "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
    "feature_infos",
)  # fmt: skip
TREE_KEYS = (
    "num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child",
    "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count", "cat_boundaries",
    "cat_threshold", "is_linear", "shrinkage",
)  # fmt: skip
CATEGORICAL = 1  # the lowest bit of a decision's type
INTEGER = re.compile(r"-?[0-9]{1,10}", re.ASCII)


def load_booster(path: Path) -> "lgb.Booster":
    """The trees in a file of LightGBM's text format.

    Raises
    ------
    CompetitionError
        It is not there, or is none.
    """
    import lightgbm as lgb

    trees = load_trees(path)
    try:
        return lgb.Booster(model_str=trees)
    except lgb.basic.LightGBMError as error:
        raise _damaged(str(path), str(error)) from error


def load_trees(path: Path, *, n_features: int | None = None) -> str:
    """The text of the trees in a file, safe for LightGBM to read; `n_features` is how many they must look at.

    Raises
    ------
    CompetitionError
        The file is not there, is no model of one class, or its trees are none.
    """
    try:
        found, trees = checked_trees(read_bytes(path, most=MOST_BYTES).decode("utf-8"))
        if n_features is not None and found != n_features:
            raise ValueError(f"the trees look at {found} features, not at {n_features}")
    except (OSError, ValueError, OverflowError) as error:
        raise _damaged(str(path), str(error)) from error
    return trees


def _damaged(where: str, found: str) -> CompetitionError:
    return CompetitionError(
        "trees cannot be read",
        faults=[Fault(where, found[:300], "LightGBM's text format, as it was written")],
        advice="delete the folder that the file is in, and make it again with the same command",
    )


def checked_trees(text: str) -> tuple[int, str]:
    """The number of features that the trees of a LightGBM model look at, and the text of the trees alone.

    Further lines and the parameters of training, which have no part in prediction, are left out.

    Raises
    ------
    ValueError
        The text is no such model: what is wrong is named.
    """
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    values = _values(head)
    if not head.startswith("tree\n") or "\nend of trees" not in text:
        raise ValueError("it does not begin with 'tree', or has no 'end of trees'")
    for key, wanted in HEAD.items():
        if values.get(key) != wanted:
            raise ValueError(f"{key} is {values.get(key)!r:.60}, not {wanted}")
    n_features = _integers(values, "max_feature_idx", 1)[0] + 1
    names, infos = values.get("feature_names", "").split(" "), values.get("feature_infos", "").split(" ")
    if not len(names) == len(infos) == n_features:
        raise ValueError(f"it has {n_features} features, {len(names)} names and {len(infos)} descriptions of them")
    trees = [_values(block) for block in blocks]
    for number, tree in enumerate(trees):
        try:
            _check_tree(tree, n_features)
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from error
    lines = ["tree", *_lines(values, HEAD_KEYS), ""]
    for number, tree in enumerate(trees):
        lines += [f"Tree={number}", *_lines(tree, TREE_KEYS), "", ""]
    return n_features, "\n".join([*lines, "end of trees", "", "pandas_categorical:null", ""])


def _lines(values: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    return [f"{key}={values[key]}" for key in keys if key in values]


def _check_tree(values: Mapping[str, str], n_features: int) -> None:
    (n_leaves,) = _integers(values, "num_leaves", 1)
    if n_leaves < 1 or values.get("is_linear", "0") != "0":
        raise ValueError(f"{n_leaves} leaves, is_linear {values.get('is_linear')!r:.60}")
    _floats(values, "leaf_value", n_leaves)
    if not math.isfinite(_floats(values, "shrinkage", 1)[0]):
        raise ValueError("shrinkage is no number")
    if n_leaves == 1:
        return
    n_nodes = n_leaves - 1
    left, right = (_integers(values, f"{side}_child", n_nodes) for side in ("left", "right"))
    # Each node but the root, and each leaf (as -1, -2, ...), hangs below one node, which was there before it.
    if sorted([*left, *right]) != [*range(-n_leaves, 0), *range(1, n_nodes)]:
        raise ValueError("its children are not each node and each leaf once")
    if any(0 <= child <= node for children in (left, right) for node, child in enumerate(children)):
        raise ValueError("a node hangs below itself")
    if not all(0 <= feature < n_features for feature in _integers(values, "split_feature", n_nodes)):
        raise ValueError("it looks at a feature that is not there")
    decisions, thresholds = _integers(values, "decision_type", n_nodes), _floats(values, "threshold", n_nodes)
    for key in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        _floats(values, key, n_nodes)
    for key in ("leaf_weight", "leaf_count"):
        _floats(values, key, n_leaves)
    _check_categories(values, [cut for kind, cut in zip(decisions, thresholds, strict=True) if kind & CATEGORICAL])


def _check_categories(values: Mapping[str, str], cuts: Sequence[float]) -> None:
    """The cuts of categorical nodes are numbers of bit sets, which lie one after the other in `cat_threshold`."""
    (n_sets,) = _integers(values, "num_cat", 1)
    if not all(cut in range(n_sets) for cut in cuts):
        raise ValueError("a node looks at a set of categories that is not there")
    if n_sets == 0:
        return
    bounds = _integers(values, "cat_boundaries", n_sets + 1)
    n_words = len(values.get("cat_threshold", "").split(" "))
    if bounds[0] != 0 or bounds[-1] != n_words or bounds != sorted(bounds):
        raise ValueError("cat_boundaries do not divide cat_threshold")
    _floats(values, "cat_threshold", n_words)


def _values(block: str) -> dict[str, str]:
    """The ``key=value`` lines of a block; of a key twice LightGBM keeps the last, as this does."""
    pairs = (line.partition("=") for line in block.split("\n"))
    return {key: value for key, equals, value in pairs if equals}


def _integers(values: Mapping[str, str], key: str, n: int) -> list[int]:
    texts = _texts(values, key, n)
    if not all(INTEGER.fullmatch(text) for text in texts):
        raise ValueError(f"{key} are not whole numbers")
    return [int(text) for text in texts]


def _floats(values: Mapping[str, str], key: str, n: int) -> list[float]:
    numbers = [float(text) for text in _texts(values, key, n)]
    if any(map(math.isnan, numbers)):
        raise ValueError(f"{key} are not numbers")
    return numbers


def _texts(values: Mapping[str, str], key: str, n: int) -> list[str]:
    texts = values.get(key, "").split(" ")
    if len(texts) != n:
        raise ValueError(f"{key} has {len(texts)} values, not {n}")
    return texts
