"""The category-tree base learner: a head on where a query points in the tree, by frozen sentence embeddings."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from competition.categories import ROOT
from competition.tasks import Task
from oof.trees import load_booster
from pipelines.backbones.bi_encoder import embedder_of
from pipelines.backbones.boosting import Boosting, probabilities
from pipelines.backbones.candidates import nearest_nodes, places_in, relations, standing_among, with_candidates
from pipelines.backbones.feature_table import corpus_features, whole_queries
from pipelines.backbones.pair_heads import DenseRows, fit_head, make_head, score_head
from pipelines.backbones.protocol import DETAILS, PAIR, Corpus, Workspace, saved_recipe
from pipelines.backbones.tree_features import FEATURES, TreeFeatures
from pipelines.config import CategoryTreeRecipe, View
from pipelines.embeddings import Embedder
from pipelines.targets import Targets
from pipelines.text import query_text

TREES, NETWORK = "head.txt", "head.safetensors"
COMPARED = [FEATURES.index(name) for name in ("similarity", "z", "nearest_relative", "hubless_related")]


@dataclass(frozen=True)
class CategoryTreeLearner:
    """Tree features of frozen embeddings under a head; for tasks whose target is a category path.

    The tree is that of the workspace's corpus. A target that is no node of it counts as its nearest ancestor that
    is one; where there is none, all features are missing (for the network: those of the mean row).
    """

    recipe: CategoryTreeRecipe
    workspace: Workspace
    head: Any = None

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted category-tree base learner."""
        return replace(self, head=self._fit_head(self._features(train), Targets.of(train)))

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``."""
        if rows.empty:
            return np.zeros(0, dtype=np.float32)
        features = self._features(rows)
        if self.recipe.head.kind == "mlp":
            return score_head(self.head, DenseRows(features), threads=self.workspace.threads)
        return probabilities(self.head, features, threads=self.workspace.threads)

    def save(self, folder: Path) -> None:
        """Write the head and the recipe; the encoder is frozen and stays where it is."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.recipe.head.kind == "mlp":
            save_file(self.head.state_dict(), folder / NETWORK)
        else:
            self.head.save_model(str(folder / TREES))
        text = json.dumps({"recipe": self.recipe.model_dump(mode="json")})
        (folder / DETAILS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "CategoryTreeLearner":
        """The base learner that `save` wrote; its tree is that of the workspace's corpus, the run's."""
        from safetensors.torch import load_file

        recipe = saved_recipe(folder, CategoryTreeRecipe)
        if recipe.head.kind == "lightgbm":
            return cls(recipe, workspace, load_booster(folder / TREES))
        state = load_file(folder / NETWORK)
        head = make_head(len(state["mean"]), hidden=recipe.head.hidden, dropout=recipe.head.dropout)
        head.load_state_dict(state)
        return cls(recipe, workspace, head.eval())

    def details(self) -> dict[str, Any]:
        """Which weights the embeddings came from."""
        weights = self._embedder().resolved
        return {"device": "cpu", "weights": weights.name, "source": weights.source, "digest": weights.digest}

    def _fit_head(self, features: np.ndarray, targets: Targets) -> Any:
        settings, space = self.recipe.head, self.workspace
        if settings.kind == "mlp":
            return fit_head(
                DenseRows(features),
                targets,
                hidden=settings.hidden,
                epochs=settings.epochs,
                dropout=settings.dropout,
                learning_rate=settings.network_learning_rate,
                weight_decay=settings.weight_decay,
                seed=space.seed,
                threads=space.threads,
            )
        boosting = Boosting(
            rounds=settings.rounds,
            leaves=settings.leaves,
            learning_rate=settings.learning_rate,
            min_rows_per_leaf=settings.min_rows_per_leaf,
            seed=space.seed,
            threads=space.threads,
        )
        return boosting.fit(features, targets)

    def _embedder(self) -> Embedder:
        return embedder_of(self.recipe, self.workspace)

    def _features(self, rows: pd.DataFrame) -> np.ndarray:
        """Tree features in each space; with `candidates`, how they stand among those of the query's other targets."""
        recipe = self.recipe.model_dump(mode="json", include={"kind", "text", "encoder", "spaces", "candidates"})
        return corpus_features(
            rows,
            self.workspace,
            made_of={**recipe, "weights": self._embedder().resolved.digest},
            pieces=self._pieces,
            computed=self._computed,
        )

    def _pieces(self) -> Iterator[np.ndarray]:
        """The features of the corpus's pairs, some queries at a time, of which nothing is kept in memory."""
        spaces = self._spaces()
        for pairs in whole_queries(self.workspace.corpus.pairs):
            yield self._of_pairs(pairs, [space.forgetful() for space in spaces])

    def _computed(self, rows: pd.DataFrame) -> np.ndarray:
        """The features of any rows; what is computed is kept in memory for the other folds."""
        pairs = rows[PAIR].drop_duplicates(ignore_index=True)
        if self.recipe.candidates:
            pairs = with_candidates(pairs, self.workspace.corpus)
        spaces = self._spaces()
        if self.workspace.recent:
            spaces = [space.forgetful() for space in spaces]
        return np.asarray(self._of_pairs(pairs, spaces)[places_in(pairs, rows)])

    def _spaces(self) -> list[TreeFeatures]:
        corpus, view = self.workspace.corpus, self.recipe.text.view
        return [shared_tree(corpus, self._embedder(), view, space) for space in self.recipe.spaces]

    def _of_pairs(self, pairs: pd.DataFrame, spaces: Sequence[TreeFeatures]) -> np.ndarray:
        """The features of pairs; those of one `among` are the candidates of one query."""
        tree = self.workspace.corpus.tree
        found = nearest_nodes(pairs["target"], tree)
        nodes = np.maximum(found, 0)
        queries = query_text(pairs, self.recipe.text.view).tolist()
        tables = [space.table(pairs["language"].tolist(), queries, nodes.tolist()) for space in spaces]
        if self.recipe.candidates:
            codes = pairs["among"].to_numpy()
            tables += [standing_among(table[:, COMPARED], codes) for table in tables]
            tables.append(relations(nodes, codes, tree))
        features = np.hstack(tables)
        features[found == ROOT] = np.nan
        return features


@lru_cache(maxsize=4)
def shared_tree(corpus: Corpus, embedder: Embedder, view: View, space: str) -> TreeFeatures:
    """The tree features of a corpus, for all folds and base learners of a process that use the same encoder."""
    return TreeFeatures(corpus, embedder, view, space=space)
