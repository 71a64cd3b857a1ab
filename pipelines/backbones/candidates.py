"""What the other candidates of a query tell about one of them: the set of targets a query stands with, without labels.

The candidates of a query come from the corpus (all rows of all splits), so that a row has the same features alone
and in any batch. Sources: statistics of the base score within the query gained .4 to .8 pt, texts of all candidates of
the query 1.0 pt (public reports of two contests).
"""

import numpy as np
import pandas as pd

from competition.categories import ROOT, CategoryTree, levels
from pipelines.backbones.protocol import PAIR, Corpus

QUERY = ["language", "query"]
RELATIONS = ("candidates", "above", "below", "siblings", "deepest_common")


def with_candidates(pairs: pd.DataFrame, corpus: Corpus) -> pd.DataFrame:
    """Every one of `pairs` (columns `PAIR`) and the other candidates of its query; column `among` tells the sets.

    A pair of the corpus stands among the corpus's pairs of its query. One that the corpus lacks stands among those
    and itself: other new pairs of the same batch do not count. The candidates of new pairs come last.
    """
    near = corpus.pairs_of(pairs)
    known = near.copy()
    known["among"] = known.groupby(QUERY, sort=False).ngroup()
    compared = pairs[PAIR].drop_duplicates().merge(near, on=PAIR, how="left", indicator=True)
    new = compared.loc[compared["_merge"] == "left_only", PAIR]
    new["among"] = np.arange(len(new)) + len(known)
    others = new[[*QUERY, "among"]].merge(near, on=QUERY)
    return pd.concat([frame[[*PAIR, "among"]] for frame in (known, new, others)], ignore_index=True)


def places_in(together: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """``(n_pairs,)``: the place in `together` where each pair is what is looked at: its first."""
    first = together.drop_duplicates(PAIR)
    found = pd.MultiIndex.from_frame(first[PAIR]).get_indexer(pd.MultiIndex.from_frame(pairs[PAIR]))
    assert (found >= 0).all(), "together was made from these pairs"
    return first.index.to_numpy()[found]


def nearest_nodes(targets: pd.Series, tree: CategoryTree) -> np.ndarray:
    """``(n_targets,)``: the place of every target's node, else of its nearest ancestor in the tree, else `ROOT`.

    Examples
    --------
    >>> tree = CategoryTree.of(["pets,dogs"])
    >>> nearest_nodes(pd.Series(["pets,dogs", "pets,cats,toys", "toys"]), tree).tolist()
    [1, 0, -1]
    """
    place = {path: i for i, path in enumerate(tree.paths)}

    def nearest(target: str) -> int:
        names = levels(target)
        chain = (",".join(names[:depth]) for depth in range(len(names), 0, -1))
        return next((place[path] for path in chain if path in place), ROOT)

    codes, distinct = pd.factorize(targets)
    return np.array([nearest(target) for target in distinct], dtype=np.int64)[codes]


def standing_among(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How each pair's values stand among its query's candidates, float32 ``(n_pairs, 4 * n_values)``.

    Per value: gap to the greatest, gap to the least, gap to the mean, rank from the top (1 is the greatest).
    """
    order = np.argsort(codes, kind="stable")  # pandas takes another mean, in float32, where groups are not side by side
    frame = pd.DataFrame(values[order])
    grouped = frame.groupby(codes[order])
    blocks: list[pd.DataFrame] = [
        grouped.transform("max") - frame,
        frame - grouped.transform("min"),
        frame - grouped.transform("mean"),
        grouped.rank(method="min", ascending=False),
    ]
    found = np.empty((len(values), len(blocks) * values.shape[1]), dtype=np.float32)
    found[order] = np.hstack([block.to_numpy(dtype=np.float32) for block in blocks])
    return found


def relations(node: np.ndarray, codes: np.ndarray, tree: CategoryTree) -> np.ndarray:
    """How each pair's node lies in the tree among its query's candidates, float32 ``(n_pairs, len(RELATIONS))``.

    Number of candidates; of them ancestors, descendants and siblings of this one; most levels shared with another.
    """
    found = np.zeros((len(node), len(RELATIONS)), dtype=np.float32)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        chains = tree.ancestors[node[members]]
        common = ((chains[:, None] == chains[None]) & (chains[:, None] != ROOT)).sum(axis=2)
        depth = tree.depth[node[members]]
        np.fill_diagonal(common, 0)
        other = node[members][:, None] != node[members][None]
        above = (common == depth[None, :]) & other
        below = (common == depth[:, None]) & other
        parent = tree.parent[node[members]]
        siblings = (parent[:, None] == parent[None]) & other
        found[members] = np.stack(
            [
                np.full(len(members), len(members)),
                *(m.sum(axis=1) for m in (above, below, siblings)),
                common.max(axis=1),
            ],
            axis=1,
        )
    return found
