"""Features of a corpus's pairs: the same bit for bit from the table and computed, in any pieces, made once."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import PATHS, make_rows

from competition.tasks import QC, QI, Task
from pipelines.backbones import category_tree, lexical
from pipelines.backbones.category_tree import CategoryTreeLearner
from pipelines.backbones.feature_table import feature_table, whole_queries
from pipelines.backbones.lexical import Lexical
from pipelines.backbones.protocol import PAIR, Corpus, Workspace
from pipelines.config import load_recipe

TINY = ["head.rounds=20", "ngrams.max_features=5000"]
ROWS = make_rows(150, seed=1)


def both(name: str, tmp_path: Path, *settings: str) -> tuple[Lexical, Lexical]:
    """A base learner without a table, and the same with one."""
    space = Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([ROWS]), 3, threads=1)
    recipe = load_recipe(name, [*TINY, *settings])
    return Lexical(recipe, space), Lexical(recipe, replace(space, tables=tmp_path / "tables"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lexical", "lexical-linear"])
@pytest.mark.parametrize("task", [QC, QI], ids=lambda task: task.name)
@pytest.mark.parametrize("candidates", ["true", "false"])
def test_a_table_changes_no_score(
    name: str, task: Task, candidates: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of a few queries, for rows of the corpus and for others."""
    monkeypatch.setattr(lexical, "whole_queries", lambda pairs: whole_queries(pairs, size=7))
    plain, tabled = (model.fit(ROWS, task) for model in both(name, tmp_path, f"candidates={candidates}"))
    rows = pd.concat([ROWS, make_rows(30, seed=2)], ignore_index=True).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(tabled.predict(rows, task), plain.predict(rows, task))
    assert len(list((tmp_path / "tables").glob("*.npy"))) == 1


@pytest.mark.parametrize("head", ["lightgbm", "mlp"])
def test_a_table_changes_no_score_of_a_tree_learner(
    head: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(category_tree, "whole_queries", lambda pairs: whole_queries(pairs, size=7))
    train = make_rows(200, seed=1, targets=PATHS)
    space = Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([train]), 3, threads=1)
    settings = [f"weights.name={bert}", "encoder.max_length=96", "head.rounds=20", "head.epochs=3", f"head.kind={head}"]
    recipe, rows = load_recipe("e5-tree", settings), pd.concat([train, make_rows(30, seed=2, targets=PATHS)])
    plain, tabled = (
        CategoryTreeLearner(recipe, each).fit(train, QC)  # type: ignore[arg-type]
        for each in (space, replace(space, tables=tmp_path / "tables"))
    )
    np.testing.assert_array_equal(tabled.predict(rows, QC), plain.predict(rows, QC))
    assert len(list((tmp_path / "tables").glob("*.npy"))) == 1


def test_heads_share_a_table_and_other_features_have_their_own(tmp_path: Path) -> None:
    for name in ("lexical", "lexical-linear"):
        both(name, tmp_path)[1].fit(ROWS, QI)
    assert len(list((tmp_path / "tables").glob("*.npy"))) == 1
    both("lexical", tmp_path, "text.view=original")[1].fit(ROWS, QI)
    assert len(list((tmp_path / "tables").glob("*.npy"))) == 2


def test_pieces_hold_whole_queries_in_order() -> None:
    pairs = Corpus.of([ROWS]).pairs
    for size in (1, 10, 10_000):
        pieces = list(whole_queries(pairs, size=size))
        pd.testing.assert_frame_equal(pd.concat(pieces)[PAIR], pairs)
        queries = [set(zip(piece["language"], piece["query"], strict=True)) for piece in pieces]
        assert sum(map(len, queries)) == len(set().union(*queries))


def test_every_pair_of_the_corpus_is_found_and_no_other() -> None:
    corpus, fresh = Corpus.of([ROWS]), ROWS.assign(query=ROWS["query"] + " never seen")
    pd.testing.assert_frame_equal(
        corpus.pairs.loc[corpus.places(ROWS)].reset_index(drop=True), ROWS[PAIR].reset_index(drop=True)
    )
    assert (corpus.places(fresh) == -1).all()


def test_a_corpus_of_other_texts_has_another_digest() -> None:
    other = ROWS.assign(query_en=ROWS["query_en"].where(ROWS.index != 3, "another translation"))
    digests = {Corpus.of([rows]).digest for rows in (ROWS, ROWS.sample(frac=1, random_state=0), other)}
    assert len(digests) == 2


def test_a_table_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[np.ndarray]:
        yield np.ones((2, 3), np.float32)
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "tables" / "features.npy"
    with pytest.raises(OSError, match="No space left"):
        feature_table(path, 4, pieces)
    assert not [file for file in path.parent.iterdir() if file.suffix != ".lock"]
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    made, read = feature_table(path, 4, lambda: iter([whole[:3], whole[3:]])), feature_table(path, 4, pieces)
    np.testing.assert_array_equal(made, whole)
    np.testing.assert_array_equal(read, whole)


@pytest.mark.parametrize("n_bytes", [0, 20, -4])
def test_a_damaged_table_is_made_again(n_bytes: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "features.npy", np.ones((4, 3), np.float32)
    feature_table(path, 4, lambda: iter([whole]))
    path.write_bytes(path.read_bytes()[:n_bytes])
    np.testing.assert_array_equal(feature_table(path, 4, lambda: iter([whole])), whole)


def test_a_changed_number_in_a_table_is_noticed(tmp_path: Path) -> None:
    path, whole = tmp_path / "features.npy", np.ones((4, 3), np.float32)
    feature_table(path, 4, lambda: iter([whole]))
    changed = np.load(path)
    changed[2, 1] = 7
    np.save(path, changed)
    np.testing.assert_array_equal(feature_table(path, 4, lambda: iter([whole])), whole)
