"""Category paths and the tree they span.

The separator is a comma with no space after it; a comma followed by a space belongs to a name
("kitchen, dining & bar"), so ``split(",")`` would cut names in two.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

SEPARATOR = re.compile(r",(?! )")
ROOT = -1
COVERAGE = SEEN, PARTLY, UNSEEN = ("seen", "partly seen", "unseen")


def levels(path: str) -> list[str]:
    """The names along `path`, top level first.

    Examples
    --------
    >>> levels("home & garden,kitchen, dining & bar,cookware")
    ['home & garden', 'kitchen, dining & bar', 'cookware']
    """
    return [name.strip() for name in SEPARATOR.split(path)]


def prefix(path: str, depth: int) -> str:
    """The first `depth` levels of `path`, joined as in the file; a shorter path is returned whole.

    Examples
    --------
    >>> prefix("home & garden,kitchen, dining & bar,cookware", 2)
    'home & garden,kitchen, dining & bar'
    """
    return ",".join(levels(path)[:depth])


def top_level(path: str) -> str:
    """The first level of `path`."""
    return prefix(path, 1)


def leaf(path: str) -> str:
    """The last level of `path`.

    Examples
    --------
    >>> leaf("home & garden,kitchen, dining & bar,cookware")
    'cookware'
    """
    return levels(path)[-1]


@dataclass(frozen=True, eq=False)
class CategoryTree:
    """Every prefix of a set of category paths, as a tree in arrays.

    Attributes
    ----------
    paths
        All nodes, sorted; a node is its full path. Ancestors come before their descendants.
    parent
        ``(n_nodes,)`` place of the parent in `paths`, `ROOT` for a top level.
    depth
        ``(n_nodes,)`` number of levels, from 1.
    ancestors
        ``(n_nodes, max depth)`` places of the ancestors, top level first and the node itself last, then `ROOT`.
    """

    paths: tuple[str, ...]
    parent: npt.NDArray[np.int64]
    depth: npt.NDArray[np.int64]
    ancestors: npt.NDArray[np.int64]

    @classmethod
    def of(cls, paths: Iterable[str]) -> "CategoryTree":
        """The tree that `paths` span.

        Examples
        --------
        >>> tree = CategoryTree.of(["pets,dogs", "pets,cats,toys"])
        >>> tree.paths
        ('pets', 'pets,cats', 'pets,cats,toys', 'pets,dogs')
        >>> tree.parent.tolist()
        [-1, 0, 1, 0]
        """
        chains = {tuple(levels(path)) for path in paths}
        nodes = sorted({chain[:depth] for chain in chains for depth in range(1, len(chain) + 1)})
        place = {chain: i for i, chain in enumerate(nodes)}
        depth = np.array([len(chain) for chain in nodes], dtype=np.int64)
        ancestors = np.full((len(nodes), int(depth.max(initial=1))), ROOT, dtype=np.int64)
        for i, chain in enumerate(nodes):
            ancestors[i, : len(chain)] = [place[chain[:d]] for d in range(1, len(chain) + 1)]
        parent = np.array([place.get(chain[:-1], ROOT) for chain in nodes], dtype=np.int64)
        return cls(tuple(",".join(chain) for chain in nodes), parent, depth, ancestors)

    @property
    def n_children(self) -> npt.NDArray[np.int64]:
        """``(n_nodes,)`` number of children."""
        return np.bincount(self.parent[self.parent != ROOT], minlength=len(self.paths))

    @cached_property
    def names_below(self) -> dict[str, tuple[str, ...]]:
        """Path -> the names of its children, sorted; "" has the top levels.

        Examples
        --------
        >>> CategoryTree.of(["pets,dogs", "pets,cats,toys"]).names_below["pets"]
        ('cats', 'dogs')
        """
        found: dict[str, list[str]] = {"": []}
        for path, parent in zip(self.paths, self.parent.tolist(), strict=True):
            found.setdefault(self.paths[parent] if parent != ROOT else "", []).append(leaf(path))
        return {path: tuple(names) for path, names in found.items()}

    def places(self, paths: Iterable[str]) -> npt.NDArray[np.int64]:
        """``(n_paths,)`` place of every path among the nodes; a path that is no node is a KeyError."""
        place = {path: i for i, path in enumerate(self.paths)}
        return np.array([place[",".join(levels(path))] for path in paths], dtype=np.int64)


def category_coverage(train: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """How far the category paths of `other` are known from `train`, a line per way: ``seen, partly seen, unseen``.

    A path is seen if it is a target of train; partly seen if it is a node above one, or its first levels are; unseen if
    not even its top level is known.

    Returns
    -------
    Columns coverage, rows, share, targets (distinct), depth (mean number of levels of the rows), known_levels (mean
    number of levels, from the top, that train knows), positive_rate (of the rows with a label, NaN without).

    Examples
    --------
    >>> train = pd.DataFrame({"target": ["pets,dogs"]})
    >>> other = pd.DataFrame({"target": ["pets,dogs", "pets,cats,toys", "shoes"], "label": [1, 1, 0]})
    >>> category_coverage(train, other)[["coverage", "rows", "depth", "known_levels"]].values.tolist()
    [['seen', 1, 2.0, 2.0], ['partly seen', 1, 3.0, 1.0], ['unseen', 1, 1.0, 0.0]]
    """
    seen = {tuple(levels(path)) for path in train["target"].unique()}
    nodes = {chain[:depth] for chain in seen for depth in range(1, len(chain) + 1)}
    codes, targets = pd.factorize(other["target"])
    chains = [tuple(levels(path)) for path in targets]
    known = [max((d for d in range(1, len(chain) + 1) if chain[:d] in nodes), default=0) for chain in chains]
    kinds = [SEEN if chain in seen else PARTLY if n else UNSEEN for chain, n in zip(chains, known, strict=True)]
    rows = pd.DataFrame(
        {
            "coverage": pd.Categorical(np.array(kinds, dtype=object)[codes], categories=COVERAGE),
            "target": codes,
            "depth": np.array([len(chain) for chain in chains], dtype=np.float64)[codes],
            "known_levels": np.array(known, dtype=np.float64)[codes],
            "label": other["label"].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan),
        }
    )
    grouped = rows.groupby("coverage", observed=False)
    table = pd.DataFrame(
        {
            "rows": grouped.size(),
            "share": grouped.size() / max(len(rows), 1),
            "targets": grouped["target"].nunique(),
            "depth": grouped["depth"].mean(),
            "known_levels": grouped["known_levels"].mean(),
            "positive_rate": grouped["label"].mean(),
        }
    )
    table.index = table.index.astype("str")
    return table.reset_index()
