"""relstack check: on a broken competition all that was planted is named at its place, and nothing else is."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from broken import FAULTS, ODDITIES, Row, write_broken, write_rows
from click.testing import CliRunner

from competition.sample import write_sample
from competition.tasks import QC, SPLITS
from competition.verdicts import LEVELS, Audit, Audited, Subject, Verdict
from pipelines import check as checking
from pipelines.check import AUDITS, Page, check
from pipelines.cli import main
from pipelines.prepare import read_translations

CUP = Path(__file__).parents[2] / "shared" / "data" / "cup"
SIZES = {"train": 460, "dev": 60, "test": 60}


def rows_of(path: Path, n_rows: int, first_id: int) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(n_rows), strict=False)]
    return [row | {"id": first_id + place} for place, row in enumerate(rows)]


@pytest.fixture(scope="module", params=["sample", "cup"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """Rows of QC without any fault, ids different in all splits."""
    folder = CUP
    if request.param == "sample":
        folder = tmp_path_factory.mktemp("sample")
        write_sample(folder, n_train=460, n_dev=60, n_test=60, seed=2, tasks=("QC",), flip_rate=0)
    elif not CUP.is_dir():
        pytest.skip("the data set cup is not beside this checkout")
    starts = dict(zip(SPLITS, (1, 10_001, 20_001), strict=True))
    return {split: rows_of(folder / f"{split}_QC.txt", SIZES[split], starts[split]) for split in SPLITS}


def claims(page: Page) -> dict[str, list[str]]:
    """Place -> all that is said about it: faults, oddities, conflicts, repeats, what stands in train too."""
    said: dict[str, list[str]] = {}
    for fault in page.faults.itertuples():
        said.setdefault(fault.where, []).append(fault.found)
    for title, table in page.tables.items():
        point = title.split(": ", 1)[1]
        for line in table[table["where"] != ""].to_dict("records") if "where" in table else []:
            what = line.get("kind") or (f"{point}: {line['key']}" if "key" in line else point)
            if "key" not in line or line["key"] in ("id", "pair"):
                for place in line["where"].removesuffix(", ...").split(", "):
                    said.setdefault(place.split(" = ")[0], []).append(what)
    return said


def levels(page: Page) -> dict[str, str]:
    return dict(zip(page.verdicts["point"], page.verdicts["verdict"], strict=True))


def test_on_a_sound_copy_nothing_is_claimed(sound: dict[str, list[Row]], tmp_path: Path) -> None:
    for split, rows in sound.items():
        write_rows(tmp_path / f"{split}_QC.txt", rows)
    page = check(tmp_path, ["QC", "QI"])
    assert claims(page) == {}
    assert not page.has_faults
    fine = ("faults", "lines and fields", "rows", "texts", "characters", "category paths", "language codes")
    assert {levels(page)[point] for point in (*fine, "repeated pairs", "conflicting labels")} == {"ok"}


def test_on_a_broken_copy_every_plant_is_named_at_its_line_and_nothing_else(
    sound: dict[str, list[Row]], tmp_path: Path
) -> None:
    planted = write_broken(tmp_path / "data", sound)
    page = check(tmp_path / "data", ["QC", "QI"])
    said = claims(page)
    assert len(FAULTS) + len(ODDITIES) >= 70
    assert sorted(said) == sorted(planted)
    wrong = {place: (says, said[place]) for place, says in planted.items() if not said[place][0].startswith(says)}
    assert wrong == {}
    assert {place: found for place, found in said.items() if len(found) > 1} == {}
    assert len(page.faults) == len(FAULTS) + 1
    assert page.has_faults


def test_the_page_names_every_fault_and_ends_with_code_3(sound: dict[str, list[Row]], tmp_path: Path) -> None:
    planted = write_broken(tmp_path / "data", sound)
    words = ["--quiet", "check", "--data", str(tmp_path / "data"), "--tasks", "QC", "--details"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 3, done.output
    assert f"faults: {len(FAULTS) + 1}" in done.output
    unbroken = done.output.replace("\n", " ")
    assert [place for place in planted if place not in unbroken] == []
    as_json = json.loads(CliRunner().invoke(main, [*words[:-1], "--format", "json"]).stdout)
    assert len(as_json["faults"]) == len(FAULTS) + 1
    assert {line["verdict"] for line in as_json["verdicts"]} <= set(LEVELS)
    as_csv = CliRunner().invoke(main, [*words[:-1], "--format", "csv"])
    assert as_csv.exit_code == 3
    assert as_csv.stdout.startswith("# verdicts\ntask,point,verdict,found,advice\n")


# Whole files


def table_of(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def as_csv(rows: list[Row], **options: Any) -> bytes:
    return table_of(rows).to_csv(index=False, **options).encode()


def as_parquet(rows: list[Row], folder: Path, *, drop: str = "") -> bytes:
    table_of(rows).drop(columns=drop or []).to_parquet(folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def as_json_lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_zip(rows: list[Row], folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "made.zip", "w") as archive:
        archive.writestr("train_QC.txt", as_json_lines(rows))
    return (folder / "made.zip").read_bytes()


WHOLE: dict[str, tuple[str, Callable[[list[Row], Path], bytes], str, str]] = {
    "gzip named txt": ("txt", lambda rows, _: gzip.compress(as_json_lines(rows)), "", "the file is compressed (gzip)"),
    "zip named csv": ("csv", as_zip, "", "the file is a zip archive"),
    "Parquet named jsonl": ("jsonl", lambda rows, folder: as_parquet(rows, folder), "", "the file is a Parquet file"),
    "UTF-16": ("txt", lambda rows, _: as_json_lines(rows).decode().encode("utf-16"), "", "the file is UTF-16"),
    "empty": ("txt", lambda rows, _: b"", "", "the file has no rows"),
    "blank lines only": ("txt", lambda rows, _: b"\n\n\n", "", "the file has no rows"),
    "JSON array": ("txt", lambda rows, _: json.dumps(rows).encode(), "", "the file is a JSON array"),
    "pretty JSON": ("txt", lambda rows, _: json.dumps(rows[0], indent=1).encode(), "", "the file is a JSON object"),
    "header only": ("csv", lambda rows, _: as_csv(rows).splitlines()[0], "", "the file has no rows"),
    "semicolons": ("csv", lambda rows, _: as_csv(rows, sep=";"), ":1", "the header is separated by ';'"),
    "tabs in csv": ("csv", lambda rows, _: as_csv(rows, sep="\t"), ":1", "the header is separated by '\\t'"),
    "commas in tsv": ("tsv", lambda rows, _: as_csv(rows), ":1", "the header is separated by ','"),
    "no label column": ("csv", lambda rows, _: as_csv(rows, columns=list(rows[0])[:-1]), ":1",
                        "there is no column 'label'"),
    "no header": ("csv", lambda rows, _: as_csv(rows, header=False), ":1", "there is no column"),
    "column twice": ("csv", lambda rows, _: as_csv(rows).replace(b"id,task", b"id,id", 1), ":1",
                     "column 'id' stands 2 times"),
    "a cell less": ("csv", lambda rows, _: as_csv(rows) + b"99,QC,en\n", ":12", "the row has 3 cells"),
    "open quote": ("csv", lambda rows, _: as_csv(rows) + b'99,QC,en,"mug,a,1\n', ":12", "a quote opened in this row"),
    "quote inside": ("csv", lambda rows, _: as_csv(rows) + b'99,QC,en,"m"ug,a,1\n', ":12", "the quotes are wrong"),
    "Parquet without query": ("parquet", lambda rows, folder: as_parquet(rows, folder, drop="origin_query"), "",
                              "there is no column 'origin_query'"),
    "Parquet cut off": ("parquet", lambda rows, folder: as_parquet(rows, folder)[:-30], "",
                        "the file cannot be read as Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_is_wrong_as_a_whole_is_one_claim(kind: str, tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", n_train=10, n_dev=10, n_test=10, tasks=("QC",))
    rows = rows_of(tmp_path / "sample" / "train_QC.txt", 10, 1)
    suffix, make, line, found = WHOLE[kind]
    (tmp_path / "data").mkdir()
    name = f"train_QC.{suffix}"
    (tmp_path / "data" / name).write_bytes(make(rows, tmp_path))
    page = check(tmp_path / "data", ["QC"])
    first = page.faults.iloc[0]
    assert (first["where"], first["found"][: len(found)]) == (f"{name}{line}", found)
    assert len(page.faults) == (len(rows[0]) - 1 if kind == "no header" else 1)
    assert page.has_faults


def test_faults_of_the_folder_stand_on_the_page(tmp_path: Path) -> None:
    write_sample(tmp_path, n_train=60, n_dev=10, n_test=10)
    (tmp_path / "train_QC.jsonl").write_bytes((tmp_path / "train_QC.txt").read_bytes())
    (tmp_path / "train_QI.txt").unlink()
    (tmp_path / "test_QC.txt.gz").write_bytes(b"")
    page = check(tmp_path, ["QC", "QI"])
    assert page.faults["found"].tolist()[:2] == [
        "train_QC.txt and train_QC.jsonl are both there",
        "dev_QI.txt and test_QI.txt without train_QI",
    ]
    assert claims(page)["test_QC.txt.gz"] == ["a file that nobody reads"]
    qi = page.verdicts[page.verdicts["task"] == "QI"]
    assert "no sound row of train" in qi["found"].iloc[-1]


def test_a_folder_without_files_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--quiet", "check", "--data", str(tmp_path)])
    assert done.exit_code == 3
    assert "train_QC" in done.output


# Verdicts


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("noisy")
    return folder, write_sample(folder, n_train=12_000, n_dev=600, n_test=600, seed=5, flip_rate=0.1)


@pytest.fixture(scope="module")
def noisy_page(noisy: tuple[Path, Any]) -> Page:
    folder, _ = noisy
    return check(folder, ["QC", "QI"], translations=read_translations(folder / "translations.csv"))


def verdict(page: Page, task: str, point: str) -> pd.Series:
    lines = page.verdicts[(page.verdicts["task"] == task) & (page.verdicts["point"] == point)]
    assert len(lines) == 1
    return lines.iloc[0]


def test_one_verdict_for_each_audit_of_each_task(noisy_page: Page) -> None:
    page = noisy_page
    for task, left_out in (("QC", set()), ("QI", {"category paths", "category shift", "category coverage"})):
        points = page.verdicts.loc[page.verdicts["task"] == task, "point"].tolist()
        assert points[:2] == ["faults", "lines and fields"]
        assert points[2:] == [audit.name for audit in AUDITS if audit.name not in left_out]


def test_repeated_pairs_tell_the_ceiling_that_the_sample_knows(noisy: tuple[Path, Any], noisy_page: Page) -> None:
    _, summary = noisy
    table = noisy_page.tables["QC: expected F1"].set_index("what")
    ceiling, known = table.loc["ceiling by label noise"], summary.file("QC", "train").bayes_f1
    assert ceiling["low"] < known < ceiling["high"]
    assert ceiling["f1"] == pytest.approx(known, abs=0.02)
    assert table.loc["everything positive", "f1"] == pytest.approx(2 * 0.66 / 1.66, abs=0.02)


def test_unseen_languages_and_categories_are_counted(noisy_page: Page) -> None:
    page = noisy_page
    assert (
        "4 of 10 languages of test are not in train (ar, de, it, pl)"
        in verdict(page, "QC", "rows per language")["found"]
    )
    table = page.tables["QC: rows per language"].set_index("language")
    assert (table["difference"].between(table["low"], table["high"])).all()
    assert table.loc[["ar", "de", "it", "pl"], "certain"].all()
    assert "of the rows of test have a category that train lacks" in verdict(page, "QC", "category shift")["found"]


def twisted(folder: Path, to: Path, change: Callable[[str, Row], Row]) -> Path:
    """A copy of QC with every row changed."""
    to.mkdir()
    for split in SPLITS:
        rows = rows_of(folder / f"{split}_QC.txt", 10**9, 1)
        write_rows(to / f"{split}_QC.txt", [change(split, row) for row in rows])
    return to


def test_the_same_languages_in_other_shares_are_a_shift(noisy: tuple[Path, Any], tmp_path: Path) -> None:
    def change(split: str, row: Row) -> Row:
        return row | {"language": "en" if split == "train" and row["id"] % 2 else ("en", "fr")[row["id"] // 2 % 2]}

    page = check(twisted(noisy[0], tmp_path / "data", change), ["QC"])
    found = verdict(page, "QC", "rows per language")
    assert found["verdict"] == "warning"
    assert found["found"].startswith("no unseen language, but 25% of test would have to change language")


def test_languages_that_differ_in_labels_are_named_and_noise_is_not(
    noisy: tuple[Path, Any], noisy_page: Page, tmp_path: Path
) -> None:
    assert verdict(noisy_page, "QC", "label prior per language")["verdict"] == "ok"

    def change(split: str, row: Row) -> Row:
        return row | ({"label": 1} if split == "train" and row["language"] == "ko" and row["id"] % 3 else {})

    found = verdict(check(twisted(noisy[0], tmp_path / "data", change), ["QC"]), "QC", "label prior per language")
    assert found["verdict"] == "warning"
    assert "(ko); beyond chance: ko" in found["found"]


def test_translations_show_queries_that_are_the_same_in_english(noisy: tuple[Path, Any], noisy_page: Page) -> None:
    table = noisy_page.tables["QI: what folds share"].set_index("key")
    assert table.loc["query", "share"] == 0
    assert table.loc["query in English", "share"] > 0.2
    assert "query in English" in noisy_page.tables["QI: what test shares with train"]["key"].tolist()
    without = check(noisy[0], ["QI"])
    assert "query in English" not in without.tables["QI: what test shares with train"]["key"].tolist()


def test_one_label_only_is_a_fault(noisy: tuple[Path, Any], tmp_path: Path) -> None:
    page = check(twisted(noisy[0], tmp_path / "data", lambda _, row: row | {"label": 1}), ["QC"])
    assert verdict(page, "QC", "rows")["verdict"] == "fault"
    assert page.has_faults


def test_an_audit_is_plugged_in_as_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path, n_train=60, n_dev=10, n_test=10)

    def look(subject: Subject) -> Audited | None:
        if subject.task is not QC:
            return None
        longest = int(np.max(subject.rows["train"]["query_en"].str.len()))
        return Audited(Verdict("longest", "note", f"{longest} letters"), pd.DataFrame([{"longest": longest}]))

    monkeypatch.setattr(checking, "AUDITS", (*AUDITS, Audit("longest", look)))
    page = check(tmp_path, ["QC", "QI"])
    assert page.verdicts.loc[page.verdicts["point"] == "longest", "task"].tolist() == ["QC"]
    assert page.tables["QC: longest"]["longest"].tolist() == [0]
