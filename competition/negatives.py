"""Pairs that are not relevant, made from training rows: easy ones, hard ones from nearby; another rate of label 1.

A made-up negative may be wrong: a target that nobody labelled for a query can be relevant to it. So a target is never
taken for a query that stands with it in the rows, in any language, and for category paths never one above or below a
relevant one (on `cup` QC such pairs have label 1 in 87 % to 100 %). Targets come from
the given rows alone: where these are the training side of a fold, the fold's own stay unseen.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.augmentation import draws, row_random
from competition.categories import levels, top_level
from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.leaks import query_texts
from competition.tasks import Task

MAX_TARGETS = 20_000
"""Targets that hard negatives are looked for among; of more, a sample that depends on the seed."""

CHUNK = 256
N_TRIES = 20
N_HASHED = 2**18
RELEVANT, IRRELEVANT = 1, 0

Codes = npt.NDArray[np.int64]
Places = frozenset[int]


class Space(Protocol):
    """Where queries and targets have vectors: arrays or sparse matrices of unit rows, ``(n_texts, dim)``."""

    def queries(self, texts: Sequence[str]) -> Any:
        """The vectors of queries."""
        ...

    def targets(self, texts: Sequence[str]) -> Any:
        """The vectors of targets."""
        ...


class LexicalSpace:
    """TF-IDF of character n-grams inside word boundaries, weighed by how many of the targets have them."""

    def __init__(self, targets: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._hashing = HashingVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), n_features=N_HASHED, norm=None, alternate_sign=False
        )
        self._weights = TfidfTransformer(sublinear_tf=True).fit(self._hashing.transform(targets))

    def queries(self, texts: Sequence[str]) -> Any:
        """Sparse unit rows, see `Space`."""
        return self._weights.transform(self._hashing.transform(texts))

    def targets(self, texts: Sequence[str]) -> Any:
        """Sparse unit rows, see `Space`."""
        return self.queries(texts)


@dataclass(frozen=True, eq=False)
class Known:
    """What the rows say about their queries and targets.

    Attributes
    ----------
    targets
        Every distinct target, sorted.
    meaning
        ``(n_rows,)`` a code per query, the same for all its languages, see `query_meanings`.
    taken
        Meaning -> places in `targets` that may not become a negative of it.
    tops
        Meaning -> top levels of its relevant targets (category paths only).
    """

    targets: tuple[str, ...]
    meaning: Codes
    taken: dict[int, Places]
    tops: dict[int, frozenset[str]]

    @classmethod
    def of(cls, rows: pd.DataFrame, task: Task) -> "Known":
        """That of labelled rows."""
        codes, targets = pd.factorize(rows["target"], sort=True)
        related = _related(list(targets), task)
        meaning = query_meanings(rows)
        relevant = (rows["label"] == RELEVANT).to_numpy(dtype=bool)
        taken: dict[int, set[int]] = defaultdict(set)
        tops: dict[int, set[str]] = defaultdict(set)
        for code, place, is_relevant in zip(meaning.tolist(), codes.tolist(), relevant.tolist(), strict=True):
            taken[code] |= related.relevant[place] if is_relevant else related.same[place]
            if is_relevant and task.target_is_category:
                tops[code].add(top_level(targets[place]))
        return cls(
            tuple(targets),
            meaning,
            {code: frozenset(places) for code, places in taken.items()},
            {code: frozenset(names) for code, names in tops.items()},
        )


def query_meanings(rows: pd.DataFrame) -> Codes:
    """A code for every query, ``(n_rows,)``: equal where queries, or a chain, share a text, as written or in English.

    Examples
    --------
    >>> rows = pd.DataFrame({"query": ["zapato", "Shoe", "hat"], "query_en": ["shoe", "", ""]}, dtype="str")
    >>> query_meanings(rows).tolist()
    [0, 0, 1]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    written, english = query_texts(rows)
    english = english.where(english != "", written)
    codes, texts = pd.factorize(pd.concat([written, english], ignore_index=True))
    first, second = np.split(codes, 2)
    links = coo_matrix((np.ones(len(rows), dtype=np.int8), (first, second)), (len(texts), len(texts)))
    return np.asarray(connected_components(links, directed=False)[1][first], dtype=np.int64)


def easy_negatives(rows: pd.DataFrame, task: Task, *, share: float, seed: int) -> pd.DataFrame:
    """For about that share of the rows with label 1, the query with a random target of another branch.

    Another branch is another top level of the category tree than any relevant target of the query has; for titles, any
    target that is not taken. A row for which `N_TRIES` draws find none gives none. Columns as `hard_negatives`.
    """
    known = Known.of(rows, task)
    places = _chosen(rows, "easy", share=share, seed=seed)
    found: list[tuple[int, int]] = []
    for place in places.tolist():
        code = int(known.meaning[place])
        rng = row_random(rows["id"].iloc[place], "easy target", seed=seed)
        for _ in range(N_TRIES):
            target = rng.randrange(len(known.targets))
            elsewhere = not task.target_is_category or top_level(known.targets[target]) not in known.tops[code]
            if elsewhere and target not in known.taken[code]:
                found.append((place, target))
                break
    return _negatives(rows, known, found)


def hard_negatives(
    rows: pd.DataFrame, task: Task, *, share: float, hardness: float, seed: int, space: Space | None = None
) -> pd.DataFrame:
    """For about that share of the rows with label 1, the query with a target that is similar to it.

    Parameters
    ----------
    hardness
        Of n targets that are not taken, that at the quantile ``1 - n ** -hardness`` of similarity to the query: 1 takes
        the most similar one, 0 the least similar, .5 the 32nd nearest of 1,000, .8 the 4th.
    space
        What similar means: a cosine in it, of the query (its translation where there is one) and the target. Without
        one, `LexicalSpace` of the targets.

    Returns
    -------
    The chosen rows with that `target`, `label` 0, the id of the row in `parent`, `weight` 1; other columns, the group
    among them, are the row's own. Ids are still those of the rows, see `competition.augmentation.with_extra`.

    Raises
    ------
    CompetitionError
        The hardness is outside [0, 1].
    """
    if not 0 <= hardness <= 1:
        raise CompetitionError("negatives cannot be made", faults=[Fault("hardness", str(hardness), "between 0 and 1")])
    known = Known.of(rows, task)
    chosen = _chosen(rows, "hard", share=share, seed=seed)
    pool = _pool(len(known.targets), seed=seed)
    if not len(chosen) or not len(pool):
        return _negatives(rows, known, [])
    texts = [known.targets[place] for place in pool.tolist()]
    space = space or LexicalSpace(texts)
    vectors = space.targets(texts)
    place_in_pool = {int(target): i for i, target in enumerate(pool)}
    found: list[tuple[int, int]] = []
    for start in range(0, len(chosen), CHUNK):
        places = chosen[start : start + CHUNK]
        similarity = _dense(space.queries(_asked(rows.iloc[places])) @ vectors.T)
        for place, similar in zip(places.tolist(), similarity, strict=True):
            taken = [place_in_pool[t] for t in known.taken[int(known.meaning[place])] if t in place_in_pool]
            target = _at_quantile(similar, taken, hardness)
            if target is not None:
                found.append((place, int(pool[target])))
    return _negatives(rows, known, found)


def resample_to_prior(rows: pd.DataFrame, rate: float, *, seed: int) -> pd.DataFrame:
    """Those of the labelled rows, in their order, that have about that rate of label 1.

    Of the label that is too frequent some rows are dropped, at random by seed and id.

    Raises
    ------
    CompetitionError
        The rate is not between 0 and 1, or the rows do not have both labels.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": [1, 2, 3, 4], "label": [1, 1, 1, 0]})
    >>> resample_to_prior(rows, 0.5, seed=0)["label"].tolist()
    [1, 0]
    """
    relevant, n_relevant = _both_labels(rows, rate)
    n_other = len(rows) - n_relevant
    n_kept = min(n_relevant, round(n_other * rate / (1 - rate))), min(n_other, round(n_relevant * (1 - rate) / rate))
    order = draws(rows["id"], "prior", seed=seed)
    keep = np.zeros(len(rows), dtype=bool)
    for of_label, n in zip((relevant, ~relevant), n_kept, strict=True):
        places = np.flatnonzero(of_label)
        keep[places[np.argsort(order[places], kind="stable")[: max(n, 1)]]] = True
    return rows[keep]


def _both_labels(rows: pd.DataFrame, rate: float) -> tuple[npt.NDArray[np.bool_], int]:
    relevant = (rows["label"] == RELEVANT).to_numpy(dtype=bool)
    faults = [] if 0 < rate < 1 else [Fault("rate", str(rate), "between 0 and 1")]
    if not 0 < relevant.sum() < len(rows):
        faults.append(Fault("label", "one of the two labels only", "rows of both"))
    if faults:
        raise CompetitionError("these rows cannot have that rate of label 1", faults=faults)
    return relevant, int(relevant.sum())


@dataclass(frozen=True)
class _Related:
    """Per target the places that are taken with it: the same text, and for a relevant one all of its path."""

    same: list[Places]
    relevant: list[Places]


def _related(targets: list[str], task: Task) -> _Related:
    """Targets that differ in case, width or spaces are the same."""
    by_text: dict[str, set[int]] = defaultdict(set)
    normal = map_distinct(pd.Series(targets, dtype="str"), normalise_query).tolist()
    for place, text in enumerate(normal):
        by_text[text].add(place)
    same = [frozenset(by_text[text]) for text in normal]
    if not task.target_is_category:
        return _Related(same, same)
    along: list[set[int]] = [set(places) for places in same]
    for place, path in enumerate(normal):
        names = levels(path)
        for above in (",".join(names[:depth]) for depth in range(1, len(names))):
            for other in by_text.get(above, ()):
                along[place].add(other)
                along[other].add(place)
    return _Related(same, [frozenset(places) for places in along])


def _chosen(rows: pd.DataFrame, purpose: str, *, share: float, seed: int) -> Codes:
    """Places of the rows with label 1 that get a negative, in the order of their ids."""
    relevant = (rows["label"] == RELEVANT).to_numpy(dtype=bool)
    places = np.flatnonzero(relevant & (draws(rows["id"], purpose, seed=seed) < share))
    return np.asarray(places[np.argsort(rows["id"].iloc[places].to_numpy(), kind="stable")], dtype=np.int64)


def _pool(n_targets: int, *, seed: int) -> Codes:
    if n_targets <= MAX_TARGETS:
        return np.arange(n_targets, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n_targets, MAX_TARGETS, replace=False)).astype(np.int64)


def _asked(rows: pd.DataFrame) -> list[str]:
    """The translation, or the query where there is none."""
    if "query_en" not in rows:
        return list(rows["query"])
    return list(rows["query_en"].where(rows["query_en"] != "", rows["query"]))


def _dense(similarity: Any) -> npt.NDArray[np.float64]:
    return np.asarray(similarity.toarray() if hasattr(similarity, "toarray") else similarity, dtype=np.float64)


def _at_quantile(similar: npt.NDArray[np.float64], taken: list[int], hardness: float) -> int | None:
    """The place that is ``n ** (1 - hardness)``-th from the top among those that are not taken; of equals the last.

    Examples
    --------
    >>> [_at_quantile(np.array([0.1, 0.9, 0.4, 0.2, 0.3]), [1], hardness) for hardness in (0, 0.5, 1)]
    [0, 4, 2]
    """
    allowed = np.setdiff1d(np.arange(len(similar)), taken)
    if not len(allowed):
        return None
    order = np.argsort(similar[allowed], kind="stable")
    return int(allowed[order[-round(len(order) ** (1 - hardness))]])


def _negatives(rows: pd.DataFrame, known: Known, found: list[tuple[int, int]]) -> pd.DataFrame:
    chosen = rows.iloc[[place for place, _ in found]]
    targets = pd.Series([known.targets[target] for _, target in found], index=chosen.index, dtype="str")
    labels = pd.Series(IRRELEVANT, index=chosen.index, dtype=rows["label"].dtype)
    made = chosen.assign(target=targets, label=labels, parent=chosen["id"], weight=1.0)
    return made.assign(soft_label=0.0) if "soft_label" in rows else made
