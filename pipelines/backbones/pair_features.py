"""Lexical features of a (query, target) pair: which words, codes and numbers of one stand in the other.

All of them are free of language and of labels, so they are the same in every fold and are computed once per pair. The
weights of words (inverse document frequency) come from the distinct targets.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum

import numpy as np
from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")
UNSPACED = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]+")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NONE = -1.0

FEATURES = (
    "words_query", "words_target", "common_words", "query_covered", "target_covered", "jaccard",
    "first_word_found", "last_word_found", "same_last_word", "equal",
    "soft_covered", "soft_worst", "missing_weight", "missing_weight_sum",
    "codes_query", "codes_target", "codes_found", "codes_inside", "codes_missing", "target_codes_inside",
    "target_codes_missing", "longest_code_length", "longest_code_match", "longest_code_best",
    "numbers_common", "numbers_query", "numbers_target", "plain_words_covered",
    "ratio", "partial_ratio", "token_set_ratio", "token_sort_ratio", "common_subsequence_query",
    "common_subsequence_target", "length_ratio",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """One text, cut up once."""

    words: tuple[str, ...]
    unique: frozenset[str]
    squashed: str
    joined: str
    codes: tuple[str, ...]
    numbers: frozenset[str]


@lru_cache(maxsize=200_000)  # about 1.5 KB each
def cut_up(text: str) -> Text:
    """Words (pairs of characters where a script has no blanks), codes (words with a digit) and numbers of a text.

    Examples
    --------
    >>> cut_up("Sony WH-1000XM4 2.5 mm").words
    ('sony', 'wh', '1000xm4', '2.5', 'mm')
    >>> cut_up("掃除機").words
    ('掃除', '除機')
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    words: list[str] = []
    for word in WORD.findall(plain):
        if len(word) > 2 and UNSPACED.fullmatch(word):
            words += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            words.append(word)
    codes = tuple(dict.fromkeys(word for word in words if any(map(str.isdigit, word))))
    squashed = "".join(re.findall(r"[^\W_]+", plain))
    return Text(tuple(words), frozenset(words), squashed, " ".join(words), codes, frozenset(NUMBER.findall(plain)))


@dataclass(frozen=True, repr=False)
class WordWeights:
    """Inverse document frequency of words over the distinct targets; `unknown` is that of all other words."""

    by_word: Mapping[str, float]
    unknown: float

    @classmethod
    def of(cls, targets: Iterable[str]) -> "WordWeights":
        """The weights over `targets`, each text once."""
        distinct = set(targets)
        counts: Counter[str] = Counter()
        for text in distinct:
            counts.update(cut_up(text).unique)
        by_word = {word: _rarity(count, len(distinct)) for word, count in counts.items()}
        return cls(by_word, _rarity(0, len(distinct)))

    def __getitem__(self, word: str) -> float:
        return self.by_word.get(word, self.unknown)

    def total(self, words: Iterable[str]) -> float:
        """Sum of the words' weights, exact, so that a set's order does not show in it."""
        return fsum([self.by_word.get(word, self.unknown) for word in words])


def _rarity(n_with: int, n_texts: int) -> float:
    return float(np.log((n_texts + 1) / (n_with + 1)) + 0.1)


class PairFeatures:
    """The features of pairs, each pair computed once for as long as the object lives."""

    def __init__(self, weights: WordWeights) -> None:
        self.weights = weights
        self._memory: dict[tuple[str, str], np.ndarray] = {}

    @classmethod
    def over(cls, targets: Iterable[str]) -> "PairFeatures":
        """Those with the word weights of `targets`."""
        return cls(WordWeights.of(targets))

    def forgetful(self) -> "PairFeatures":
        """The same features, of which none is computed yet."""
        return PairFeatures(self.weights)

    def table(self, queries: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Features of every pair, float32 ``(n_pairs, len(FEATURES))``; `NONE` where a feature has no meaning."""
        rows = []
        for pair in zip(queries, targets, strict=True):
            if pair not in self._memory:
                self._memory[pair] = np.array(pair_features(*pair, self.weights), dtype=np.float32)
            rows.append(self._memory[pair])
        return np.stack(rows) if rows else np.zeros((0, len(FEATURES)), np.float32)


def pair_features(query: str, target: str, weights: WordWeights) -> list[float]:
    """The features of one pair, in the order of `FEATURES`."""
    q, t = cut_up(query), cut_up(target)
    return [
        *_overlap(q, t, weights),
        *_soft_cover(q, t, weights),
        *_codes(q, t, weights),
        *_similarity(q, t),
    ]


def _overlap(q: Text, t: Text, weights: WordWeights) -> list[float]:
    common = q.unique & t.unique
    weight = weights.total(common)
    return [
        len(q.words),
        len(t.words),
        len(common),
        weight / (weights.total(q.unique) or 1.0),
        weight / (weights.total(t.unique) or 1.0),
        len(common) / max(1, len(q.unique | t.unique)),
        float(bool(q.words) and q.words[0] in t.unique),
        float(bool(q.words) and q.words[-1] in t.unique),
        float(bool(q.words) and bool(t.words) and q.words[-1] == t.words[-1]),
        float(q.squashed == t.squashed),
    ]


def _soft_cover(q: Text, t: Text, weights: WordWeights) -> list[float]:
    """How well each query word is found: as a word 1, inside the squashed target .9, else by its nearest word."""
    if not q.unique:
        return [NONE, NONE, NONE, NONE]
    covers = []
    for word in sorted(q.unique):
        if word in t.unique:
            cover = 1.0
        elif len(word) >= 3 and word in t.squashed:
            cover = 0.9
        else:
            cover = 0.8 * max((fuzz.ratio(word, other) for other in t.unique), default=0.0) / 100
        covers.append((cover, weights[word]))
    missing = [(1 - cover) * weight for cover, weight in covers]
    total = sum(weight for _, weight in covers)
    soft = sum(cover * weight for cover, weight in covers) / total
    return [soft, min(cover for cover, _ in covers), max(missing), sum(missing)]


def _codes(q: Text, t: Text, weights: WordWeights) -> list[float]:
    """Model codes and numbers: the part of a product's name that decides whether two names mean one product."""
    plain = [word for word in q.unique if word not in q.codes]
    longest = max(q.codes, key=len, default="")
    return [
        len(q.codes),
        len(t.codes),
        _share(sum(code in t.unique for code in q.codes), len(q.codes)),
        _share(sum(_stands_in(code, t) for code in q.codes), len(q.codes)),
        sum(not _stands_in(code, t) for code in q.codes),
        _share(sum(_stands_in(code, q) for code in t.codes), len(t.codes)),
        sum(not _stands_in(code, q) for code in t.codes),
        len(longest),
        _longest_inside(longest, t) / len(longest) if longest else NONE,
        max((fuzz.ratio(longest, code) for code in t.codes), default=0.0) / 100 if longest else NONE,
        len(q.numbers & t.numbers) / max(1, len(q.numbers | t.numbers)),
        _share(len(q.numbers & t.numbers), len(q.numbers)),
        _share(len(q.numbers & t.numbers), len(t.numbers)),
        _share(weights.total(word for word in plain if word in t.unique), weights.total(plain)),
    ]


def _similarity(q: Text, t: Text) -> list[float]:
    common = LCSseq.similarity(q.squashed, t.squashed)
    return [
        fuzz.ratio(q.squashed, t.squashed) / 100,
        fuzz.partial_ratio(q.squashed, t.squashed) / 100,
        fuzz.token_set_ratio(q.joined, t.joined) / 100,
        fuzz.token_sort_ratio(q.joined, t.joined) / 100,
        common / max(1, len(q.squashed)),
        common / max(1, len(t.squashed)),
        len(q.squashed) / max(1, len(t.squashed)),
    ]


def _stands_in(code: str, text: Text) -> bool:
    """As a word (``2.5``), or inside the squashed text (``1000xm4`` in ``wh1000xm4``)."""
    return code in text.unique or code in text.squashed


def _longest_inside(code: str, text: Text) -> int:
    """Length of the longest piece of `code` that stands in `text` (codes are short: a plain search is fast)."""
    for size in range(len(code), 0, -1):
        if any(_stands_in(code[start : start + size], text) for start in range(len(code) - size + 1)):
            return size
    return 0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else NONE
