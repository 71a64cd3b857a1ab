"""Category paths and the tree they span.

The separator is a comma with no space after it; a comma followed by a space belongs to a name
("kitchen, dining & bar"), so ``split(",")`` would cut names in two.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEPARATOR = re.compile(r",(?! )")
ROOT = -1


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

    def places(self, paths: Iterable[str]) -> npt.NDArray[np.int64]:
        """``(n_paths,)`` place of every path among the nodes; a path that is no node is a KeyError."""
        place = {path: i for i, path in enumerate(self.paths)}
        return np.array([place[",".join(levels(path))] for path in paths], dtype=np.int64)
