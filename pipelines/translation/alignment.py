"""Word translations learned from translated phrases: IBM model 1 (Brown et al. 1993), fitted by EM in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 8
LEAST_PROBABILITY = 0.3  # of a target word given the source word; chosen on chrF of product names, as is the next
LEAST_ALIGNED = 0.1  # times that the source word made this target word, per time that it occurs

Pair = tuple[Sequence[str], Sequence[str]]


def learn_words(pairs: Sequence[Pair]) -> dict[str, str]:
    """What each source word most likely means: target words, the likeliest first, or "" where it means nothing alone.

    A pair is the words of a phrase and of its translation.

    Examples
    --------
    >>> pairs = [(["comida", "perro"], ["dog", "food"]), (["comida", "gato"], ["cat", "food"]), (["gato"], ["cat"])]
    >>> learn_words(pairs)["gato"], learn_words(pairs)["comida"]
    ('cat', 'food')
    """
    links = _Links.of(pairs)
    if not len(links.source):
        return {}
    probability, expected = _fit(links)
    times = np.bincount(links.source_of_place, minlength=len(links.source_words))
    likely = (probability >= LEAST_PROBABILITY) & (expected > LEAST_ALIGNED * times[links.pair_source])
    meanings: dict[str, list[str]] = {word: [] for word in links.source_words[1:]}
    chosen = np.flatnonzero(likely & (links.pair_source > 0))
    for k in chosen[np.argsort(-probability[chosen], kind="stable")].tolist():
        own, word = meanings[links.source_words[links.pair_source[k]]], links.target_words[links.pair_target[k]]
        if not any(word.startswith(other) or other.startswith(word) for other in own):  # dog, then dogs
            own.append(word)
    return {word: " ".join(found) for word, found in meanings.items()}


@dataclass(frozen=True, eq=False)
class _Links:
    """Every possible link of a source word (number 0 is no word) to a target word, pair of phrases by pair.

    Attributes
    ----------
    source, target_place
        Of every link: the number of the source word, and the place (one word of one phrase) of the target word.
    kind
        Of every link: its (source word, target word), a number into `pair_source` and `pair_target`.
    source_of_place
        The source words of all phrases, one after the other.
    """

    source: np.ndarray
    target_place: np.ndarray
    kind: np.ndarray
    pair_source: np.ndarray
    pair_target: np.ndarray
    source_of_place: np.ndarray
    source_words: tuple[str, ...]
    target_words: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "_Links":
        sources: dict[str, int] = {"": 0}
        targets: dict[str, int] = {}
        source, target, places, occurrences = [], [], [], []
        place = 0
        for source_words, target_words in pairs:
            own = [sources.setdefault(word, len(sources)) for word in source_words]
            occurrences += own
            for word in target_words:
                number = targets.setdefault(word, len(targets))
                source += [0, *own]
                target += [number] * (len(own) + 1)
                places += [place] * (len(own) + 1)
                place += 1
        from_word, to_word = np.array(source, dtype=np.int64), np.array(target, dtype=np.int64)
        kinds, kind = np.unique(from_word * max(1, len(targets)) + to_word, return_inverse=True)
        return cls(
            from_word,
            np.array(places, dtype=np.int64),
            kind,
            kinds // max(1, len(targets)),
            kinds % max(1, len(targets)),
            np.array(occurrences, dtype=np.int64),
            tuple(sources),
            tuple(targets),
        )


def _fit(links: _Links) -> tuple[np.ndarray, np.ndarray]:
    """Of every (source word, target word): the probability of the target word, and how often it was aligned."""
    probability: np.ndarray = np.ones(len(links.pair_source))
    expected: np.ndarray = probability
    for _ in range(ROUNDS):
        weight = probability[links.kind]
        weight /= np.bincount(links.target_place, weight)[links.target_place]
        expected = np.bincount(links.kind, weight, minlength=len(probability))
        probability = expected / np.bincount(links.pair_source, expected)[links.pair_source]
    return probability, expected
