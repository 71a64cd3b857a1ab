"""Where a query points in the category tree: similarity to every node, compared along the tree and across it.

A single cosine says little in a language that the encoder knows less well: its level shifts from language to
language. What carries over is the comparison with all other nodes of the tree: is this target the query's best
node, its parent, child or sibling; how much of the query's softmax mass lies in its subtree. Hub correction is that
of CSLS (Conneau et al. 2018, "Word translation without parallel data").
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from competition.categories import ROOT, CategoryTree, leaf, levels
from pipelines.backbones.protocol import Corpus
from pipelines.config import View
from pipelines.embeddings import Embedder
from pipelines.text import query_text

N_NEIGHBOURS = 10
CHUNK = 512
HUB_SAMPLE = 3000
LANGUAGE_SHRINK = 20.0
TINY = 1e-6
TEMPERATURES = {"raw": 0.02, "centred": 0.05}

MASSES = (
    "self",
    "parent",
    "children",
    "grandparent",
    "subtree_below",
    "siblings",
    "related",
    "subtree",
    "top",
    "uncles",
    "entropy",
)
STANDING = ("similarity", "z", "gap_to_best", "csls", "log_rank", "best", "best_z", "z_of_node")
RELATIVES = ("best_child", "parent", "best_sibling", "above_sibling", "nearest_relative")
FEATURES = (
    "path_cosine",
    "last_levels_cosine",
    "leaf_cosine",
    *STANDING,
    *RELATIVES,
    *(f"mass_{name}" for name in MASSES),
    *(f"hubless_{name}" for name in MASSES),
    "common_levels",
    "steps_up",
    "steps_down",
    "depth",
    "children",
    "hubness",
)


@dataclass(frozen=True, eq=False)
class Families:
    """The tree's relations as matrices and segments, for all queries of a chunk at once."""

    tree: CategoryTree

    @cached_property
    def subtree(self) -> sparse.csr_matrix:
        """``(n_nodes, n_nodes)``: 1 where the column's node lies in the row's subtree (itself included)."""
        node, level = np.nonzero(self.tree.ancestors != ROOT)
        shape = (len(self.tree.paths),) * 2
        return sparse.csr_matrix((np.ones(len(node), np.float32), (self.tree.ancestors[node, level], node)), shape)

    @cached_property
    def _by_parent(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes sorted by parent, where each parent's children begin, and the parents (top levels: `ROOT`)."""
        order = np.argsort(self.tree.parent, kind="stable")
        parents, starts = np.unique(self.tree.parent[order], return_index=True)
        return order, starts, parents

    def child_sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over every node's children, ``(n_queries, n_nodes)``; 0 without children."""
        return self._spread(np.add.reduceat(values[:, self._by_parent[0]], self._by_parent[1], axis=1), 0.0)

    def child_max(self, values: np.ndarray) -> np.ndarray:
        """Greatest value among every node's children, ``(n_queries, n_nodes)``; -1 without children."""
        order, starts, _ = self._by_parent
        return self._spread(np.maximum.reduceat(values[:, order], starts, axis=1), -1.0)

    def sibling_max(self, values: np.ndarray) -> np.ndarray:
        """Greatest value among every node's siblings, itself left out, ``(n_queries, n_nodes)``; -1 without any."""
        order, starts, _ = self._by_parent
        sorted_values = values[:, order]
        family = np.repeat(np.arange(len(starts)), np.diff([*starts, len(order)]))
        first = np.maximum.reduceat(sorted_values, starts, axis=1)[:, family]
        is_first = sorted_values == first
        rest = np.where(is_first, np.float32(-1.0), sorted_values)
        second = np.maximum.reduceat(rest, starts, axis=1)[:, family]
        tied = np.add.reduceat(is_first.astype(np.int32), starts, axis=1)[:, family] > 1
        best = np.empty_like(values)
        best[:, order] = np.where(is_first & ~tied, second, first)
        return best

    def of_parent(self, values: np.ndarray, *, without: float) -> np.ndarray:
        """Every node's parent's value, ``(n_queries, n_nodes)``; `without` at top levels."""
        parent = self.tree.parent
        return np.where(parent == ROOT, np.float32(without), values[:, parent])

    def _spread(self, by_family: np.ndarray, without: float) -> np.ndarray:
        _, _, parents = self._by_parent
        values = np.full((len(by_family), len(self.tree.paths)), without, dtype=np.float32)
        real = parents != ROOT
        values[:, parents[real]] = by_family[:, real]
        return values


class TreeFeatures:
    """Features of (query, node) pairs in one embedding space; label-free, kept for as long as the object lives.

    Parameters
    ----------
    space
        ``raw`` embeddings, or ``centred`` ones: minus the mean query of the language (shrunken towards that of
        all languages), minus the mean node.
    """

    def __init__(self, corpus: Corpus, embedder: Embedder, view: View, *, space: str) -> None:
        self.embedder, self.view, self.space = embedder, view, space
        self.tree = corpus.tree
        self.families = Families(self.tree)
        texts = query_text(corpus.queries, view)
        embedder.prepare(texts, [text for texts in node_texts(self.tree) for text in texts])
        self.nodes = [self._centred_nodes(embedder.targets(texts)) for texts in node_texts(self.tree)]
        vectors = embedder.queries(texts)
        self.mean = vectors.mean(axis=0)
        self.language_means = self._language_means(vectors, corpus.queries["language"].to_numpy())
        self._learn_hubs(vectors, corpus.queries["language"].to_numpy())
        self._memory: dict[tuple[str, str, int], np.ndarray] = {}

    def forgetful(self) -> "TreeFeatures":
        """The same features, of which none is computed yet."""
        other = copy(self)
        other._memory = {}
        return other

    def table(self, languages: Sequence[str], queries: Sequence[str], nodes: Sequence[int]) -> np.ndarray:
        """Features of every pair, float32 ``(n_pairs, len(FEATURES))``; a node is a place in the tree."""
        keys = list(zip(languages, queries, nodes, strict=True))
        new = sorted({key for key in keys if key not in self._memory})
        if new:
            for key, features in zip(new, self._compute(new), strict=True):
                self._memory[key] = features
        return np.stack([self._memory[key] for key in keys])

    def _compute(self, pairs: list[tuple[str, str, int]]) -> np.ndarray:
        """Features of sorted distinct pairs; queries are taken `CHUNK` at a time, each against all nodes."""
        queries = list(dict.fromkeys((language, query) for language, query, _ in pairs))
        number = {query: i for i, query in enumerate(queries)}
        which = np.array([number[language, query] for language, query, _ in pairs])
        node = np.array([node for _, _, node in pairs])
        vectors = self._centred_queries(
            self.embedder.queries([query for _, query in queries]),
            np.array([language for language, _ in queries]),
        )
        return np.vstack(list(self._chunks(vectors, which, node)))

    def _chunks(self, vectors: np.ndarray, which: np.ndarray, node: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(vectors), CHUNK):
            rows = slice(*np.searchsorted(which, [start, start + CHUNK]))
            yield self._features(vectors[start : start + CHUNK], which[rows] - start, node[rows])

    def _features(self, vectors: np.ndarray, q: np.ndarray, t: np.ndarray) -> np.ndarray:
        views = [_cosines(vectors, nodes) for nodes in self.nodes]
        similarity = np.asarray(np.mean(views, axis=0, dtype=np.float32))
        hubless = similarity - self.hubness / 2
        columns = [view[q, t] for view in views]
        columns += self._standing(similarity, q, t)
        columns += self._relatives(similarity, q, t)
        columns += self._masses(similarity, q, t)
        columns += self._masses(hubless, q, t)
        columns += self._steps_from_best(hubless.argmax(axis=1)[q], t)
        columns += [self.tree.depth[t], np.log1p(self.tree.n_children[t]), self.hubness[t]]
        return np.stack(columns, axis=1).astype(np.float32)

    def _standing(self, similarity: np.ndarray, q: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
        """The pair's similarity against those of the query with all nodes, and of the node with many queries."""
        here = similarity[q, t]
        mean, std, best = similarity.mean(axis=1), similarity.std(axis=1) + TINY, similarity.max(axis=1)
        nearest = _mean_of_greatest(similarity, axis=1)
        rank = np.array([(similarity[i] > value).sum() for i, value in zip(q, here, strict=True)])
        return [
            here,
            (here - mean[q]) / std[q],
            here - best[q],
            2 * here - nearest[q] - self.hubness[t],
            np.log1p(rank),
            best[q],
            ((best - mean) / std)[q],
            (here - self.node_mean[t]) / self.node_std[t],
        ]

    def _relatives(self, similarity: np.ndarray, q: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
        child = self.families.child_max(similarity)[q, t]
        parent = self.families.of_parent(similarity, without=-1.0)[q, t]
        sibling = self.families.sibling_max(similarity)[q, t]
        here = similarity[q, t]
        nearest = np.maximum.reduce([here, child, parent]) - similarity.max(axis=1)[q]
        return [child, parent, sibling, here - sibling, nearest]

    def _masses(self, similarity: np.ndarray, q: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
        """Log of the query's softmax mass over all nodes that lies on the pair's node and on its relatives."""
        exponent = similarity - similarity.max(axis=1, keepdims=True)
        mass = np.exp(exponent / TEMPERATURES[self.space])
        mass /= mass.sum(axis=1, keepdims=True)
        subtree = np.asarray((self.families.subtree @ mass.T).T)
        parent = self.families.of_parent(mass, without=0.0)
        parent_subtree = self.families.of_parent(subtree, without=1.0)
        grandparent = self.families.of_parent(parent, without=0.0)
        own, below, above = mass[q, t], subtree[q, t], parent[q, t]
        children = self.families.child_sum(mass)[q, t]
        amounts = {
            "self": own,
            "parent": above,
            "children": children,
            "grandparent": grandparent[q, t],
            "subtree_below": below - own,
            "siblings": parent_subtree[q, t] - above - below,
            "related": own + above + children,
            "subtree": below,
            "top": subtree[q, self.tree.ancestors[t, 0]],
            "uncles": parent_subtree[q, t],
        }
        entropy = -(mass * np.log(mass + 1e-12)).sum(axis=1)[q]
        logs = {name: np.log(np.maximum(amount, 0) + TINY) for name, amount in amounts.items()}
        return [{**logs, "entropy": entropy}[name] for name in MASSES]

    def _steps_from_best(self, best: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
        """Common levels of the query's best node and the pair's node, steps up and steps down between them."""
        ancestors = self.tree.ancestors
        common = ((ancestors[best] == ancestors[t]) & (ancestors[t] != ROOT)).sum(axis=1)
        return [common, self.tree.depth[best] - common, self.tree.depth[t] - common]

    def _learn_hubs(self, vectors: np.ndarray, languages: np.ndarray) -> None:
        """How near each node is to its nearest queries, and its mean similarity, over a fixed sample of queries."""
        sample = np.random.default_rng(0).permutation(len(vectors))[:HUB_SAMPLE]
        queries = self._centred_queries(vectors[sample], languages[sample])
        similarity = np.asarray(np.mean([queries @ nodes.T for nodes in self.nodes], axis=0, dtype=np.float32))
        self.hubness = _mean_of_greatest(similarity, axis=0)
        self.node_mean, self.node_std = similarity.mean(axis=0), similarity.std(axis=0) + TINY

    def _language_means(self, vectors: np.ndarray, languages: np.ndarray) -> dict[str, np.ndarray]:
        means = {}
        for language in np.unique(languages):
            own = vectors[languages == language]
            means[str(language)] = (own.sum(axis=0) + LANGUAGE_SHRINK * self.mean) / (len(own) + LANGUAGE_SHRINK)
        return means

    def _centred_queries(self, vectors: np.ndarray, languages: np.ndarray) -> np.ndarray:
        if self.space == "raw":
            return vectors
        return _unit(vectors - np.stack([self.language_means.get(str(code), self.mean) for code in languages]))

    def _centred_nodes(self, vectors: np.ndarray) -> np.ndarray:
        return vectors if self.space == "raw" else _unit(vectors - vectors.mean(axis=0))


def node_texts(tree: CategoryTree) -> list[list[str]]:
    """Three texts of every node: its path, its last two levels, its name."""
    paths = list(tree.paths)
    return [paths, [",".join(levels(path)[-2:]) for path in paths], [leaf(path) for path in paths]]


def _cosines(vectors: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """``(n_queries, n_nodes)``, of at most `CHUNK` queries, the same bit for bit whatever else is in the chunk.

    A product's last bits depend on the number of its rows, and trees turn a last bit into another leaf.
    """
    padded = np.zeros((CHUNK, vectors.shape[1]), dtype=np.float32)
    padded[: len(vectors)] = vectors
    return np.asarray((padded @ nodes.T)[: len(vectors)])


def _mean_of_greatest(values: np.ndarray, *, axis: int) -> np.ndarray:
    count = min(N_NEIGHBOURS, values.shape[axis])
    greatest = np.partition(values, -count, axis=axis)
    largest = np.take(greatest, np.arange(values.shape[axis] - count, values.shape[axis]), axis=axis)
    return np.asarray(largest.mean(axis=axis))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
