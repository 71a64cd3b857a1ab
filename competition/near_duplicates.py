"""Near-duplicates: texts that are the same but for a typo, a plural or a word, across train, dev and test.

Texts are compared as sets of character trigrams of their normalised form. MinHash signatures (Broder 1997) are those of
datasketch; the bands of locality-sensitive hashing are sorted arrays, 4 bytes per text and band, where datasketch's own
index keeps 2 KB per text. A pair that shares a band is then compared exactly.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.cleaning import N_LISTED, map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.tasks import Task

SHINGLE = 3
N_PERMUTATIONS = 128
RECALL = 0.99
ERRORS = 4.0  # standard errors of the share of places in which two signatures agree
CHUNK = 100_000
THRESHOLD = 0.7

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NearDuplicateReport:
    """What is nearly the same among the rows of a task; exact repeats are in `competition.cleaning.duplicate_report`.

    Attributes
    ----------
    clusters
        One line per key (query, target, pair): distinct texts, clusters of several of them, texts in such clusters,
        texts of the largest.
    across
        One line per key and split other than train: rows, rows whose text stands in train, further rows that have a
        near-duplicate there, their share.
    n_conflicts
        Clusters of training pairs with both labels, exact repeats of one pair not counted.
    conflicts
        The first `N_LISTED` of them: a pair labelled 1 and a near-duplicate labelled 0, with ids.
    """

    clusters: pd.DataFrame
    across: pd.DataFrame
    n_conflicts: int
    conflicts: pd.DataFrame

    def tables(self, task: str) -> dict[str, pd.DataFrame]:
        """The report's tables by title, those without lines left out."""
        tables = {
            f"{task}: near-duplicates": self.clusters,
            f"{task}: near-duplicates of train": self.across,
            f"{task}: near-duplicates in train with both labels ({self.n_conflicts:,})": self.conflicts,
        }
        return {title: table for title, table in tables.items() if len(table)}


def near_duplicate_report(
    rows_by_split: Mapping[str, pd.DataFrame], task: Task, *, threshold: float = THRESHOLD, seed: int = 0
) -> NearDuplicateReport:
    """What is nearly the same among the rows of all splits of a task.

    Two pairs are near-duplicates if their queries are and their targets are; category paths only count where they are
    equal, for a category beside another is another one.

    Parameters
    ----------
    threshold
        The share of trigrams (Jaccard) from which two texts are near-duplicates, in (0, 1].

    Raises
    ------
    CompetitionError
        The threshold is none.
    """
    names = ["id", "query", "target", "label"]
    rows = pd.concat(
        [frame[names].assign(split=split) for split, frame in rows_by_split.items()], ignore_index=True
    ).fillna({"target": ""})
    query, query_cluster = _keyed(rows["query"], threshold=threshold, seed=seed)
    if task.target_is_category:
        target, _ = pd.factorize(map_distinct(rows["target"], normalise_query))
        target_cluster = target
    else:
        target, target_cluster = _keyed(rows["target"], threshold=threshold, seed=seed)
    keys = {
        "query": (query, query_cluster),
        "target": (target, target_cluster),
        "pair": (_together(query, target), _together(query_cluster, target_cluster)),
    }
    split = rows["split"].to_numpy()
    across = [
        {"key": key, "split": name, **_across(text, cluster, split == "train", split == name)}
        for key, (text, cluster) in keys.items()
        for name in rows_by_split
        if name != "train"
    ]
    conflicts = _conflicts(rows, *keys["pair"])
    return NearDuplicateReport(
        clusters=pd.DataFrame([{"key": key, **_sizes(text, cluster)} for key, (text, cluster) in keys.items()]),
        across=pd.DataFrame(across),
        n_conflicts=len(conflicts),
        conflicts=conflicts.head(N_LISTED),
    )


def near_duplicate_clusters(texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int = 0) -> Codes:
    """The cluster of every distinct text, ``(n_texts,)``: chains of near-duplicates, numbered as they come.

    Of texts as alike as `threshold` at least 99 in 100 pairs share a band; texts as alike as that in a chain are one
    cluster. 1,000,000 distinct texts take about a gigabyte.

    Raises
    ------
    CompetitionError
        The threshold is none.

    Examples
    --------
    >>> near_duplicate_clusters(["red running shoes", "red running shoe", "garden hose"]).tolist()
    [0, 0, 1]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not 0 < threshold <= 1:
        fault = Fault("threshold", str(threshold), "above 0, at most 1")
        raise CompetitionError("near-duplicates cannot be looked for", faults=[fault])
    labels, links = np.arange(len(texts)), np.zeros((0, 2), dtype=np.int64)
    signatures = _signatures(texts, seed=seed)
    for candidates in _candidates(signatures, rows_per_band(threshold)):
        apart = candidates[labels[candidates[:, 0]] != labels[candidates[:, 1]]]
        links = np.concatenate([links, _alike(texts, _promising(signatures, apart, threshold), threshold)])
        ones = np.ones(len(links), dtype=np.int8)
        graph = coo_matrix((ones, (links[:, 0], links[:, 1])), (len(texts), len(texts)))
        labels = connected_components(graph, directed=False)[1]
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def rows_per_band(threshold: float) -> int:
    """The longest band with which two texts as alike as `threshold` share one with probability `RECALL`.

    Examples
    --------
    >>> rows_per_band(0.7), rows_per_band(0.9)
    (4, 10)
    """
    fits = [r for r in range(1, N_PERMUTATIONS + 1) if 1 - (1 - threshold**r) ** (N_PERMUTATIONS // r) >= RECALL]
    return max(fits, default=1)


def shingles(text: str) -> frozenset[str]:
    """The trigrams of a text and the blanks around it.

    Examples
    --------
    >>> sorted(shingles("usb"))
    [' us', 'sb ', 'usb']
    """
    padded = f" {text} "
    return frozenset(padded[i : i + SHINGLE] for i in range(max(1, len(padded) - SHINGLE + 1)))


def _signatures(texts: Sequence[str], *, seed: int) -> npt.NDArray[np.uint32]:
    """``(n_texts, N_PERMUTATIONS)``, 32 bits each."""
    from datasketch import MinHash

    hashed: Iterable[list[int]] = ([zlib.crc32(part.encode()) for part in shingles(text)] for text in texts)
    found = np.empty((len(texts), N_PERMUTATIONS), dtype=np.uint32)
    for i, each in enumerate(MinHash.generator(hashed, num_perm=N_PERMUTATIONS, seed=seed + 1, hashfunc=int)):
        found[i] = each.hashvalues
    return found


def _candidates(signatures: npt.NDArray[np.uint32], n_rows: int) -> Iterator[Codes]:
    """Band by band the pairs of places that share it, ``(n_pairs, 2)``: with the first of a bucket, the one before."""
    for start in range(0, N_PERMUTATIONS - n_rows + 1, n_rows):
        band = _hashed(signatures[:, start : start + n_rows])
        order = np.argsort(band, kind="stable")
        is_first = np.diff(band[order], prepend=band[order][:1] + 1) != 0
        starts, others = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        first = starts[np.searchsorted(starts, others, side="right") - 1]
        to_first = np.stack([order[first], order[others]], axis=1)
        to_one_before = np.stack([order[others - 1], order[others]], axis=1)
        yield np.unique(np.sort(np.concatenate([to_first, to_one_before]), axis=1), axis=0)


def _hashed(band: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """64 bits of every row of a band (a polynomial modulo 2**64); two that meet by chance are told apart later."""
    mixed = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _promising(signatures: npt.NDArray[np.uint32], pairs: Codes, threshold: float) -> Codes:
    """Those of `pairs` whose signatures agree in as many places as those of alike texts do, less `ERRORS` errors."""
    least = threshold - ERRORS * np.sqrt(threshold * (1 - threshold) / N_PERMUTATIONS)
    parts = np.array_split(pairs, len(pairs) // CHUNK + 1)
    return np.concatenate(
        [part[(signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= least] for part in parts]
    )


def _alike(texts: Sequence[str], pairs: Codes, threshold: float) -> Codes:
    """Those of `pairs` whose texts have that share of their trigrams in common."""
    kept = np.zeros(len(pairs), dtype=bool)
    for i, (one, other) in enumerate(pairs.tolist()):
        first, second = shingles(texts[one]), shingles(texts[other])
        common = len(first & second)
        kept[i] = common >= threshold * (len(first) + len(second) - common)
    return pairs[kept]


def _keyed(texts: pd.Series, *, threshold: float, seed: int) -> tuple[Codes, Codes]:
    """The normalised text of every row, and its cluster, as codes ``(n_rows,)`` each."""
    codes, distinct = pd.factorize(map_distinct(texts, normalise_query))
    clusters = near_duplicate_clusters(list(distinct), threshold=threshold, seed=seed)
    return codes.astype(np.int64), clusters[codes]


def _together(first: Codes, second: Codes) -> Codes:
    """Codes of what rows have in both."""
    return np.asarray(pd.factorize(first * (int(second.max(initial=0)) + 1) + second)[0], dtype=np.int64)


def _sizes(text: Codes, cluster: Codes) -> dict[str, int]:
    per_text = pd.DataFrame({"text": text, "cluster": cluster}).drop_duplicates("text")
    sizes = per_text["cluster"].value_counts()
    several = sizes[sizes > 1]
    return {
        "texts": len(per_text),
        "clusters": len(several),
        "texts_in_clusters": int(several.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
    }


def _across(
    text: Codes, cluster: Codes, train: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> dict[str, object]:
    exact = np.isin(text[other], text[train])
    near = np.isin(cluster[other], cluster[train]) & ~exact
    return {
        "rows": int(other.sum()),
        "exact": int(exact.sum()),
        "near": int(near.sum()),
        "near_share": float(near.mean()) if len(near) else 0.0,
    }


def _conflicts(rows: pd.DataFrame, text: Codes, cluster: Codes) -> pd.DataFrame:
    """One line per cluster of training pairs in which different pairs have different labels."""
    labelled = rows[["id", "query", "target"]].assign(label=rows["label"].astype("Float64"), text=text, cluster=cluster)
    train = labelled[(rows["split"] == "train").to_numpy() & labelled["label"].notna().to_numpy()]
    sides = [train[train["label"] == label].drop_duplicates("text") for label in (1, 0)]
    met = sides[0].merge(sides[1], on="cluster", suffixes=("_1", "_0"))
    met = met[met["text_1"] != met["text_0"]].drop_duplicates("cluster", ignore_index=True)
    columns = ["query_1", "target_1", "id_1", "query_0", "target_0", "id_0"]
    return met[columns]
