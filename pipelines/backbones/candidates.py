"""What the other candidates of a query tell about one of them: the set of targets a query stands with, without labels.

The candidates of a query come from the corpus (all rows of all splits), so that a row has the same features alone
and in any batch. Sources: statistics of the base score within the query gained .4 to .8 pt, texts of all candidates of
the query 1.0 pt (public reports of two contests).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from competition.categories import ROOT, CategoryTree
from pipelines.backbones.protocol import PAIR, Corpus

RELATIONS = ("candidates", "above", "below", "siblings", "deepest_common")


def with_candidates(pairs: pd.DataFrame, corpus: Corpus) -> pd.DataFrame:
    """`pairs` (columns `PAIR`) and all other candidates of their queries, distinct and sorted."""
    wanted = pairs[["language", "query"]].drop_duplicates()
    others = corpus.pairs.merge(wanted, on=["language", "query"])
    together = pd.concat([pairs[PAIR], others[PAIR]]).drop_duplicates()
    return together.sort_values(PAIR, kind="stable", ignore_index=True)


def places_in(together: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """``(n_pairs,)``: the place of every pair in `together`, which has each of them once."""
    return pd.MultiIndex.from_frame(together[PAIR]).get_indexer(pd.MultiIndex.from_frame(pairs[PAIR]))


def query_codes(pairs: pd.DataFrame) -> np.ndarray:
    """``(n_pairs,)``: the number of every pair's query in its language."""
    return pairs.groupby(["language", "query"], sort=False).ngroup().to_numpy()


def standing_among(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How each pair's values stand among its query's candidates, float32 ``(n_pairs, 4 * n_values)``.

    Per value: gap to the greatest, gap to the least, gap to the mean, rank from the top (1 is the greatest).
    """
    grouped = pd.DataFrame(values).groupby(codes)
    blocks = [
        grouped.transform("max") - values,
        values - grouped.transform("min"),
        values - grouped.transform("mean"),
        grouped.rank(method="min", ascending=False),
    ]
    return np.hstack([block.to_numpy(dtype=np.float32) for block in blocks])


def relations(nodes: Sequence[int], codes: np.ndarray, tree: CategoryTree) -> np.ndarray:
    """How each pair's node lies in the tree among its query's candidates, float32 ``(n_pairs, len(RELATIONS))``.

    Number of candidates; of them ancestors, descendants and siblings of this one; most levels shared with another.
    """
    node = np.asarray(nodes)
    found = np.zeros((len(node), len(RELATIONS)), dtype=np.float32)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        chains = tree.ancestors[node[members]]
        common = ((chains[:, None] == chains[None]) & (chains[:, None] != ROOT)).sum(axis=2)
        depth = tree.depth[node[members]]
        np.fill_diagonal(common, 0)
        above = (common == depth[None, :]) & (common > 0)
        below = (common == depth[:, None]) & (common > 0)
        parent = tree.parent[node[members]]
        siblings = (parent[:, None] == parent[None]) & ~np.eye(len(members), dtype=bool)
        found[members] = np.stack(
            [
                np.full(len(members), len(members)),
                *(m.sum(axis=1) for m in (above, below, siblings)),
                common.max(axis=1),
            ],
            axis=1,
        )
    return found
