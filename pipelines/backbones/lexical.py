"""The lexical base learner: overlap features and character n-gram TF-IDF of the query, and of its translation."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

from competition.categories import leaf, levels
from competition.errors import CompetitionError, Fault
from competition.tasks import Task
from oof.trees import load_booster
from pipelines.array_files import read_arrays
from pipelines.backbones.boosting import Boosting, probabilities
from pipelines.backbones.candidates import places_in, standing_among, with_candidates
from pipelines.backbones.pair_features import FEATURES, PairFeatures
from pipelines.backbones.protocol import DETAILS, PAIR, TRAIN_AGAIN, Corpus, Workspace, saved_recipe
from pipelines.config import LexicalRecipe, NgramSection, View
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
        if not self.recipe.candidates:
            return np.hstack(self._blocks(rows, task))
        pairs = with_candidates(rows[PAIR].drop_duplicates(ignore_index=True), self.workspace.corpus)
        blocks, codes = self._blocks(pairs, task), pairs["among"].to_numpy()
        standings = [standing_among(block[:, COMPARED], codes) for block in blocks]
        sizes = np.bincount(codes)[codes].astype(np.float32)[:, None]
        return np.asarray(np.hstack([*blocks, *standings, sizes])[places_in(pairs, rows)])

    def _blocks(self, rows: pd.DataFrame, task: Task) -> list[np.ndarray]:
        """Overlap features and TF-IDF cosine, a block for each view of the query and each text of the target."""
        features = shared_features(self.workspace.corpus)
        tfidf = shared_tfidf(self.workspace.corpus, self.recipe.ngrams)
        blocks = []
        for view in self._views():
            queries = query_text(rows, view).tolist()
            for texts in target_texts(rows["target"].tolist(), task):
                cosine = tfidf.cosine(queries, texts)[:, None]
                blocks.append(np.hstack([features.table(queries, texts), cosine]))
        return blocks

    def _ngrams(self, rows: pd.DataFrame) -> Any:
        tfidf = shared_tfidf(self.workspace.corpus, self.recipe.ngrams)
        sides = [tfidf.transform(query_text(rows, view).tolist()) for view in self._views()]
        return sparse.hstack([*sides, tfidf.transform(rows["target"].tolist())], format="csr")

    def _fit_linear(self, dense: np.ndarray, ngrams: sparse.csr_matrix, targets: Targets) -> Linear:
        from sklearn.linear_model import LogisticRegression

        places, labels, weights = targets.halves()
        mean, scale = dense.mean(axis=0), dense.std(axis=0) + 1e-6
        features = sparse.hstack([sparse.csr_matrix((dense - mean) / scale), ngrams], format="csr")
        model = LogisticRegression(C=self.recipe.head.c, solver="liblinear", tol=LINEAR_TOLERANCE,
                                   random_state=self.workspace.seed)  # fmt: skip
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


class Tfidf:
    """TF-IDF of character n-grams inside word boundaries, hashed: no vocabulary to keep or to leak.

    Every distinct text is vectorised once for as long as the object lives.
    """

    def __init__(self, targets: tuple[str, ...], ngrams: NgramSection) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.vectoriser = HashingVectorizer(
            analyzer="char_wb",
            ngram_range=(ngrams.shortest, ngrams.longest),
            n_features=ngrams.max_features,
            norm=None,
            alternate_sign=False,
            dtype=np.float32,
        )
        counts = np.bincount(self.vectoriser.transform(targets).indices, minlength=ngrams.max_features)
        self.weights = (np.log((1 + len(targets)) / (1 + counts)) + 1).astype(np.float32)
        self._known: dict[str, int] = {}
        nothing: Any = (0, ngrams.max_features)
        self._vectors: Any = sparse.csr_matrix(nothing, dtype=np.float32)

    def transform(self, texts: list[str]) -> Any:
        """Unit TF-IDF rows, ``(n_texts, max_features)``; sublinear counts."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known |= {text: len(self._known) + i for i, text in enumerate(new)}
            self._vectors = sparse.vstack([self._vectors, self._vectorise(new)], format="csr")
        return self._vectors[[self._known[text] for text in texts]]

    def cosine(self, queries: list[str], targets: list[str]) -> np.ndarray:
        """Cosine of every pair, float32 ``(n_pairs,)``."""
        product = self.transform(queries).multiply(self.transform(targets))
        return np.asarray(product.sum(axis=1), dtype=np.float32).ravel()

    def _vectorise(self, texts: list[str]) -> Any:
        from sklearn.preprocessing import normalize

        matrix = self.vectoriser.transform(texts)
        matrix.data = (1 + np.log(matrix.data)) * self.weights[matrix.indices]
        return normalize(matrix, copy=False)


@lru_cache(maxsize=8)
def shared_tfidf(corpus: Corpus, ngrams: NgramSection) -> Tfidf:
    """One `Tfidf` for all folds and base learners of a process."""
    return Tfidf(corpus.targets, ngrams)


@lru_cache(maxsize=4)
def shared_features(corpus: Corpus) -> PairFeatures:
    """One `PairFeatures` for all folds and base learners of a process: pairs are computed once."""
    return PairFeatures(corpus.targets)
