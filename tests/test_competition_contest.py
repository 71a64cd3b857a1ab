import pickle
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from competition.contest import BUILT_IN_CONTEST, CONTESTS, contest_names, load_contest
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.layout import LabelRule
from competition.mapping import GROUP
from competition.rows import read_competition, read_rows
from competition.sample_contests import SAMPLES, write_contest_sample
from competition.tasks import Task

SMALL = """
name = "small"
[tasks.A]
files = { train = "train.csv", test = "test.csv" }
[tasks.A.columns]
query = "q"
target = "t"
language_is = "en"
[tasks.A.submission]
csv = "out.csv"
"""


def written(folder: Path, text: str, name: str = "competition.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def task_of(folder: Path, text: str) -> Task:
    return load_contest(written(folder, text)).tasks[0]


def faults_of(folder: Path, text: str) -> str:
    with pytest.raises(CompetitionError) as caught:
        load_contest(written(folder, text))
    return str(caught.value)


# The file


def test_the_built_in_contest_is_its_shipped_file() -> None:
    assert load_contest(BUILT_IN_CONTEST.name).tasks == BUILT_IN_CONTEST.tasks


@pytest.mark.parametrize("name", contest_names())
def test_every_shipped_contest_is_usable_and_says_what_it_is(name: str) -> None:
    contest = load_contest(name)
    assert contest.name == name
    assert contest.about
    assert load_contest(CONTESTS / f"{name}.toml") == contest


@pytest.mark.parametrize("name", contest_names())
def test_a_task_is_the_same_after_pickle_and_json(name: str) -> None:
    adapter = TypeAdapter(Task)  # as the jobs of several processes are told theirs
    for task in load_contest(name).tasks:
        assert pickle.loads(pickle.dumps(task)) == task
        again = adapter.validate_json(adapter.dump_json(task), strict=False)
        assert again == task
        assert hash(again) == hash(task)


def test_all_faults_are_told_at_once_with_file_and_key(tmp_path: Path) -> None:
    text = SMALL.replace('name = "small"', 'name = "small"\ncolour = 1').replace('query = "q"', 'querry = "q"')
    told = faults_of(tmp_path, text.replace('csv = "out.csv"', 'csv = "out.csv"\nvalue = "logit"\nrows = "many"'))
    for key in ("colour", "tasks.A.columns.querry", "tasks.A.columns.query", "submission.value", "submission.rows"):
        assert re.search(rf"competition\.toml: \S*{re.escape(key)}: ", told), (key, told)
    assert "docs/new-competition.md" in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('language_is = "en"', "", "language column"),
        ('language_is = "en"', 'language_is = "en"\nlanguage = "l"', "language column"),
        ('language_is = "en"', 'language_is = "en"\nlanguages = { us = "en" }', "language column, and there is none"),
        ('target = "t"', "target = []", "target names no column"),
        ('train = "train.csv", ', "", "a file of train"),
        ('test = "test.csv"', 'tset = "test.csv"', "files of tset"),
        ('"train.csv"', '"../train.csv"', "must lie in the folder"),
        ('"train.csv"', '"/etc/passwd"', "must lie in the folder"),
        ('csv = "out.csv"', 'csv = "../out.csv"', "a plain file name"),
        ('csv = "out.csv"', 'csv = ""', "needs a file"),
        ('csv = "out.csv"', 'words = ["yes"]', "two different ones"),
        ('csv = "out.csv"', 'text = "out.txt"\nwords = ["no", "yes"]', "go into a CSV file"),
        ('csv = "out.csv"', 'value = "score"', "f1 judges what"),
        ("[tasks.A.columns]", 'metric = "auc"\n[tasks.A.columns]', "auc judges what"),
        ("[tasks.A.columns]", 'metric = "rmse"\n[tasks.A.columns]', "no regression"),
        ("[tasks.A.columns]", 'folds = "column-group"\n[tasks.A.columns]', "belong together"),
        ("[tasks.A.columns]", 'folds = "category-group"\n[tasks.A.columns]', "category path"),
        ("[tasks.A.columns]", "filters = { tset = { a = 1 } }\n[tasks.A.columns]", "filters of tset"),
        ("[tasks.A.columns]", 'encoding = "utf-16"\n[tasks.A.columns]', "encoding"),
        ("[tasks.A.columns]", "labels = { positive = [1], positive_from = 2 }\n[tasks.A.columns]", "two rules"),
        ("[tasks.A.columns]", "labels = { positive = [1], negative = ['1'] }\n[tasks.A.columns]", "in negative"),
    ],
)
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in SMALL
    assert told in faults_of(tmp_path, SMALL.replace(old, new))


def test_two_tasks_do_not_write_one_file(tmp_path: Path) -> None:
    both = SMALL + SMALL.replace("tasks.A", "tasks.B").replace('name = "small"', "")
    assert "two tasks write out.csv" in faults_of(tmp_path, both)
    load_contest(written(tmp_path, both.replace("out.csv", "{task}.csv")))


def test_a_contest_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(CompetitionError, match="amazon-esci"):
        load_contest("amazon")
    with pytest.raises(CompetitionError, match="no competition"):
        load_contest("no/such/file.toml")


# Labels


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        (LabelRule(), {1: 1, "0": 0, "1.0": 1, 2: None, "yes": None}),
        (LabelRule(positive=("E", "S"), negative=("C", "I")), {"E": 1, "I": 0, "X": None, 1: None, "": None}),
        (LabelRule(positive=("match",)), {"match": 1, "anything": 0, "": None}),
        (LabelRule(positive_from=2.5), {"2.5": 1, 3: 1, "2.33": 0, 1.0: 0, "nan": None, "high": None}),
    ],
)
def test_a_rule_makes_labels_or_says_that_they_are_none(rule: LabelRule, labels: dict[object, int | None]) -> None:
    assert {value: rule.label_of(value) for value in labels} == labels
    assert rule.label_of(True) is None
    assert rule.label_of(None) is None


# Files


def test_a_joined_file_in_latin_1_becomes_rows(tmp_path: Path) -> None:
    text = SMALL.replace("files = {", 'encoding = "latin-1"\nlabels = { positive_from = 2.5 }\nfiles = {').replace(
        'target = "t"', 'id = "id"\nlabel = "grade"\ntarget = ["t", "about"]\nseparator = " | "'
    )
    text = text.replace(
        "[tasks.A.columns]", '[[tasks.A.joins]]\nfile = "d.csv"\non = ["uid"]\ncolumns = ["about"]\n[tasks.A.columns]'
    )
    task = task_of(tmp_path, text)
    (tmp_path / "train.csv").write_bytes(
        "id,uid,t,q,grade\n7,1,½ in. bolt,bolt,2.67\n9,2,café,tea,1\n".encode("latin-1")
    )
    (tmp_path / "d.csv").write_text("uid,about\n2,\n1,“steel”\n", encoding="utf-8")
    rows = read_competition(tmp_path, [task])["A"]["train"]
    assert rows.to_dict("list") == {
        "id": [7, 9],
        "language": ["en", "en"],
        "query": ["bolt", "tea"],
        "target": ["½ in. bolt | “steel”", "café"],  # what is empty is left out
        "label": [1, 0],
    }


def joined(folder: Path, descriptions: str, *, more: str = "") -> str:
    """What is said of a file whose rows have the keys 1 and 2, joined with these descriptions."""
    join = f'[[tasks.A.joins]]\nfile = "d.csv"\non = ["uid"]\ncolumns = ["about"]\n{more}\n[tasks.A.columns]'
    text = SMALL.replace("[tasks.A.columns]", join).replace('target = "t"', 'target = "about"')
    (folder / "train.csv").write_text("uid,q,label\n1,a,1\n2,b,0\n")
    (folder / "d.csv").write_text(descriptions)
    try:
        rows = read_rows(folder / "train.csv", task_of(folder, text), labelled=True)
    except CompetitionError as error:
        return str(error)
    return str(rows["target"].fillna("nothing").tolist())


def test_a_join_finds_each_key_once_or_says_which(tmp_path: Path) -> None:
    assert joined(tmp_path, "uid,about\n1,x\n2,y\n3,z\n") == "['x', 'y']"
    assert "train.csv:3: d.csv has no uid 2" in joined(tmp_path, "uid,about\n1,x\n")
    assert joined(tmp_path, "uid,about\n1,x\n", more="optional = true") == "['x', 'nothing']"
    assert "d.csv, line 3: uid 1 repeats" in joined(tmp_path, "uid,about\n1,x\n1,y\n2,z\n")
    assert "d.csv, line 1: there is no column 'about'" in joined(tmp_path, "uid,abuot\n1,x\n2,y\n")
    assert "d.csv, line 2: the row has 1 cells" in joined(tmp_path, "uid,about\n1\n2,y\n")
    (tmp_path / "d.csv").unlink()
    text = SMALL.replace(
        "[tasks.A.columns]", '[[tasks.A.joins]]\nfile = "d.csv"\non = ["uid"]\ncolumns = ["about"]\n[tasks.A.columns]'
    )
    (tmp_path / "train.csv").write_text("uid,q,t,label\n1,a,x,1\n")
    with pytest.raises(CompetitionError, match=r"d\.csv, which is joined, cannot be read"):
        read_rows(tmp_path / "train.csv", task_of(tmp_path, text), labelled=True)


def test_one_file_holds_several_splits(tmp_path: Path) -> None:
    text = SMALL.replace('train = "train.csv", test = "test.csv"', 'train = "all.csv", test = "all.csv"').replace(
        "[tasks.A.columns]",
        "[tasks.A.filters]\nall = { small = 1 }\ntrain = { split = ['train', 'extra'] }\n"
        "test = { split = 'test' }\n[tasks.A.columns]",
    )
    (tmp_path / "all.csv").write_text(
        "q,t,label,small,split\na,x,1,1,train\nb,y,0,0,train\nc,z,,1,test\nd,w,0,1,extra\n"
    )
    rows = read_competition(tmp_path, [task_of(tmp_path, text)])["A"]
    assert rows["train"]["query"].tolist() == ["a", "d"]
    assert rows["train"]["id"].tolist() == [2, 5]  # no ids in the file: the lines
    assert rows["test"]["query"].tolist() == ["c"]
    (tmp_path / "all.csv").write_text("q,t,label,small,split\na,x,1,1,train\n")
    with pytest.raises(CompetitionError, match="no row has small = 1, split = test"):
        read_competition(tmp_path, [task_of(tmp_path, text)])


def test_languages_are_mapped_and_strange_ones_named(tmp_path: Path) -> None:
    text = SMALL.replace('language_is = "en"', 'language = "locale"\nlanguages = { us = "en", jp = "ja" }')
    (tmp_path / "train.csv").write_text("q,t,label,locale\na,x,1,us\nb,y,0,jp\n")
    assert read_rows(tmp_path / "train.csv", task_of(tmp_path, text), labelled=True)["language"].tolist() == [
        "en",
        "ja",
    ]
    (tmp_path / "train.csv").write_text("q,t,label,locale\na,x,1,us\nb,y,0,fr\n")
    with pytest.raises(CompetitionError, match=r"train\.csv:3: locale is the text 'fr'; expected one of us, jp"):
        read_rows(tmp_path / "train.csv", task_of(tmp_path, text), labelled=True)


def test_other_separators_and_delimiters(tmp_path: Path) -> None:
    text = SMALL.replace('target = "t"', 'target = "t"\ncategory_separator = ">"').replace(
        "files =", 'delimiter = "|"\nfiles ='
    )
    task = task_of(tmp_path, text.replace("train.csv", "train.dat"))
    (tmp_path / "train.dat").write_text("q|t|label\npan|Home > Pots,Pans > Woks|1\n")
    assert task.target_is_category
    assert read_rows(tmp_path / "train.dat", task, labelled=True)["target"].tolist() == ["Home,Pots, Pans,Woks"]


def test_a_named_column_groups_the_folds(tmp_path: Path) -> None:
    text = SMALL.replace("files =", 'folds = "column-group"\nfiles =').replace(
        'target = "t"', 'target = "t"\ngroup = "cluster"'
    )
    task = task_of(tmp_path, text)
    lines = [f"q{i},t{i},{i % 2},{i // 4}" for i in range(40)]
    (tmp_path / "train.csv").write_text("q,t,label,cluster\n" + "\n".join(lines) + "\n")
    rows = read_rows(tmp_path / "train.csv", task, labelled=True)
    folds = FoldPlan("column-group", n_splits=3).assign(rows, task)
    assert folds.nunique() == 3
    assert (folds.groupby(rows[GROUP]).nunique() == 1).all()
    (tmp_path / "train.csv").write_text("q,t,label,cluster\na,x,1,\n")
    with pytest.raises(CompetitionError, match=r"train\.csv:2: cluster is missing or empty"):
        read_rows(tmp_path / "train.csv", task, labelled=True)


def test_columns_that_are_not_there_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("query,t,label\na,x,1\n")
    with pytest.raises(CompetitionError) as caught:
        read_rows(tmp_path / "train.csv", task_of(tmp_path, SMALL), labelled=True)
    assert [str(fault) for fault in caught.value.faults] == [
        "train.csv:1: there is no column 'q'; expected it beside 'query', 't', 'label'"
    ]


# Made-up files

PUBLIC_COLUMNS = {
    "shopping_queries_dataset_examples.parquet": "example_id query query_id product_id product_locale esci_label "
    "small_version large_version split",
    "shopping_queries_dataset_products.parquet": "product_id product_title product_description product_bullet_point "
    "product_brand product_color product_locale",
    "train.csv": "id product_uid product_title search_term relevance",
    "test.csv": "id product_uid product_title search_term",
    "product_descriptions.csv": "product_uid product_description",
    "sample_submission.csv": "id relevance",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_have_the_public_columns_are_the_same_again_and_overwrite_nothing(tmp_path: Path, name: str) -> None:
    first = write_contest_sample(name, tmp_path / "a", n_train=60, n_test=20, seed=5)
    second = write_contest_sample(name, tmp_path / "b", n_train=60, n_test=20, seed=5)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    other = write_contest_sample(name, tmp_path / "c", n_train=60, n_test=20, seed=6)
    assert first[0].read_bytes() != other[0].read_bytes()
    for path in first:
        if path.suffix == ".parquet":
            assert pq.read_schema(path).names == PUBLIC_COLUMNS[path.name].split()
        elif path.suffix == ".csv":
            assert list(pd.read_csv(path, encoding="latin-1").columns) == PUBLIC_COLUMNS[path.name].split()
    with pytest.raises(CompetitionError, match="there is a file already"):
        write_contest_sample(name, tmp_path / "a", n_train=60, n_test=20)


def test_the_home_depot_sample_is_latin_1_and_no_utf_8(tmp_path: Path) -> None:
    train = write_contest_sample("home-depot", tmp_path, n_train=20, n_test=20)[0]
    with pytest.raises(UnicodeDecodeError):
        train.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_read_without_a_fault(tmp_path: Path, name: str) -> None:
    write_contest_sample(name, tmp_path, n_train=200, n_test=40)
    rows = read_competition(tmp_path, load_contest(name).tasks)
    for splits in rows.values():
        assert 100 < len(splits["train"]) <= 200  # ESCI's small version is a part of it
        assert 0.4 < splits["train"]["label"].mean() < 0.8
        assert len(splits["test"]) > 20


def test_the_definitions_in_the_documentation_are_usable(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "new-competition.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert [load_contest(written(tmp_path, block)).name for block in blocks] == ["my-shop", "one-file"]
    assert set(contest_names()) <= set(re.findall(r"^\| `([\w-]+)` \|", text, flags=re.MULTILINE))
