"""Near-duplicates: found across splits, checked exactly, whatever the order; conflicts among them counted."""

import itertools

import numpy as np
import pandas as pd
import pytest

from competition.errors import CompetitionError
from competition.near_duplicates import near_duplicate_clusters, near_duplicate_report, rows_per_band, shingles
from competition.tasks import QC, QI

rng = np.random.default_rng(0)
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
BASES = [" ".join("".join(rng.choice(SYLLABLES, 3)) for _ in range(5)) for _ in range(300)]


def make_split(texts: list[tuple[int, str, str, int | None]]) -> pd.DataFrame:
    """Rows of id, query, target, label."""
    frame = pd.DataFrame(texts, columns=["id", "query", "target", "label"])
    return frame.astype({"query": "str", "target": "str", "label": "Int8"})


def alike(one: str, other: str) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def test_nearly_all_pairs_above_the_threshold_share_a_cluster_and_no_stranger_does() -> None:
    changed = [text[:7] + "x" + text[8:] for text in BASES]
    texts = [*BASES, *changed]
    clusters = near_duplicate_clusters(texts, threshold=0.7)
    near = [i for i in range(300) if alike(texts[i], texts[i + 300]) >= 0.7]
    assert len(near) > 200
    found = [clusters[i] == clusters[i + 300] for i in near]
    assert np.mean(found) > 0.97
    for cluster, members in itertools.groupby(np.argsort(clusters, kind="stable"), key=lambda i: clusters[i]):
        places = list(members)
        if len(places) == 2:
            assert alike(texts[places[0]], texts[places[1]]) >= 0.7, cluster


def test_the_order_of_texts_changes_no_cluster() -> None:
    texts = [*BASES[:80], *(text + "s" for text in BASES[:80])]
    order = np.random.default_rng(1).permutation(len(texts))
    clusters, turned = near_duplicate_clusters(texts), near_duplicate_clusters([texts[i] for i in order])
    same = clusters[order][:, None] == clusters[order][None]
    np.testing.assert_array_equal(same, turned[:, None] == turned[None])


def test_a_threshold_of_one_keeps_equal_sets_only() -> None:
    assert len(set(near_duplicate_clusters(BASES[:50], threshold=1.0))) == 50
    assert near_duplicate_clusters(["aaaa", "aaaaa"], threshold=1.0).tolist() == [0, 0]
    assert near_duplicate_clusters([]).tolist() == []
    with pytest.raises(CompetitionError, match="threshold"):
        near_duplicate_clusters(["a"], threshold=0.0)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_bands_are_as_long_as_the_recall_allows(threshold: float) -> None:
    def recall(n_rows: int) -> float:
        return 1 - (1 - threshold**n_rows) ** (128 // n_rows)

    longest = rows_per_band(threshold)
    assert recall(longest) >= 0.99
    assert longest == 128 or recall(longest + 1) < 0.99


def test_the_report_counts_across_splits_and_conflicts() -> None:
    train = make_split(
        [
            (1, "red running shoes", "acme speed running shoes red 42", 1),
            (2, "red running shoe", "acme speed running shoes red 43", 0),
            (3, "garden hose", "green garden hose 20 metres", 1),
            (4, "Garden  hose", "green garden hose 20 metres", 0),
            (5, "lamp", "desk lamp", 0),
        ]
    )
    dev = make_split([(6, "red runing shoes", "acme speed running shoes red 42", None), (7, "lamp", "sofa bed", None)])
    report = near_duplicate_report({"train": train, "dev": dev}, QI, threshold=0.6)
    clusters = report.clusters.set_index("key")
    assert clusters.loc["query", ["texts", "clusters", "texts_in_clusters", "largest"]].tolist() == [5, 1, 3, 3]
    across = report.across.set_index("key")
    assert across.loc["query", ["rows", "exact", "near"]].tolist() == [2, 1, 1]
    assert across.loc["pair", ["rows", "exact", "near"]].tolist() == [2, 0, 1]
    # ids 3 and 4 are the same pair after normalising: an exact repeat, which another report counts
    assert report.n_conflicts == 1
    assert report.conflicts[["id_1", "id_0"]].values.tolist() == [[1, 2]]
    assert len(report.tables("QI")) == 3


def test_category_paths_beside_each_other_are_no_near_duplicates() -> None:
    train = make_split([(1, "dog", "animals & pet supplies,pet supplies,dog supplies", 1)])
    dev = make_split([(2, "dog", "animals & pet supplies,pet supplies,cat supplies", None)])
    found = {
        task.name: near_duplicate_report({"train": train, "dev": dev}, task).across.set_index("key")["near"].to_dict()
        for task in (QC, QI)
    }
    assert found == {"QC": {"query": 0, "target": 0, "pair": 0}, "QI": {"query": 0, "target": 1, "pair": 1}}


def test_rows_without_any_other_split_have_no_line() -> None:
    train = make_split([(1, "", "", None)])
    report = near_duplicate_report({"train": train}, QI)
    assert report.across.empty
    assert report.n_conflicts == 0
    assert len(report.tables("QI")) == 1
