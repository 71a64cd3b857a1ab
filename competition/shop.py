"""Draws the rows of made-up competitions: what shoppers type, and the categories and offers beside it.

A query of QC is relevant to its own category, the parent and the children of it; a query of QI to offers of
the same product that contradict none of the brand, model code and attributes that it names.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import NamedTuple, TypeVar

import numpy as np

from competition.lexicon import Concept, Lexicon, Listing, find_neighbours

T = TypeVar("T")
BLOCK = 1 << 14
NO_POSITIVE_RATE = 0.05  # queries without a single relevant candidate
LATIN_END = "\u0250"  # letters below it are Latin: typos stay away from the other scripts
PRAISE = ("new", "premium", "classic", "modern", "original", "high quality", "deluxe", "official", "2025")
PROMISES = (
    "free shipping",
    "with gift box",
    "fast delivery",
    "1 year warranty",
    "in stock",
    "on sale",
    "top rated",
)


class Dice:
    """Uniform draws from one seeded generator, taken in blocks: single calls are ten times slower."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pool: list[float] = []

    def _refill(self) -> None:
        self._pool = self._rng.random(BLOCK)[::-1].tolist()  # taken from the end: the draws do not depend on BLOCK

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        if not self._pool:
            self._refill()
        return self._pool.pop() < probability

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        if not self._pool:
            self._refill()
        return int(self._pool.pop() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[self.below(len(options))]


class Pair(NamedTuple):
    """A drawn row before its label is made; `english` is the true translation of the query."""

    language: str
    query: str
    english: str
    target: str
    clean_label: bool


class Shop:
    """Draws queries and their candidates from a lexicon."""

    def __init__(self, lexicon: Lexicon, dice: Dice) -> None:
        self.lexicon, self.dice = lexicon, dice
        self.groups = tuple(concept for concept in lexicon.concepts if not concept.is_product)
        self.products = tuple(concept for concept in lexicon.concepts if concept.is_product)
        by_path = {product.path: product for product in self.products}
        self.around = find_neighbours(concept.path for concept in lexicon.concepts)
        self.similar = {p: [by_path[near] for near in self.around[p].near if near in by_path] for p in by_path}

    def pairs(self, task: str, languages: Sequence[str], positive_rate: float) -> Iterator[Pair]:
        """Rows without end, the candidates of a query together, the languages in turn."""
        for language in cycle(languages):
            about_category = task == "QC"
            concepts = self.groups if about_category and self.dice.chance(0.2) else self.products
            wish = self.listing(self.dice.pick(concepts), {"brand": 0.25, "code": 0.12}, usual=0.3)
            query, english = self.worded(wish, language), self.lexicon.phrase(wish, "en")
            seen: set[str] = set()
            for relevant in self.clean_labels(positive_rate):
                draw = self.category if about_category else partial(self.title, language=language)
                while (target := draw(wish, relevant)) in seen:
                    pass
                seen.add(target)
                yield Pair(language, query, english, target, relevant)

    def clean_labels(self, positive_rate: float) -> list[bool]:
        """Labels of the two or three candidates of one query, none to two of them positive."""
        n, two_positives = 2 + self.dice.below(2), 2.5 * positive_rate - 1 + NO_POSITIVE_RATE
        n_positive = 2 if self.dice.chance(two_positives) else 1
        if n_positive == 1 and self.dice.chance(NO_POSITIVE_RATE / (1 - two_positives)):
            n_positive = 0
        labels, first = [i < n_positive for i in range(n)], self.dice.below(n)
        return labels[first:] + labels[:first]

    def category(self, wish: Listing, relevant: bool) -> str:
        """A category path that is, or is not, relevant to `wish`."""
        around = self.around[wish.concept.path]
        if relevant:
            return around.relevant[0] if self.dice.chance(0.4) else self.dice.pick(around.relevant)
        return self.dice.pick(around.near if around.near and self.dice.chance(0.6) else around.far)

    def title(self, wish: Listing, relevant: bool, *, language: str) -> str:
        """The title of an offer that does, or does not, answer `wish`; most titles are English."""
        offer = self.offer(wish) if relevant else self.wrong_offer(wish)
        words = self.worded(offer, language if self.dice.chance(0.15) else "en")
        praise = self.dice.pick(PRAISE) + " " if self.dice.chance(0.4) else ""
        return praise + words + (" " + self.dice.pick(PROMISES) if self.dice.chance(0.4) else "")

    def offer(self, wish: Listing) -> Listing:
        """An offer that answers `wish`, though it may leave facets of it open."""
        facets = self.listing(wish.concept, {"brand": 0.8, "code": 0.3}, usual=0.4).facets
        own = {kind: value for kind, value in facets.items() if kind not in wish.facets}
        return Listing(wish.concept, own | {k: v for k, v in wish.facets.items() if self.dice.chance(0.85)})

    def wrong_offer(self, wish: Listing) -> Listing:
        """The same product with one facet contradicted, or another product with the wished facets."""
        if wish.facets and self.dice.chance(0.5):
            kind, offer = self.dice.pick(tuple(wish.facets)), self.offer(wish)
            n_values = self.lexicon.n_values(kind)
            other = (wish.facets[kind] + 1 + self.dice.below(n_values - 1)) % n_values
            return Listing(offer.concept, {**offer.facets, kind: other})
        similar = self.similar[wish.concept.path]
        concept = self.dice.pick(similar if similar and self.dice.chance(0.6) else self.products)
        if concept is wish.concept:
            return self.wrong_offer(wish)
        facets = self.listing(concept, {"brand": 0.8, "code": 0.3}, usual=0.4).facets
        return Listing(concept, {**facets, **{k: v for k, v in wish.facets.items() if k in facets}})

    def listing(self, concept: Concept, rates: Mapping[str, float], *, usual: float) -> Listing:
        """`concept` with some facets, each named at its rate."""
        kinds = (kind for kind in ("brand", "code", *concept.attributes) if self.dice.chance(rates.get(kind, usual)))
        return Listing(concept, {kind: self.dice.below(self.lexicon.n_values(kind)) for kind in kinds})

    def worded(self, listing: Listing, language: str) -> str:
        """`listing` as people type it: synonyms, some English in it, a typo here and there, any case."""
        spoken = "en" if self.dice.chance(0.05) else language
        name = self.dice.pick(listing.concept.names[spoken])
        text = self.lexicon.phrase(listing, language, name=name, mixed=self.dice.chance(0.12))
        if self.dice.chance(0.1):
            text = self.misspelt(text)
        case = self.dice.below(20)
        return text if case < 3 else text.title() if case < 5 else text.upper() if case < 6 else text.lower()

    def misspelt(self, text: str) -> str:
        """`text` with a letter of one longer Latin word left out, doubled or swapped with the next."""
        words = text.split(" ")
        places = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha() and max(word) < LATIN_END]
        if not places:
            return text
        place = self.dice.pick(places)
        word, at = words[place], 1 + self.dice.below(len(words[place]) - 2)
        head, pair, tail = word[:at], word[at : at + 2], word[at + 2 :]
        words[place] = head + self.dice.pick((pair[1:], pair[0] + pair, pair[::-1])) + tail
        return " ".join(words)
