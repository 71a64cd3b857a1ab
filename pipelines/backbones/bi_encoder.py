"""The bi-encoder base learner: frozen sentence embeddings of query and target, heads on their pair features."""

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from competition.categories import leaf
from competition.tasks import Task
from oof.trees import load_booster
from pipelines.backbones.boosting import Boosting, probabilities
from pipelines.backbones.pair_heads import PairVectors, fit_head, make_head, score_head
from pipelines.backbones.protocol import DETAILS, Corpus, Workspace, saved_recipe
from pipelines.config import BiEncoderRecipe, CategoryTreeRecipe, EncoderSection, View, WeightsSection
from pipelines.embeddings import Embedder
from pipelines.targets import Targets
from pipelines.text import query_text

TREES = "lightgbm.txt"


@dataclass(frozen=True)
class BiEncoder:
    """Heads on [u, v, |u-v|, u*v, cosine] of frozen embeddings; the score is the mean of the heads' probabilities.

    A category path gives two texts, the path and its leaf; a title gives one.
    """

    recipe: BiEncoderRecipe
    workspace: Workspace
    heads: dict[str, Any] = field(default_factory=dict)

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted bi-encoder; the encoder itself stays as it is."""
        vectors = self._vectors(train, task)
        targets = Targets.of(train)
        return replace(self, heads={kind: self._fit(kind, vectors, targets) for kind in self.recipe.head.kinds})

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``."""
        if rows.empty:
            return np.zeros(0, dtype=np.float32)
        vectors = self._vectors(rows, task)
        scores = [self._score(kind, head, vectors) for kind, head in self.heads.items()]
        return np.asarray(np.mean(scores, axis=0, dtype=np.float32))

    def save(self, folder: Path) -> None:
        """Write the heads (safetensors, LightGBM's text) and the recipe; the frozen encoder stays where it is."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for kind, head in self.heads.items():
            if kind == "lightgbm":
                head.save_model(str(folder / TREES))
            else:
                save_file(head.state_dict(), folder / f"{kind}.safetensors")
        text = json.dumps({"recipe": self.recipe.model_dump(mode="json")})
        (folder / DETAILS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "BiEncoder":
        """The bi-encoder that `save` wrote."""
        from safetensors.torch import load_file

        recipe = saved_recipe(folder, BiEncoderRecipe)
        heads: dict[str, Any] = {}
        for kind in recipe.head.kinds:
            if kind == "lightgbm":
                heads[kind] = load_booster(folder / TREES)
                continue
            state = load_file(folder / f"{kind}.safetensors")
            heads[kind] = make_head(len(state["mean"]), hidden=_hidden(recipe, kind), dropout=recipe.head.dropout)
            heads[kind].load_state_dict(state)
            heads[kind].eval()
        return cls(recipe, workspace, heads)

    def details(self) -> dict[str, Any]:
        """Which weights the embeddings came from."""
        weights = self._embedder().resolved
        return {"device": "cpu", "weights": weights.name, "source": weights.source, "digest": weights.digest}

    def _embedder(self) -> Embedder:
        return embedder_of(self.recipe, self.workspace)

    def _vectors(self, rows: pd.DataFrame, task: Task) -> PairVectors:
        embedder, recent = self._embedder(), self.workspace.recent
        if recent is None:
            embed_corpus(self.workspace.corpus, embedder, self.recipe.text.view, leaves=task.target_is_category)
            return self._embedded(rows, task, embedder)
        key = ("vectors", self.recipe.weights, self.recipe.encoder, self.recipe.text)
        return recent.of(rows, key, lambda: self._embedded(rows, task, embedder))

    def _embedded(self, rows: pd.DataFrame, task: Task, embedder: Embedder) -> PairVectors:
        query, queries = pd.factorize(query_text(rows, self.recipe.text.view))
        target, targets = pd.factorize(rows["target"])
        texts = [list(targets)] + ([[leaf(path) for path in targets]] if task.target_is_category else [])
        return PairVectors(embedder.queries(queries), tuple(embedder.targets(t) for t in texts), query, target)

    def _fit(self, kind: str, vectors: PairVectors, targets: Targets) -> Any:
        head, space = self.recipe.head, self.workspace
        if kind == "lightgbm":
            boosting = Boosting(
                head.rounds,
                head.leaves,
                head.learning_rate,
                head.min_rows_per_leaf,
                space.seed,
                space.threads,
            )
            return boosting.fit(vectors.features(np.arange(len(vectors))), targets)
        return fit_head(
            vectors,
            targets,
            hidden=_hidden(self.recipe, kind),
            epochs=head.epochs,
            dropout=head.dropout,
            learning_rate=head.network_learning_rate,
            weight_decay=head.weight_decay,
            seed=space.seed,
            threads=space.threads,
        )

    def _score(self, kind: str, head: Any, vectors: PairVectors) -> np.ndarray:
        if kind == "lightgbm":
            features = vectors.features(np.arange(len(vectors)))
            return probabilities(head, features, threads=self.workspace.threads)
        return score_head(head, vectors, threads=self.workspace.threads)


def _hidden(recipe: BiEncoderRecipe, kind: str) -> int:
    return recipe.head.hidden if kind == "mlp" else 0


def embedder_of(recipe: BiEncoderRecipe | CategoryTreeRecipe, space: Workspace) -> Embedder:
    """The embedder of a recipe; its encoder stays in memory where rows come without end."""
    resident = space.recent is not None
    return shared_embedder(recipe.weights, recipe.encoder, space.cache, space.threads, resident=resident)


@lru_cache(maxsize=4)
def shared_embedder(
    weights: WeightsSection, encoder: EncoderSection, cache: Path, threads: int, *, resident: bool = False
) -> Embedder:
    """One embedder for all folds and base learners of a process that use the same encoder."""
    return Embedder(weights, encoder, cache, threads, resident)


@lru_cache(maxsize=8)
def embed_corpus(corpus: Corpus, embedder: Embedder, view: View, *, leaves: bool) -> None:
    """Embed all texts of a corpus in one go: one model load and long batches, instead of one per fold and split."""
    targets = [*corpus.targets, *(leaf(path) for path in corpus.targets if leaves)]
    embedder.prepare(query_text(corpus.queries, view), targets)
