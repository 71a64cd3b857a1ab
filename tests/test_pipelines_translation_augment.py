"""Rows made by translation: their parents' labels and folds, nothing that stands in train, languages that lack."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from test_pipelines_translation_work import work, write_glossary
from tiny import make_rows

from competition.cleaning import normalise_query
from competition.errors import CompetitionError
from competition.sample import write_sample
from pipelines.cli import main
from pipelines.prepare import prepare, read_translations, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.translation.augment import (
    COLUMNS,
    Augmenting,
    augment_run,
    back_translated_rows,
    missing_languages,
    novel,
    translated_rows,
)


def reverse(pairs: pd.DataFrame, target: str) -> pd.Series:
    """Another text for every text but those that say "dog", whatever the language."""
    made = target + " " + pairs["text"].str[::-1]
    return made.where(~pairs["text"].str.contains("dog"), "")


def train_rows() -> pd.DataFrame:
    return make_rows(200, seed=3)


def test_new_rows_say_what_their_parents_say() -> None:
    train = train_rows()
    made = translated_rows(train, reverse, "de", rows=10**6, seed=0)
    parents = train.set_index("id").loc[made["parent"]]
    assert set(made["language"]) == {"de"}
    assert (made["label"].to_numpy() == parents["label"].to_numpy()).all()
    assert (made["target"].to_numpy() == parents["target"].to_numpy()).all()
    english = parents["query"].where(parents["language"] == "en", parents["query_en"])
    assert made["query_en"].tolist() == english.tolist()
    assert made["query"].tolist() == [f"de {text[::-1]}" for text in english]
    assert not made["query_en"].str.contains("dog").any()
    assert not made.duplicated(["query", "target"]).any()
    assert len(set(parents["language"])) > 1, "translations of other languages count as English too"


def test_about_as_many_rows_as_asked_for_whole_queries() -> None:
    train = train_rows()
    few = translated_rows(train, reverse, "de", rows=30, seed=0)
    many = translated_rows(train, reverse, "de", rows=10**6, seed=0)
    assert 0 < len(few) <= 30 < len(many)
    whole = many[many["query"].isin(few["query"])]
    assert len(whole) == len(few)
    assert set(translated_rows(train, reverse, "de", rows=30, seed=1)["query"]) != set(few["query"])


def test_the_order_of_rows_does_not_change_which_texts_are_made() -> None:
    train = train_rows()
    one = translated_rows(train, reverse, "de", rows=10**6, seed=0)
    other = translated_rows(train.iloc[::-1].reset_index(drop=True), reverse, "de", rows=10**6, seed=0)
    assert set(zip(one["query"], one["target"], strict=True)) == set(zip(other["query"], other["target"], strict=True))


def test_queries_that_train_has_are_left_out() -> None:
    train = train_rows()
    made = train.assign(parent=train["id"], way="copy", query=train["query"].str.upper() + " ")
    assert novel(made, train).empty
    fresh = made.assign(query="brand new")
    assert len(novel(fresh, train)) == len(fresh.drop_duplicates(["language", "target"]))


def test_back_translation_keeps_the_language() -> None:
    train = train_rows()
    made = back_translated_rows(train, lambda pairs, target: pairs["text"] + f" {target}", "fr", rows=10**6, seed=0)
    parents = train.set_index("id").loc[made["parent"]]
    assert made["language"].tolist() == parents["language"].tolist()
    assert made["query"].tolist() == (parents["query"] + " fr " + parents["language"]).tolist()


def test_languages_that_train_lacks() -> None:
    frames = {"train": ["en"], "dev": ["en", "vn"], "test": ["de", "vn"]}
    assert missing_languages({k: pd.DataFrame({"language": v}) for k, v in frames.items()}) == ["de", "vn"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    write_sample(tmp_path / "data", n_train=300, n_dev=60, n_test=60)
    folder = RunFolder(tmp_path / "run")
    data = tmp_path / "data"
    prepare(
        folder, RunSettings(data=str(data), tasks=("QC", "QI"), folds=3, translations=str(data / "translations.csv"))
    )
    split(folder)
    return folder


@pytest.mark.parametrize("asked", [Augmenting(), Augmenting(into=("de",)), Augmenting(back=("de",))])
def test_new_rows_of_a_run_stay_in_their_parents_fold(run: RunFolder, tmp_path: Path, asked: Augmenting) -> None:
    table = augment_run(run, "QC", work(tmp_path / "cache"), asked, name="mine")
    made, train = pd.read_parquet(run.augmented("QC", "mine")), run.rows("QC")["train"]
    assert tuple(made.columns) == COLUMNS
    assert table["rows"].sum() == len(made) > 0
    folds = pd.Series(run.folds("QC").align(train).to_numpy(), index=train["id"])
    assert (made["fold"].to_numpy() == folds.loc[made["parent"]].to_numpy()).all()
    assert made["id"].is_unique
    assert not set(made["id"]) & set(train["id"])
    assert not set(made["query"].map(normalise_query)) & set(train["query"].map(normalise_query))
    languages = set(made["language"])
    if asked.back:
        assert languages <= set(train["language"])
    else:
        assert languages == set(asked.into or missing_languages(run.rows("QC")))
    # Whatever a model that must not see fold 0 gets, no held-out query is in it, as written or by its parent.
    given, held_out = made[made["fold"] != 0], set(train["id"][folds.to_numpy() == 0])
    assert not set(given["parent"]) & held_out


def test_a_run_without_new_languages_is_told(run: RunFolder, tmp_path: Path) -> None:
    for name in ("dev", "test"):
        rows = pd.read_parquet(run.rows_file("QC", name))
        rows[rows["language"] == "en"].to_parquet(run.rows_file("QC", name))
    with pytest.raises(CompetitionError, match="--into"):
        augment_run(run, "QC", work(tmp_path / "cache"), Augmenting())


def test_the_commands_print_what_they_made(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path / "cache"))
    glossary = write_glossary(tmp_path / "glossary.tsv")
    options = ["--recipe", "dictionary", "--glossary", str(glossary), "--format", "csv"]
    made = CliRunner().invoke(main, ["augment", "--run", str(run.root), "--task", "QC", "--into", "es", *options])
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[0] == "way,language,rows,queries,positive_rate"
    assert run.augmented("QC", "dictionary").is_file()
    both = CliRunner().invoke(main, ["augment", "--run", str(run.root), "--task", "QC", "--into", "es", "--back", "es"])
    assert both.exit_code == 2
    out = tmp_path / "out.csv"
    asked = CliRunner().invoke(main, ["translate", "--run", str(run.root), "--out", str(out), *options])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout.splitlines()[0] == "language,queries,unchanged,without"
    assert not read_translations(out).empty
    assert CliRunner().invoke(main, ["translate", "--data", str(tmp_path / "data")]).exit_code == 2
