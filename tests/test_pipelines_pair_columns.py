"""New pairs under the contest's own names: languages, targets of several columns, encodings, second files; doubles."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from competition.contest import load_contest
from competition.errors import CompetitionError
from competition.rows import find_files, read_rows
from competition.sample_contests import write_contest_sample
from competition.tasks import QC, QI
from pipelines.cli import main
from pipelines.new_pairs import given_pairs
from pipelines.pair_files import Source, read_pairs

ESCI, HD, MATCH = (load_contest(name).tasks[0] for name in ("amazon-esci", "home-depot", "wdc-products"))
SHOE = {"query": "shoes", "target": "red shoes"}


@pytest.mark.parametrize(
    ("pair", "language"),
    [
        ({"product_locale": "jp"}, "ja"),
        ({"product_locale": "us"}, "en"),
        ({"language": "ja"}, "ja"),
        ({"product_locale": None}, None),
    ],
)
def test_languages_become_what_they_become_in_the_contest(pair: dict[str, Any], language: str | None) -> None:
    assert given_pairs([{**SHOE, **pair}], ESCI)["language"].tolist() == [language]


def test_a_language_that_the_contest_does_not_know_is_refused() -> None:
    with pytest.raises(CompetitionError) as caught:
        given_pairs([SHOE, {**SHOE, "product_locale": "uk"}], ESCI)
    assert [str(fault) for fault in caught.value.faults] == [
        "pair:2: product_locale is the text 'uk'; expected one of us, es, jp"
    ]


def test_where_all_is_in_one_language_none_is_guessed() -> None:
    assert given_pairs([SHOE], HD)["language"].tolist() == ["en"]


def test_a_target_of_several_columns_is_joined() -> None:
    pair = {"query": "shoes", "product_title": "shoes", "product_brand": None, "product_color": "red"}
    assert given_pairs([pair], ESCI)["target"].tolist() == ["shoes red"]


def test_a_category_path_gets_our_commas() -> None:
    task = replace(QC, layout=replace(QC.layout, category_separator=">"))
    pairs = [{"query": "pan", "category_path": "Home > Pots,Pans"}, {"query": "pan", "target": "Home,Pots, Pans"}]
    assert given_pairs(pairs, task)["target"].tolist() == ["Home,Pots, Pans"] * 2


def test_a_name_that_the_contest_means_otherwise_is_not_ours() -> None:
    task = replace(HD, label="target")
    pair = {"search_term": "hose", "product_title": "garden hose", "target": 3}
    assert given_pairs([pair], task)["target"].tolist() == ["garden hose"]


@pytest.mark.parametrize("contest", ["amazon-esci", "home-depot", "wdc-products"])
def test_a_contests_own_file_is_read_as_predict_reads_it(contest: str, tmp_path: Path) -> None:
    write_contest_sample(contest, tmp_path, n_train=60, n_test=40)
    task = load_contest(contest).tasks[0]
    path = find_files(tmp_path, [task])[task.name, "test"]
    expected, found = read_rows(path, task, labelled=False), read_pairs(path, task)
    Source.of(path).look(task)
    assert len(found) > 30
    for column in ("id", "query", "target", "language"):
        assert found[column].astype(str).tolist() == expected[column].fillna("").astype(str).tolist()


def test_a_second_file_that_is_missing_is_named(tmp_path: Path) -> None:
    write_contest_sample("home-depot", tmp_path, n_train=60, n_test=40)
    (tmp_path / "product_descriptions.csv").unlink()
    with pytest.raises(CompetitionError, match=r"product_descriptions\.csv, which is joined"):
        read_pairs(tmp_path / "test.csv", HD)


def test_delimiter_and_encoding_are_the_contests_for_its_columns_alone(tmp_path: Path) -> None:
    task = replace(QI, layout=replace(QI.layout, delimiter=";", encoding="cp1252"))
    (tmp_path / "theirs.csv").write_bytes("origin_query;item_title\ncafé;10 €\n".encode("cp1252"))
    (tmp_path / "ours.csv").write_text("query,target\ncafé,10 €\n", encoding="utf-8")
    for name in ("theirs.csv", "ours.csv"):
        found = read_pairs(tmp_path / name, task)
        assert found[["query", "target"]].to_numpy().tolist() == [["café", "10 €"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.tsv", 'query\ttarget\na, b\t"c"\n'), ("a.ndjson", '{"query": "a, b", "target": "c"}\n')],
)
def test_every_suffix_that_a_run_reads_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_pairs(tmp_path / name, QI)[["query", "target"]].to_numpy().tolist() == [["a, b", "c"]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_compressed_file_is_called_so(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"query,target\na,b\n"))
    with pytest.raises(CompetitionError, match=r"compressed \(gzip\)"):
        read_pairs(tmp_path / name, QI)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("query,target,target", "column 'target' stands 2 times"),
        ("query,origin_query,target", "query and origin_query"),
        ("query,item_title,target", "target and item_title"),
    ],
)
def test_a_column_that_is_given_twice_is_refused(header: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\na,b,c\n", encoding="utf-8")
    frame = pd.DataFrame([["a", "b", "c"]], columns=header.split(","))
    for read in (lambda: read_pairs(tmp_path / "a.csv", QI), lambda: given_pairs(frame, QI)):
        with pytest.raises(CompetitionError) as caught:
            read()
        assert words in str(caught.value)


def test_a_record_that_gives_a_column_twice_is_refused() -> None:
    with pytest.raises(CompetitionError, match="query stands beside origin_query"):
        given_pairs([{**SHOE, "origin_query": "boots"}], QI)


@pytest.mark.parametrize("pairs", [[1], None, 3, SHOE, ["ab"]])
def test_what_are_no_pairs_is_told(pairs: Any) -> None:
    with pytest.raises(CompetitionError, match=r"a list of records|a record"):
        given_pairs(pairs, QI)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.csv"], "No such file"),
        (["."], "directory"),
        (["odd.csv"], "no column query or origin_query"),
        (["pairs.csv", "--out", "folder"], "it is a folder"),
        (["pairs.csv", "--out", "pairs.csv/out"], "pairs.csv is no folder"),
        (["pairs.xlsx"], "--input-format"),
    ],
)
def test_files_are_looked_at_before_models_are(
    words: list[str], told: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "odd.csv").write_text("question,target\na,b\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("query,target\na,b\n", encoding="utf-8")
    none = ["--run", str(finished_run), "--task", "QI", "--ensemble", "there is no such model"]
    done = CliRunner().invoke(main, ["--quiet", "score", *words, *none])
    assert done.exit_code == 3
    assert told in " ".join(done.output.split())
    assert "What to do" in done.output
