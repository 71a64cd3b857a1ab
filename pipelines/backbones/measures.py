"""What compares a query with a target by their words alone: overlap features, and TF-IDF of character n-grams."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from pipelines.backbones.pair_features import PairFeatures
from pipelines.backbones.protocol import Corpus
from pipelines.config import NgramSection


class Tfidf:
    """TF-IDF of character n-grams inside word boundaries, hashed: no vocabulary to keep or to leak.

    Every distinct text is vectorised once for as long as the object lives. `weights` are those of the hashed n-grams,
    ``(max_features,)``.
    """

    def __init__(self, weights: np.ndarray, ngrams: NgramSection) -> None:
        self.weights, self.ngrams = weights, ngrams
        self.vectoriser = _vectoriser(ngrams)
        self._known: dict[str, int] = {}
        nothing: Any = (0, ngrams.max_features)
        self._vectors: Any = sparse.csr_matrix(nothing, dtype=np.float32)

    @classmethod
    def over(cls, targets: Iterable[str], ngrams: NgramSection) -> "Tfidf":
        """That with the inverse document frequencies of `targets`."""
        texts = list(targets)
        counts = np.bincount(_vectoriser(ngrams).transform(texts).indices, minlength=ngrams.max_features)
        return cls((np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32), ngrams)

    def forgetful(self) -> "Tfidf":
        """The same, but no text is vectorised yet."""
        return Tfidf(self.weights, self.ngrams)

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


@dataclass(frozen=True)
class Measures:
    """Overlap features and TF-IDF with the word weights of one corpus."""

    features: PairFeatures
    tfidf: Tfidf

    @classmethod
    def of(cls, corpus: Corpus, ngrams: NgramSection) -> "Measures":
        """Those that all folds and base learners of a process share: they keep what they have computed."""
        return cls(shared_features(corpus), shared_tfidf(corpus, ngrams))

    def forgetful(self) -> "Measures":
        """The same, but nothing is computed yet: for a few queries of many."""
        return Measures(self.features.forgetful(), self.tfidf.forgetful())


@lru_cache(maxsize=8)
def shared_tfidf(corpus: Corpus, ngrams: NgramSection) -> Tfidf:
    """One `Tfidf` for all folds and base learners of a process."""
    return Tfidf.over(corpus.targets, ngrams)


@lru_cache(maxsize=4)
def shared_features(corpus: Corpus) -> PairFeatures:
    """One `PairFeatures` for all folds and base learners of a process: pairs are computed once."""
    return PairFeatures.over(corpus.targets)


def _vectoriser(ngrams: NgramSection) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(ngrams.shortest, ngrams.longest),
        n_features=ngrams.max_features,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
