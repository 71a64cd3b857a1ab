"""Rows, translations and folds reach the run folder once, whole, and unchanged."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from competition.errors import CompetitionError, MismatchError
from competition.languages import UNKNOWN
from competition.sample import write_sample
from competition.tasks import QI
from pipelines.audit import adversarial_tables, fold_tables
from pipelines.prepare import limit_rows, plan_kind, prepare, read_translations, split
from pipelines.run_folder import RunFolder, RunSettings
from submissions.build import raw_fields


def write_data(folder: Path, *, n_train: int = 60) -> Path:
    folder.mkdir(exist_ok=True)
    for name, n_rows in (("train", n_train), ("dev", 6), ("test", 5)):
        lines = [
            {
                "id": i,
                "language": ["en", "es"][i % 2],
                "origin_query": f"  Query  {i // 3} ",
                "item_title": None if i == 4 else f"Title {i}",
                **({"label": str(i % 3 % 2)} if name != "test" else {}),
            }
            for i in range(n_rows)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}_QI.txt").write_text(text, encoding="utf-8")
    return folder


def settings(data: Path, **changes: object) -> RunSettings:
    return RunSettings.model_validate({"data": str(data), "tasks": ("QC", "QI"), "folds": 3, **changes})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "translations.csv"
    path.write_text("language,origin_query,translated_query\nes,QUERY 1,one\nes,query 99,unused\n", "utf-8-sig")
    return path


def test_rows_are_cleaned_and_keep_the_files_own_texts(tmp_path: Path, table: Path) -> None:
    run = RunFolder(tmp_path / "run")
    prepare(run, settings(write_data(tmp_path / "data"), translations=str(table)))
    assert run.settings().tasks == ("QI",)
    rows = run.rows("QI")
    assert list(rows) == ["train", "dev", "test"]
    test = rows["test"]
    assert test["query"].tolist() == ["query 0"] * 3 + ["query 1"] * 2
    assert test["raw_query"].tolist()[3] == "  Query  1 "
    assert test["target"].tolist()[4] == ""
    assert pd.isna(test["raw_target"].tolist()[4])
    assert test["query_en"].tolist() == ["", "", "", "one", ""]


def test_folds_are_dealt_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    prepare(run, settings(write_data(tmp_path / "data")))
    first = split(run)["QI"]
    times = [path.stat().st_mtime_ns for path in sorted(run.folds_folder("QI").iterdir())]
    again = split(run)["QI"]
    assert again.digest == first.digest
    assert [path.stat().st_mtime_ns for path in sorted(run.folds_folder("QI").iterdir())] == times


def test_changed_input_files_are_refused(tmp_path: Path) -> None:
    run, data = RunFolder(tmp_path / "run"), write_data(tmp_path / "data")
    prepare(run, settings(data))
    write_data(data, n_train=63)
    with pytest.raises(MismatchError, match="QI/train"):
        prepare(run, settings(data))


def test_other_settings_are_refused_but_more_recipes_are_not(tmp_path: Path) -> None:
    run, data = RunFolder(tmp_path / "run"), write_data(tmp_path / "data")
    prepare(run, settings(data))
    with pytest.raises(MismatchError, match="seed"):
        prepare(run, settings(data, seed=1))
    prepare(run, settings(data, recipes=("lexical",)))


def test_limit_keeps_whole_queries_in_order() -> None:
    rows = pd.DataFrame({"query": [f"q{i // 3}" for i in range(30)], "id": range(30)})
    limited = limit_rows(rows, 10, seed=0)
    assert len(limited) == 9
    assert limited.groupby("query").size().eq(3).all()
    assert limited["id"].is_monotonic_increasing
    assert limit_rows(rows, 10, seed=1)["id"].tolist() != limited["id"].tolist()


def test_dev_and_test_are_never_limited(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    prepare(run, settings(write_data(tmp_path / "data"), limit=30))
    rows = run.rows("QI")
    assert (len(rows["train"]), len(rows["dev"]), len(rows["test"])) == (30, 6, 5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("language,query\nes,a\n", "origin_query"),
        ("language,origin_query,translated_query\nes,a,b\nes,a\n", ":3"),
        ("language,origin_query,translated_query\nes,a,b,c\n", ":2"),
    ],
)
def test_faulty_translations_are_named_by_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CompetitionError, match=named):
        read_translations(path)


@pytest.mark.parametrize(
    "plan", ["QC=purged", "QC=language-holdout", "QC=family-holdout", "QC=test-matched,QI=test-matched", "purged"]
)
def test_every_plan_can_be_split_by_and_read_back(tmp_path: Path, plan: str) -> None:
    write_sample(tmp_path / "data", n_train=600, n_dev=60, n_test=60)
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(tmp_path / "data"), tasks=("QC", "QI"), folds=3, plan=plan, depth=1))
    made = split(run)
    kind = made["QC"].plan.kind
    assert kind in plan
    assert made["QI"].plan.kind == ("test-matched" if kind == "test-matched" else "query-group")
    assert split(run)["QC"].digest == made["QC"].digest == run.folds("QC").digest
    tables = fold_tables(run)
    beside = next(table for title, table in tables.items() if title.startswith("QC: what held-out rows share"))
    assert list(beside) == ["key", "held_out", "dev", "test"]
    assert ("QC: folds matched to test" in tables) == (kind == "test-matched")


def test_what_tells_test_from_held_out_rows_is_a_table_per_task(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", n_train=400, n_dev=60, n_test=200, tasks=("QC",))
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(tmp_path / "data"), tasks=("QC",), folds=3))
    split(run)
    tables = adversarial_tables(run)
    assert all(title.startswith("QC: test against held-out rows") for title in tables)
    found = tables["QC: test against held-out rows, AUC"].iloc[0]
    assert found["low"] <= found["estimate"] <= found["high"]
    assert found["estimate"] > 0.6  # test has languages that train does not know


def test_a_plan_may_be_named_per_task(tmp_path: Path) -> None:
    for plan, kind in (("query-group", "query-group"), ("QI=query-group", "query-group"), ("auto", "query-group")):
        assert plan_kind(settings(tmp_path, plan=plan), QI, {}) == kind


def test_queries_that_say_english_and_are_not_get_a_language_of_their_own(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    queries = pd.read_json(data / "train_QI.txt", lines=True)
    english = queries.loc[queries["language"] == "en", "origin_query"].drop_duplicates()
    foreign = english.iloc[0]
    lines = [{"language": "en", "origin_query": query, "translated_query": query} for query in english]
    lines[0]["translated_query"] = "something else"
    pd.DataFrame(lines).to_csv(tmp_path / "english.csv", index=False)
    run = RunFolder(tmp_path / "run")
    prepare(run, settings(data, translations=str(tmp_path / "english.csv"), relabel_unknown=True))
    rows = run.rows("QI")["train"]
    unknown = rows["language"] == UNKNOWN
    assert set(rows.loc[unknown, "raw_query"]) == {foreign}
    assert (rows["language"] == "en").any()
    assert set(rows.loc[unknown, "raw_language"]) == {"en"}
    assert (rows["raw_language"][~unknown] == rows["language"][~unknown]).all()
    assert {language for language, *_ in raw_fields(rows)} == set(queries["language"])


def test_without_translations_nothing_can_be_told_to_be_foreign(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="relstack translate --english"):
        prepare(RunFolder(tmp_path / "run"), settings(write_data(tmp_path / "data"), relabel_unknown=True))


@pytest.mark.parametrize(
    ("plan", "fault"),
    [("nope", "'nope'"), ("QI=nope", "'nope'"), ("QX=purged", "QX: has no rows"), ("column-group", "column")],
)
def test_a_plan_that_cannot_be_is_refused_before_a_run_is_made(tmp_path: Path, plan: str, fault: str) -> None:
    run, data = RunFolder(tmp_path / "run"), write_data(tmp_path / "data")
    with pytest.raises(CompetitionError, match=fault):
        prepare(run, settings(data, plan=plan))
    prepare(run, settings(data))
    assert list(split(run)) == ["QI"]


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "a" * 101])
def test_names_of_artefacts_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path)
    for folder in (run.submission, run.card, *(partial(f, "QI") for f in (run.student, run.pseudo, run.ensemble))):
        with pytest.raises(CompetitionError, match="this name cannot be"):
            folder(name)
    assert run.submission("second-try.1") == tmp_path / "submissions" / "second-try.1"
