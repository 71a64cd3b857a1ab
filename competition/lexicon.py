"""The words of the made-up competitions: product concepts, attributes and brands in thirteen languages.

The tables are `data/lexicon.tsv` (a category path, the kinds of attribute that its products have, and its
names; synonyms stand between bars) and `data/attributes.tsv`. The words are real, written for this project,
so that a pretrained multilingual encoder finds the meaning; the brands are invented.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

from competition.categories import levels

LANGUAGES = ("en", "es", "fr", "ja", "ko", "pt", "de", "it", "pl", "ar", "vn", "th", "id")
SYNONYM = "|"
# fmt: off
BRANDS = (
    "velmora", "nordaxa", "brivello", "tavexo", "zelkiro", "hovanta", "miraluxo", "castelune", "oruvex",
    "plenova", "quorvik", "dabrelle", "fintaro", "gulvana", "helvarq", "istrano", "jovelka", "kelmuro",
    "lorvanto", "mundaxo", "navirel", "ostreko", "pavonix", "ruskello", "sarvinto", "tolmera", "ulvenka",
    "vostaro", "wendrix", "yarulo", "zimbrel", "alquora",
)
# fmt: on
N_CODES = 9000  # model codes: xb-1001 and so on

DESCRIBING = frozenset({"color", "fabric", "hard", "leather", "jewel"})
# The kinds of attribute that stand before the name; everywhere else they follow it.
LEADING: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("en", "ja", "ko"), DESCRIBING),
    **dict.fromkeys(("de", "pl"), frozenset({"color"})),
}


@dataclass(frozen=True, eq=False)
class Concept:
    """One product category: where it stands in the tree, and what people call it.

    Attributes
    ----------
    path
        The English category path, three levels (a group of products) or four (a product).
    attributes
        The kinds of attribute that its products have: ``("color", "size")``.
    names
        Language to names, the usual one first.
    """

    path: str
    attributes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]

    @property
    def is_product(self) -> bool:
        """Whether it is a product and not a group of products."""
        return len(levels(self.path)) > 3


@dataclass(frozen=True)
class Lexicon:
    """All concepts, and for every kind of attribute its values, each a mapping of language to word."""

    concepts: tuple[Concept, ...]
    attributes: Mapping[str, tuple[Mapping[str, str], ...]]

    @property
    def groups(self) -> tuple[str, ...]:
        """The paths of all groups of products, in the order of the table."""
        return tuple(concept.path for concept in self.concepts if not concept.is_product)

    def without(self, groups: Iterable[str]) -> "Lexicon":
        """The lexicon less the concepts that stand at or below `groups`."""
        left_out = set(groups)
        kept = (c for c in self.concepts if ",".join(levels(c.path)[:3]) not in left_out)
        return Lexicon(tuple(kept), self.attributes)

    def n_values(self, kind: str) -> int:
        """How many values a facet of `kind` can have: ``brand``, ``code`` or a kind of attribute."""
        return {"brand": len(BRANDS), "code": N_CODES}.get(kind) or len(self.attributes[kind])

    def phrase(self, listing: "Listing", language: str, *, name: str = "", mixed: bool = False) -> str:
        """`listing` in words: brand, attributes and name in the order of `language`, model code.

        Parameters
        ----------
        name
            The name to use instead of the usual one in `language`.
        mixed
            Attributes in English whatever the language (code-mixing).

        Examples
        --------
        >>> lexicon = read_lexicon()
        >>> mug = next(concept for concept in lexicon.concepts if concept.names["en"] == ("mug",))
        >>> lexicon.phrase(Listing(mug, {"brand": 0, "color": 2}), "en")
        'velmora red mug'
        >>> lexicon.phrase(Listing(mug, {"brand": 0, "color": 2}), "fr")
        'velmora tasse rouge'
        """
        sides: tuple[list[str], list[str]] = ([], [])
        for kind, value in listing.facets.items():
            if kind in self.attributes:
                word = self.attributes[kind][value]["en" if mixed else language]
                sides[kind not in LEADING.get(language, frozenset())].append(word)
        brand = [BRANDS[listing.facets["brand"]]] if "brand" in listing.facets else []
        code = [_model_code(listing.facets["code"])] if "code" in listing.facets else []
        return " ".join([*brand, *sides[0], name or listing.concept.names[language][0], *sides[1], *code])


@dataclass(frozen=True)
class Listing:
    """What a query asks for, or an offer: a concept and values of facets (brand, code, attributes)."""

    concept: Concept
    facets: Mapping[str, int]

    def answers(self, wish: "Listing") -> bool:
        """Whether this offer has the wished concept and contradicts no facet of the wish."""
        same = self.concept is wish.concept
        return same and all(self.facets.get(kind, value) == value for kind, value in wish.facets.items())


def _model_code(number: int) -> str:
    letters = "abcdefghkmnprstvxz"
    return f"{letters[number % 18]}{letters[number // 18 % 18]}-{1000 + number}"


@cache
def read_lexicon() -> Lexicon:
    """The lexicon that comes with the package."""
    concepts = tuple(_concept(line) for line in _table("lexicon.tsv"))
    attributes: dict[str, tuple[Mapping[str, str], ...]] = {}
    for line in _table("attributes.tsv"):
        kind = line.pop("attribute")
        attributes[kind] = (*attributes.get(kind, ()), line)
    return Lexicon(concepts, attributes)


def _concept(line: Mapping[str, str]) -> Concept:
    names = {language: tuple(line[language].split(SYNONYM)) for language in LANGUAGES}
    return Concept(line["path"], tuple(line["attributes"].split()), names)


def _table(name: str) -> Iterator[dict[str, str]]:
    lines = files("competition").joinpath("data", name).read_text(encoding="utf-8").splitlines()
    yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


@dataclass(frozen=True)
class Neighbours:
    """The categories around one category, own path first among the relevant ones.

    Attributes
    ----------
    relevant
        The category itself, its parent and its children.
    near
        Siblings, uncles, cousins and nephews.
    far
        Everything below other top levels.
    """

    relevant: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]


def find_neighbours(paths: Iterable[str]) -> dict[str, Neighbours]:
    """The categories around each of `paths`, which have two levels or more (a top level has no parent).

    Categories are in the order in which `paths` first names them; `competition.categories.CategoryTree` sorts.

    Examples
    --------
    >>> find_neighbours(["a,b,c", "a,b,d", "a,e,f", "x,y,z"])["a,b,c"]
    Neighbours(relevant=('a,b,c', 'a,b'), near=('a,b,d', 'a,e', 'a,e,f'), far=('x,y', 'x,y,z'))
    """
    paths = list(paths)
    children = _children(paths)
    below = {top: _below(top, children) for top in children[""]}
    return {path: _neighbours(path, children, below) for path in paths}


def _children(paths: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The children of every path along `paths`; those of "" are the top levels."""
    children: dict[str, dict[str, None]] = {"": {}}
    for path in paths:
        names = levels(path)
        steps = ["", *(",".join(names[:depth]) for depth in range(1, len(names) + 1))]
        for parent, child in pairwise(steps):
            children[parent].setdefault(child)
            children.setdefault(child, {})
    return {parent: tuple(below) for parent, below in children.items()}


def _below(path: str, children: Mapping[str, tuple[str, ...]]) -> list[str]:
    """All paths below `path`, depth first."""
    return [found for child in children[path] for found in (child, *_below(child, children))]


def _neighbours(
    path: str, children: Mapping[str, tuple[str, ...]], below_tops: Mapping[str, Sequence[str]]
) -> Neighbours:
    names = levels(path)
    parent, grandparent = ",".join(names[:-1]), ",".join(names[:-2])
    siblings = [other for other in children[parent] if other != path]
    uncles = [other for other in children[grandparent] if other != parent] if grandparent else []
    near = [found for node in (*siblings, *uncles) for found in (node, *children[node])]
    far = [found for top, below in below_tops.items() if top != names[0] for found in below]
    return Neighbours((path, parent, *children[path]), tuple(near), tuple(far))
