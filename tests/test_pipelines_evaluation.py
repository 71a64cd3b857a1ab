"""Evaluation while a network trains: on rows of their own, a few times per epoch, and the best weights score."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tiny import make_rows

from competition.cleaning import normalise_query
from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.evaluation import carve, evaluation_due
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe

ROWS = make_rows(200, seed=4)


@given(st.integers(1, 300), st.integers(0, 9))
@settings(deadline=None)
def test_the_slice_shares_no_query_with_what_is_trained(n_rows: int, seed: int) -> None:
    trained, judged = carve(ROWS, n_rows, seed=seed)
    assert sorted([*trained["id"], *judged["id"]]) == ROWS["id"].tolist()
    assert len(judged) <= min(n_rows, len(ROWS) // 5)
    assert not {*map(normalise_query, trained["query"])} & {*map(normalise_query, judged["query"])}


def test_the_slice_follows_the_groups_of_the_fold_plan() -> None:
    rows = ROWS.assign(group=[f"g{i % 17}" for i in range(len(ROWS))])
    trained, judged = carve(rows, 30, seed=1)
    assert 0 < len(judged) <= 30
    assert not set(trained["group"]) & set(judged["group"])


@given(st.integers(1, 10), st.integers(10, 500), st.integers(1, 4))
def test_evaluations_are_as_many_as_asked_for_and_end_with_the_epoch(n: int, steps: int, epochs: int) -> None:
    due = [step for step in range(1, epochs * steps + 1) if evaluation_due(n, steps, step)]
    assert len(due) == n * epochs
    assert due[-1] == epochs * steps


def fitted(model: Path, folder: Path, *overrides: str) -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    settings = [f"weights.name={model}", "training.epochs=3", "training.batch_size=8", "training.learning_rate=3e-2"]
    return CrossEncoder(load_recipe("e5-ce", [*settings, *overrides]), space).fit(ROWS, QI)  # type: ignore[arg-type]


def test_the_weights_of_the_best_evaluation_score_in_the_end(bert: Path, tmp_path: Path) -> None:
    model = fitted(bert, tmp_path, "training.evaluate=2", "training.evaluate_rows=40")
    found = model.details()["evaluations"]
    assert len(found) == 6
    best = max(found, key=lambda one: one["auc"])
    assert best["auc"] > min(one["auc"] for one in found), "a learning rate at which evaluations differ"
    _, judged = carve(ROWS, 40, seed=3)
    scores = model.predict(judged, QI)
    assert roc_auc_score(judged["label"].astype(int), scores) == pytest.approx(best["auc"])


def test_evaluating_changes_no_training(bert: Path, tmp_path: Path) -> None:
    trained, _ = carve(ROWS, 40, seed=3)
    space = Workspace(tmp_path / "cache", tmp_path / "scratch", Corpus.of([ROWS]), 3, threads=1)
    settings = [f"weights.name={bert}", "training.epochs=1", "training.batch_size=8", "training.trim_vocabulary=false"]
    plain = CrossEncoder(load_recipe("e5-ce", settings), space).fit(trained, QI)  # type: ignore[arg-type]
    judged = fitted(
        bert, tmp_path / "judged", "training.epochs=1", "training.learning_rate=5e-5", "training.evaluate=1",
        "training.evaluate_rows=40", "training.trim_vocabulary=false",
    )  # fmt: skip
    np.testing.assert_allclose(judged.predict(ROWS, QI), plain.predict(ROWS, QI), atol=1e-6)


def test_a_slice_without_both_labels_is_refused(bert: Path, tmp_path: Path) -> None:
    rows = ROWS.assign(label=1)
    space = Workspace(tmp_path, tmp_path, Corpus.of([rows]), 3, threads=1)
    settings = [f"weights.name={bert}", "training.evaluate=1"]
    with pytest.raises(CompetitionError, match="do not have both labels"):
        CrossEncoder(load_recipe("e5-ce", settings), space).fit(rows, QI)  # type: ignore[arg-type]


def test_evaluating_and_averaging_are_not_combined() -> None:
    with pytest.raises(CompetitionError, match="use one of them"):
        load_recipe("e5-ce", ["training.evaluate=1", "training.ema=0.9"])
