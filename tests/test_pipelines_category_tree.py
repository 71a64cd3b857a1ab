"""The category-tree base learner: relations in the tree against naive loops, and each row scored for itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tiny import PATHS, assert_probabilities, make_rows, odd_rows, one_by_one

from competition.categories import ROOT, CategoryTree
from competition.tasks import QC, QI
from pipelines.backbones import applies, bi_encoder, category_tree, load
from pipelines.backbones.candidates import (
    nearest_nodes,
    places_in,
    relations,
    standing_among,
    with_candidates,
)
from pipelines.backbones.category_tree import CategoryTreeLearner
from pipelines.backbones.protocol import PAIR, Corpus, Workspace
from pipelines.backbones.tree_features import FEATURES, Families, TreeFeatures
from pipelines.config import EncoderSection, WeightsSection, load_recipe
from pipelines.embeddings import Embedder

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(",".join)
TREES = st.lists(NAMES, min_size=1, max_size=10).map(CategoryTree.of)
TRAIN, FRESH = make_rows(400, seed=1, targets=PATHS), make_rows(120, seed=2, targets=PATHS)

# Relations in the tree


@given(TREES, st.integers(0, 2**32 - 1))
def test_families_equal_naive_loops(tree: CategoryTree, seed: int) -> None:
    """Values come from few numbers, so that siblings tie."""
    n_nodes = len(tree.paths)
    values = np.random.default_rng(seed).choice(np.float32([-0.5, 0.0, 0.25, 0.75]), size=(3, n_nodes))
    children = [np.flatnonzero(tree.parent == i) for i in range(n_nodes)]
    siblings = [np.setdiff1d(np.flatnonzero(tree.parent == tree.parent[i]), [i]) for i in range(n_nodes)]
    families = Families(tree)

    def naive(groups: list[np.ndarray], combine: object, without: float) -> list[list[float]]:
        return [[combine(row[group]) if len(group) else without for group in groups] for row in values]  # type: ignore[operator]

    assert families.child_sum(values).tolist() == naive(children, np.sum, 0)
    assert families.child_max(values).tolist() == naive(children, np.max, -1)
    assert families.sibling_max(values).tolist() == naive(siblings, np.max, -1)
    parents = [np.array([i]) if i != ROOT else np.array([], dtype=int) for i in tree.parent]
    assert families.of_parent(values, without=9).tolist() == naive(parents, np.max, 9)


@given(TREES)
def test_a_subtree_holds_the_nodes_whose_path_begins_with_its_own(tree: CategoryTree) -> None:
    expected = [[f"{path},".startswith(f"{top},") for path in tree.paths] for top in tree.paths]
    assert Families(tree).subtree.toarray().astype(bool).tolist() == expected


@given(TREES, st.data())
def test_relations_equal_naive_loops(tree: CategoryTree, data: st.DataObject) -> None:
    nodes = data.draw(st.lists(st.integers(0, len(tree.paths) - 1), min_size=1, max_size=8))
    codes = data.draw(st.lists(st.integers(0, 2), min_size=len(nodes), max_size=len(nodes)))
    found = relations(np.array(nodes), np.array(codes), tree)
    for i, code in enumerate(codes):
        mine = tree.paths[nodes[i]].split(",")
        others = [tree.paths[nodes[j]].split(",") for j in range(len(nodes)) if j != i and codes[j] == code]
        different = [other for other in others if other != mine]
        common = [len(_common(mine, other)) for other in others]
        assert found[i].tolist() == [
            len(others) + 1,
            sum(other == mine[: len(other)] for other in different),
            sum(mine == other[: len(mine)] for other in different),
            sum(other[:-1] == mine[:-1] for other in different),
            max(common, default=0),
        ]


def _common(one: list[str], other: list[str]) -> list[str]:
    end = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:end]


def test_standing_among_candidates_by_hand() -> None:
    values, codes = np.float32([[3], [1], [8], [2], [3]]), np.array([0, 0, 1, 0, 0])
    expected = [  # gap to the greatest, to the least, to the mean, rank
        [0, 2, 0.75, 1],
        [2, 0, -1.25, 4],
        [0, 0, 0, 1],
        [1, 1, -0.25, 3],
        [0, 2, 0.75, 1],
    ]
    np.testing.assert_allclose(standing_among(values, codes), expected, atol=1e-6)


def test_standing_is_the_same_bit_for_bit_in_any_order() -> None:
    rng = np.random.default_rng(0)
    values, codes = rng.random((300, 3), dtype=np.float32), rng.integers(40, size=300)
    order, found = np.argsort(codes, kind="stable"), standing_among(values, codes)
    np.testing.assert_array_equal(standing_among(values[order], codes[order]), found[order])


def test_a_target_outside_the_tree_counts_as_its_nearest_ancestor() -> None:
    tree = CategoryTree.of(["pets,dogs", "home,kitchen, dining & bar"])
    targets = pd.Series(["pets,dogs,new,newer", "home,kitchen, dining & bar", "home,new", "toys", "", "pets"])
    names = [tree.paths[i] if i != ROOT else None for i in nearest_nodes(targets, tree)]
    assert names == ["pets,dogs", "home,kitchen, dining & bar", "home", None, None, "pets"]


# Candidates


def pairs_of(*texts: tuple[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(texts, columns=["query", "target"], dtype="str")
    return frame.assign(language="en", query_en="")[PAIR]


def test_a_new_pair_stands_among_the_corpus_and_itself_only() -> None:
    corpus = Corpus.of([pairs_of(("q", "a"), ("q", "b"), ("r", "c"))])
    pairs = pairs_of(("q", "b"), ("q", "new"), ("q", "newer"), ("s", "a"))
    together = with_candidates(pairs, corpus)
    own = together.iloc[places_in(together, pairs)]
    sets = [sorted(together.loc[together["among"] == among, "target"]) for among in own["among"]]
    assert own["target"].tolist() == pairs["target"].tolist()
    assert sets == [["a", "b"], ["a", "b", "new"], ["a", "b", "newer"], ["a"]]


def test_candidates_stay_inside_query_and_language() -> None:
    pairs = pairs_of(("q", "a"), ("q", "b"))
    pairs["language"] = ["en", "es"]
    together = with_candidates(pairs, Corpus.of([pairs]))
    assert together["among"].nunique() == len(together) == 2


# Features


@pytest.mark.parametrize("space", ["raw", "centred"])
def test_features_of_a_pair_do_not_depend_on_the_batch(space: str, bert: Path, tmp_path: Path) -> None:
    corpus = Corpus.of([TRAIN, FRESH])
    embedder = Embedder(WeightsSection(name=str(bert)), EncoderSection(max_length=96), tmp_path, threads=1)
    whole = TreeFeatures(corpus, embedder, "english", space=space)
    arguments = (FRESH["language"].tolist(), FRESH["query"].tolist(), corpus.tree.places(FRESH["target"]).tolist())
    table = whole.table(*arguments)
    assert table.shape == (len(FRESH), len(FEATURES))
    assert np.isfinite(table).all()
    apart = TreeFeatures(corpus, embedder, "english", space=space)
    for i in range(0, len(FRESH), 7):
        np.testing.assert_array_equal(apart.table(*([column[i]] for column in arguments))[0], table[i])


def test_features_by_definition(bert: Path, tmp_path: Path) -> None:
    corpus = Corpus.of([TRAIN])
    embedder = Embedder(WeightsSection(name=str(bert)), EncoderSection(max_length=96), tmp_path, threads=1)
    features = TreeFeatures(corpus, embedder, "english", space="raw")
    tree, node = corpus.tree, corpus.tree.paths.index("pets,dogs")
    found = dict(zip(FEATURES, features.table(["en"], ["red dog"], [node])[0], strict=True))
    query = embedder.queries(["red dog"])[0]
    assert found["path_cosine"] == pytest.approx(embedder.targets(["pets,dogs"])[0] @ query, abs=1e-5)
    assert found["leaf_cosine"] == pytest.approx(embedder.targets(["dogs"])[0] @ query, abs=1e-5)
    similarity = np.mean([nodes @ query for nodes in features.nodes], axis=0)
    assert found["similarity"] == pytest.approx(similarity[node], abs=1e-5)
    assert found["z"] == pytest.approx((similarity[node] - similarity.mean()) / similarity.std(), abs=1e-2)
    assert np.expm1(found["log_rank"]) == pytest.approx((similarity > similarity[node]).sum(), abs=1e-4)
    mass = np.exp((similarity - similarity.max()) / 0.02)
    mass /= mass.sum()
    inside = [f"{path},".startswith("pets,dogs,") for path in tree.paths]
    assert found["mass_self"] == pytest.approx(np.log(mass[node] + 1e-6), abs=1e-2)
    assert found["mass_subtree"] == pytest.approx(np.log(mass[inside].sum() + 1e-6), abs=1e-2)
    assert found["depth"] == 2
    assert np.expm1(found["children"]) == pytest.approx(1)


# The base learner


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("space")
    return Workspace(folder / "cache", folder / "scratch", Corpus.of([TRAIN, FRESH]), seed=3, threads=1)


def fit(model: Path, space: Workspace, *overrides: str, train: pd.DataFrame = TRAIN) -> CategoryTreeLearner:
    settings = [f"weights.name={model}", "encoder.max_length=96", "head.rounds=60", *overrides]
    return CategoryTreeLearner(load_recipe("e5-tree", settings), space).fit(train, QC)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lightgbm", "mlp"])
def test_it_learns_a_label_that_the_query_tells(kind: str, bert: Path, space: Workspace) -> None:
    scores = fit(bert, space, f"head.kind={kind}", "head.epochs=30").predict(FRESH.drop(columns="label"), QC)
    assert_probabilities(scores, FRESH)
    assert roc_auc_score(FRESH["label"].astype(int), scores) > 0.75


@pytest.mark.parametrize("kind", ["lightgbm", "mlp"])
@pytest.mark.parametrize("candidates", ["true", "false"])
def test_a_row_scores_the_same_alone_in_any_order_and_after_loading(
    candidates: str, kind: str, bert: Path, space: Workspace, tmp_path: Path
) -> None:
    model = fit(bert, space, f"candidates={candidates}", f"head.kind={kind}")
    new = make_rows(15, seed=5, targets=["pets,dogs,new", "toys", "pets"])
    rows = pd.concat([FRESH[:25], odd_rows(), new], ignore_index=True).drop(columns="label")
    scores = model.predict(rows, QC)
    assert_probabilities(scores, rows)
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(model.predict(shuffled, QC), scores[shuffled.index], atol=1e-5)
    model.save(tmp_path)
    category_tree.shared_tree.cache_clear()
    bi_encoder.shared_embedder.cache_clear()
    again = load(tmp_path, space)
    np.testing.assert_allclose(one_by_one(again, rows, QC), scores, atol=1e-5)
    np.testing.assert_array_equal(again.predict(rows, QC), scores)
    assert again.predict(rows[:0], QC).shape == (0,)


def test_the_same_seed_gives_the_same_scores(bert: Path, space: Workspace, tmp_path: Path) -> None:
    fresh_space = Workspace(tmp_path / "cache", tmp_path, Corpus.of([FRESH, TRAIN]), seed=3, threads=1)
    one, other = (fit(bert, where).predict(FRESH, QC) for where in (space, fresh_space))
    np.testing.assert_array_equal(one, other)


def test_labels_of_the_corpus_do_not_count(bert: Path, space: Workspace, tmp_path: Path) -> None:
    flipped = [frame.assign(label=1 - frame["label"]) for frame in (TRAIN, FRESH)]
    other = Workspace(tmp_path / "cache", tmp_path, Corpus.of(flipped), seed=3, threads=1)
    np.testing.assert_array_equal(fit(bert, other).predict(FRESH, QC), fit(bert, space).predict(FRESH, QC))


def test_it_serves_category_targets_only() -> None:
    recipe = load_recipe("e5-tree")
    assert applies(recipe, QC)
    assert not applies(recipe, QI)
