"""The lexical base learner: overlap features and character n-gram TF-IDF of the query, and of its translation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

from competition.categories import leaf, levels
from competition.errors import CompetitionError, Fault
from competition.progress import progress
from competition.tasks import Task
from oof.trees import load_booster
from pipelines.array_files import read_arrays
from pipelines.backbones.boosting import Boosting, probabilities
from pipelines.backbones.candidates import places_in, standing_among, with_candidates
from pipelines.backbones.feature_table import corpus_features, whole_queries
from pipelines.backbones.measures import Measures, Tfidf, shared_tfidf
from pipelines.backbones.pair_features import FEATURES
from pipelines.backbones.protocol import DETAILS, PAIR, TRAIN_AGAIN, Workspace, saved_recipe
from pipelines.config import LexicalRecipe, View
from pipelines.targets import Targets
from pipelines.text import query_text

TREES, LINEAR = "head.txt", "head.npz"
LINEAR_TOLERANCE = 1e-4
COSINE = len(FEATURES)  # the last column of a block
COMPARED = [
    *(FEATURES.index(name) for name in ("soft_covered", "missing_weight", "longest_code_match", "token_set_ratio")),
    COSINE,
]


@dataclass(frozen=True)
class Linear:
    """A logistic head: weights of the scaled dense features, then of the hashed n-grams of query and target."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    def predict(self, dense: np.ndarray, ngrams: sparse.csr_matrix) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``."""
        n_dense = dense.shape[1]
        logits = (dense - self.mean) / self.scale @ self.weights[:n_dense] + ngrams @ self.weights[n_dense:]
        return np.asarray(expit(logits + self.bias), dtype=np.float32)


@dataclass(frozen=True)
class Lexical:
    """Overlap features and n-grams under a linear or LightGBM head.

    The features look at three texts of a category path (path, last two levels, leaf) and at the title as it is.
    """

    recipe: LexicalRecipe
    workspace: Workspace
    head: Any = None

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted lexical base learner."""
        targets = Targets.of(train)
        dense = self._dense(train, task)
        settings = self.recipe.head
        if settings.kind == "linear":
            return replace(self, head=self._fit_linear(dense, self._ngrams(train), targets))
        boosting = Boosting(
            rounds=settings.rounds,
            leaves=settings.leaves,
            learning_rate=settings.learning_rate,
            min_rows_per_leaf=settings.min_rows_per_leaf,
            seed=self.workspace.seed,
            threads=self.workspace.threads,
        )
        return replace(self, head=boosting.fit(dense, targets))

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``."""
        if rows.empty:
            return np.zeros(0, dtype=np.float32)
        dense = self._dense(rows, task)
        if isinstance(self.head, Linear):
            return self.head.predict(dense, self._ngrams(rows))
        return probabilities(self.head, dense, threads=self.workspace.threads)

    def save(self, folder: Path) -> None:
        """Write the head (LightGBM's text or plain arrays) and the recipe."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.head, Linear):
            np.savez(folder / LINEAR, **vars(self.head))
        else:
            self.head.save_model(str(folder / TREES))
        values = {"recipe": self.recipe.model_dump(mode="json")}
        (folder / DETAILS).write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "Lexical":
        """The base learner that `save` wrote; words are weighed by the workspace's corpus, that of the same run."""
        recipe = saved_recipe(folder, LexicalRecipe)
        if (folder / LINEAR).is_file():
            return cls(recipe, workspace, _read_linear(folder / LINEAR))
        return cls(recipe, workspace, load_booster(folder / TREES))

    def details(self) -> dict[str, Any]:
        """The head's kind."""
        return {"device": "cpu", "head": self.recipe.head.kind}

    def _views(self) -> tuple[View, ...]:
        return ("original", "english") if self.recipe.text.view == "both" else (self.recipe.text.view,)

    def _dense(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Pair features; with `candidates`, how some of them stand among those of the query's other targets."""
        recipe = self.recipe.model_dump(mode="json", include={"kind", "text", "ngrams", "candidates"})
        return corpus_features(
            rows,
            self.workspace,
            made_of={**recipe, "category": task.target_is_category},
            pieces=partial(self._pieces, task),
            computed=partial(self._computed, task=task),
        )

    def _pieces(self, task: Task) -> Iterator[np.ndarray]:
        """The features of the corpus's pairs, some queries at a time, of which nothing is kept in memory."""
        measures = Measures.of(self.workspace.corpus, self.recipe.ngrams)
        for pairs in whole_queries(self.workspace.corpus.pairs):
            yield self._of_pairs(pairs, task, measures.forgetful())

    def _computed(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """The features of any rows; what is computed is kept in memory for the other folds."""
        measures = self._measures()
        if not self.recipe.candidates:
            return self._of_pairs(rows, task, measures)
        pairs = with_candidates(rows[PAIR].drop_duplicates(ignore_index=True), self.workspace.corpus)
        return np.asarray(self._of_pairs(pairs, task, measures)[places_in(pairs, rows)])

    def _measures(self) -> Measures:
        measures = Measures.of(self.workspace.corpus, self.recipe.ngrams)
        return measures.forgetful() if self.workspace.recent else measures

    def _of_pairs(self, pairs: pd.DataFrame, task: Task, measures: Measures) -> np.ndarray:
        """The features of pairs; those of one `among` are the candidates of one query."""
        blocks = self._blocks(pairs, task, measures)
        if not self.recipe.candidates:
            return np.hstack(blocks)
        codes = pairs["among"].to_numpy()
        standings = [standing_among(block[:, COMPARED], codes) for block in blocks]
        sizes = np.bincount(codes)[codes].astype(np.float32)[:, None]
        return np.hstack([*blocks, *standings, sizes])

    def _blocks(self, rows: pd.DataFrame, task: Task, measures: Measures) -> list[np.ndarray]:
        """Overlap features and TF-IDF cosine, a block for each view of the query and each text of the target."""
        blocks = []
        for view in self._views():
            queries = query_text(rows, view).tolist()
            for texts in target_texts(rows["target"].tolist(), task):
                cosine = measures.tfidf.cosine(queries, texts)[:, None]
                blocks.append(np.hstack([measures.features.table(queries, texts), cosine]))
        return blocks

    def _ngrams(self, rows: pd.DataFrame) -> Any:
        recent = self.workspace.recent
        if recent is None:
            return self._transformed(rows, shared_tfidf(self.workspace.corpus, self.recipe.ngrams))
        key = ("ngrams", self.recipe.ngrams, self.recipe.text)
        return recent.of(rows, key, lambda: self._transformed(rows, self._measures().tfidf))

    def _transformed(self, rows: pd.DataFrame, tfidf: Tfidf) -> Any:
        sides = [tfidf.transform(query_text(rows, view).tolist()) for view in self._views()]
        return sparse.hstack([*sides, tfidf.transform(rows["target"].tolist())], format="csr")

    def _fit_linear(self, dense: np.ndarray, ngrams: sparse.csr_matrix, targets: Targets) -> Linear:
        from sklearn.linear_model import LogisticRegression

        places, labels, weights = targets.halves()
        mean, scale = dense.mean(axis=0), dense.std(axis=0) + 1e-6
        features = sparse.hstack([sparse.csr_matrix((dense - mean) / scale), ngrams], format="csr")
        model = LogisticRegression(C=self.recipe.head.c, solver="liblinear", tol=LINEAR_TOLERANCE,
                                   random_state=self.workspace.seed)  # fmt: skip
        with progress(f"linear head on {len(labels):,} rows"):
            model.fit(features[places], labels, sample_weight=weights)
        return Linear(mean, scale, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def _read_linear(path: Path) -> Linear:
    arrays = read_arrays(path, ("mean", "scale", "weights", "bias"), what="a linear head", advice=TRAIN_AGAIN)
    mean, scale, weights, bias = arrays.values()
    if [array.ndim for array in (mean, scale, weights, bias)] != [1, 1, 1, 0] or len(mean) != len(scale):
        fault = Fault(str(path), f"shapes {[array.shape for array in arrays.values()]}", "three vectors and a number")
        raise CompetitionError("a linear head is damaged", faults=[fault], advice=TRAIN_AGAIN)
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values()):
        fault = Fault(str(path), "values that are no finite numbers")
        raise CompetitionError("a linear head is damaged", faults=[fault], advice=TRAIN_AGAIN)
    return Linear(mean, scale, weights, float(bias))


def target_texts(targets: list[str], task: Task) -> list[list[str]]:
    """The texts of the targets that are looked at: path, last two levels and leaf of categories, else the title."""
    if not task.target_is_category:
        return [targets]
    return [targets, [" ".join(levels(path)[-2:]) for path in targets], [leaf(path) for path in targets]]
