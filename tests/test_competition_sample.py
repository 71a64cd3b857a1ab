import csv
import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from competition import distinct, shop
from competition.categories import levels
from competition.distinct import DistinctTable
from competition.errors import CompetitionError
from competition.lexicon import BRANDS, LANGUAGES, read_lexicon
from competition.rows import read_competition
from competition.sample import (
    MAX_FLIP_RATE,
    POSITIVE_RATE,
    TRAIN_LANGUAGES,
    UNSEEN_LANGUAGES,
    SampleSummary,
    write_sample,
)
from competition.shop import Dice, Shop
from competition.tasks import QC, QI, SPLITS

TASKS = (QC, QI)
TARGETS = {task.name: task.target for task in TASKS}


class Sample(NamedTuple):
    summary: SampleSummary
    answers: list[dict[str, str]]

    def rows(self, task: str, split: str) -> list[dict[str, Any]]:
        text = self.summary.file(task, split).path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("competition")
    answers = folder / "private" / "answers.csv"
    summary = write_sample(folder / "data", seed=7, n_train=6000, n_dev=1500, n_test=3000, answers=answers)
    with answers.open(encoding="utf-8", newline="") as lines:
        return Sample(summary, list(csv.DictReader(lines)))


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_files_load_as_a_competition(sample: Sample) -> None:
    competition = read_competition(sample.summary.folder, TASKS)
    for task in TASKS:
        for split in SPLITS:
            rows = competition[task.name][split]
            assert len(rows) == sample.summary.file(task.name, split).n_rows
            assert rows["id"].is_unique
            assert rows["label"].notna().all() == (split != "test")


def test_rows_have_the_keys_of_the_real_files(sample: Sample) -> None:
    for task in TASKS:
        for split in SPLITS:
            keys = ["id", "task", "language", "origin_query", task.target]
            keys += [] if split == "test" else ["label"]
            assert all(list(row) == keys for row in sample.rows(task.name, split))
    assert {type(row["label"]) for row in sample.rows("QC", "train")} == {int}
    assert {type(row["label"]) for row in sample.rows("QI", "train")} == {str}


def test_equal_arguments_give_equal_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sample(tmp_path / name, n_train=200, n_dev=50, n_test=50, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_a_larger_file_begins_with_the_smaller_and_a_task_alone_is_the_same(tmp_path: Path) -> None:
    small = write_sample(tmp_path / "small", n_train=300, n_dev=40, n_test=40)
    large = write_sample(tmp_path / "large", n_train=900, n_dev=40, n_test=40, tasks=("QI",))
    begin, whole = (s.file("QI", "train").path.read_bytes() for s in (small, large))
    assert whole.startswith(begin)
    assert len(whole) > 2 * len(begin)


@pytest.mark.parametrize(
    ("module", "name", "value"), [(shop, "BLOCK", 7), (distinct, "HELD", 0), (distinct, "HELD", 60)]
)
def test_what_is_held_in_memory_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: int
) -> None:
    write_sample(tmp_path / "usual", n_train=400, n_dev=50, n_test=50)
    monkeypatch.setattr(module, name, value)
    write_sample(tmp_path / "other", n_train=400, n_dev=50, n_test=50)
    assert digests(tmp_path / "other") == digests(tmp_path / "usual")


def test_a_distinct_table_keeps_the_first_row_of_each_key_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distinct, "HELD", 2)
    with DistinctTable(tmp_path / "t.csv", ("a", "b"), n_key=1) as table:
        for key, value in ("x1", "y2", "z3", "x4", "z5", "w6", "z7", "w8"):
            table.add(key, value)
    assert (tmp_path / "t.csv").read_text("utf-8").split() == ["a,b", "x,1", "y,2", "z,3", "w,6"]
    assert table.n_rows == 4
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_nothing_but_the_sample_is_left_in_the_folder(sample: Sample) -> None:
    names = {file.name for file in sample.summary.folder.iterdir()}
    assert names == {f"{split}_{task.name}.txt" for split in SPLITS for task in TASKS} | {"translations.csv"}


def test_label_rates_are_near_those_of_the_real_files(sample: Sample) -> None:
    for file in sample.summary.files:
        assert file.positive_rate == pytest.approx(POSITIVE_RATE[file.task], abs=0.04)
    for task in ("QC", "QI"):
        labels = [int(row["label"]) for row in sample.rows(task, "train")]
        assert np.mean(labels) == pytest.approx(sample.summary.file(task, "train").positive_rate)


def test_every_split_has_its_languages_in_equal_shares(sample: Sample) -> None:
    for task in ("QC", "QI"):
        for split in SPLITS:
            expected = {*TRAIN_LANGUAGES[task], *(UNSEEN_LANGUAGES[task] if split != "train" else ())}
            counts = Counter(row["language"] for row in sample.rows(task, split))
            assert set(counts) == expected
            assert max(counts.values()) < 1.3 * min(counts.values())
        assert not set(TRAIN_LANGUAGES[task]) & set(UNSEEN_LANGUAGES[task])


def test_a_query_has_two_or_three_different_candidates(sample: Sample) -> None:
    for task in TASKS:
        rows = sample.rows(task.name, "train")
        starts = [i for i, row in enumerate(rows) if i == 0 or row["language"] != rows[i - 1]["language"]]
        for start, end in pairwise(starts):
            group = rows[start:end]
            assert len(group) in (2, 3)
            assert len({row["origin_query"] for row in group}) == 1
            targets = [row[task.target] for row in group if row[task.target] is not None]
            assert len(set(targets)) == len(targets)


def test_train_lacks_categories_that_dev_and_test_have(sample: Sample) -> None:
    unseen = sample.summary.unseen_categories
    assert unseen
    for group in unseen:
        shares = {s: np.mean([group in row["category_path"] for row in sample.rows("QC", s)]) for s in SPLITS}
        assert shares["train"] == 0
        assert shares["dev"] + shares["test"] > 0


def test_commas_inside_category_names_survive(sample: Sample) -> None:
    known = {name for concept in read_lexicon().concepts for name in levels(concept.path)}
    paths = {row["category_path"] for row in sample.rows("QC", "dev")}
    assert {name for path in paths for name in levels(path)} <= known
    assert any(", " in name for path in paths for name in levels(path))
    assert {len(levels(path)) for path in paths} == {2, 3, 4}


def test_a_few_titles_are_null_in_qi_only(sample: Sample) -> None:
    n_null = sum(row["item_title"] is None for row in sample.rows("QI", "train"))
    assert 1 <= n_null <= 30
    assert all(row["category_path"] for split in SPLITS for row in sample.rows("QC", split))


def test_translations_hold_every_query_once_and_english_stays_close(sample: Sample) -> None:
    with (sample.summary.folder / "translations.csv").open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines))
    english = {(line["language"], line["origin_query"]): line["translated_query"] for line in table}
    queries = {(r["language"], r["origin_query"]) for t in TASKS for s in SPLITS for r in sample.rows(t.name, s)}
    assert len(table) == len(english) == sample.summary.n_translations
    assert set(english) == queries
    assert all(text.isascii() for text in english.values())
    assert any(query == text for (language, query), text in english.items() if language == "en")


def f1(truth: np.ndarray, decided: np.ndarray) -> float:
    return float(2 * (truth & decided).sum() / (truth.sum() + decided.sum()))


@pytest.mark.parametrize("task", ["QC", "QI"])
def test_who_knows_the_labels_before_flips_reaches_the_best_f1_and_no_other(sample: Sample, task: str) -> None:
    mine = [line for line in sample.answers if line["task"] == task]
    assert [int(line["id"]) for line in mine] == [row["id"] for row in sample.rows(task, "test")]
    truth = np.array([line["label"] == "1" for line in mine])
    best = np.array([line["best_prediction"] == "1" for line in mine])
    file = sample.summary.file(task, "test")
    assert abs(f1(truth, best) - file.bayes_f1) < 3 * file.bayes_f1_error
    assert file.bayes_f1_error < 0.01
    assert np.mean(truth != best) == pytest.approx(sample.summary.flip_rate, abs=0.015)
    assert f1(truth, np.ones_like(truth)) < file.bayes_f1 - 0.1


@pytest.mark.parametrize("task", ["QC", "QI"])
def test_the_error_of_the_best_f1_is_the_scatter_over_flips(sample: Sample, task: str) -> None:
    rng, e = np.random.default_rng(0), sample.summary.flip_rate
    best = np.array([line["best_prediction"] == "1" for line in sample.answers if line["task"] == task])
    null = np.array([row[TARGETS[task]] is None for row in sample.rows(task, "test")])
    wrong = rng.random((400, len(best))) < np.where(null, 0.5, e)
    scores = [f1(best ^ flips, best) for flips in wrong]
    file = sample.summary.file(task, "test")
    assert np.mean(scores) == pytest.approx(file.bayes_f1, abs=4 * file.bayes_f1_error / 20)
    assert np.std(scores) == pytest.approx(file.bayes_f1_error, rel=0.15)


def test_without_flips_only_null_titles_keep_from_perfection(tmp_path: Path) -> None:
    summary = write_sample(tmp_path, n_train=600, n_dev=50, n_test=50, flip_rate=0)
    assert summary.file("QC", "train").bayes_f1 == 1
    assert 0.99 < summary.file("QI", "train").bayes_f1 <= 1


def test_the_text_of_a_pair_decides_its_label(tmp_path: Path) -> None:
    sample = Sample(write_sample(tmp_path, n_train=8000, n_dev=1, n_test=1, flip_rate=0), [])
    for task in TASKS:
        labels: dict[tuple[str, str, str], set[int]] = {}
        for row in sample.rows(task.name, "train"):
            if row[task.target] is not None:
                pair = (row["language"], row["origin_query"].casefold(), row[task.target].casefold())
                labels.setdefault(pair, set()).add(int(row["label"]))
        assert len(labels) > 5000
        assert [pair for pair, found in labels.items() if len(found) > 1] == []


@pytest.mark.parametrize("flip_rate", [0.0, MAX_FLIP_RATE])
def test_label_rates_hold_for_every_flip_rate(tmp_path: Path, flip_rate: float) -> None:
    summary = write_sample(tmp_path, n_train=4000, n_dev=1, n_test=1, flip_rate=flip_rate)
    for task, rate in POSITIVE_RATE.items():
        assert summary.file(task, "train").positive_rate == pytest.approx(rate, abs=0.035)


def test_dev_without_labels(tmp_path: Path) -> None:
    summary = write_sample(tmp_path, n_train=50, n_dev=50, n_test=50, label_dev=False)
    assert b"label" not in summary.file("QC", "dev").path.read_bytes()
    assert b"label" in summary.file("QC", "train").path.read_bytes()
    assert {file.name for file in tmp_path.iterdir() if file.suffix == ".csv"} == {"translations.csv"}


def cosine_auc(rows: list[dict[str, Any]], target: str, query: list[str]) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import roc_auc_score

    targets = [row[target] or "" for row in rows]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(query + targets)
    products = vectors.transform(query).multiply(vectors.transform(targets))
    labels = [int(row["label"]) for row in rows]
    return float(roc_auc_score(labels, np.asarray(products.sum(axis=1)).ravel()))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_characters_carry_some_signal_in_english_and_less_across_languages(sample: Sample, task: Any) -> None:
    rows = [row for split in ("train", "dev") for row in sample.rows(task.name, split)]
    english = [row for row in rows if row["language"] == "en"]
    korean = [row for row in rows if row["language"] == "ko"]
    in_english = cosine_auc(english, task.target, [row["origin_query"] for row in english])
    in_korean = cosine_auc(korean, task.target, [row["origin_query"] for row in korean])
    assert 0.6 < in_english < 0.92
    assert in_korean < in_english - 0.05


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_true_english_brings_the_signal_back(sample: Sample, task: Any) -> None:
    with (sample.summary.folder / "translations.csv").open(encoding="utf-8", newline="") as lines:
        english = {(r["language"], r["origin_query"]): r["translated_query"] for r in csv.DictReader(lines)}
    rows = [row for row in sample.rows(task.name, "train") if row["language"] == "ko"]
    original = cosine_auc(rows, task.target, [row["origin_query"] for row in rows])
    translated = cosine_auc(rows, task.target, [english["ko", row["origin_query"]] for row in rows])
    assert translated > original + 0.05


def test_offers_answer_a_wish_exactly_when_they_should() -> None:
    stock = Shop(read_lexicon(), Dice(1))
    for _ in range(2000):
        wish = stock.listing(stock.dice.pick(stock.products), {}, usual=0.4)
        assert stock.offer(wish).answers(wish)
        assert not stock.wrong_offer(wish).answers(wish)


def test_every_category_has_relevant_and_irrelevant_ones_that_never_overlap() -> None:
    for around in Shop(read_lexicon(), Dice(1)).around.values():
        assert len(around.relevant) >= 2
        assert around.far
        assert not set(around.relevant) & {*around.near, *around.far}
        assert len({*around.near, *around.far}) == len(around.near) + len(around.far)


def test_the_lexicon_is_wide_and_no_name_means_two_things() -> None:
    lexicon = read_lexicon()
    assert sum(concept.is_product for concept in lexicon.concepts) >= 400
    assert {len(levels(concept.path)) for concept in lexicon.concepts} == {3, 4}
    for language in LANGUAGES:
        names = [name.casefold() for concept in lexicon.concepts for name in concept.names[language]]
        assert min(map(len, names)) > 0
        assert [name for name, n in Counter(names).items() if n > 1] == []
    kinds = {kind for concept in lexicon.concepts for kind in concept.attributes}
    assert kinds <= set(lexicon.attributes)
    for values in lexicon.attributes.values():
        for language in LANGUAGES:
            assert len({value[language] for value in values}) == len(values) > 1


def test_invented_brands_are_no_words_of_the_lexicon() -> None:
    lexicon = read_lexicon()
    words = {w for c in lexicon.concepts for names in c.names.values() for n in names for w in n.lower().split()}
    assert len(set(BRANDS)) == len(BRANDS)
    assert not words & set(BRANDS)


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    real = tmp_path / "dev_QI.txt"
    real.write_text("the real competition", encoding="utf-8")
    with pytest.raises(CompetitionError) as refusal:
        write_sample(tmp_path, n_train=10, n_dev=10, n_test=10)
    assert [fault.where for fault in refusal.value.faults] == [str(real)]
    assert [file.name for file in tmp_path.iterdir()] == ["dev_QI.txt"]


def test_all_wrong_arguments_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError) as refusal:
        write_sample(tmp_path / "new", n_train=0, n_test=-1, tasks=("QC", "QX"), flip_rate=0.4)
    assert [fault.where for fault in refusal.value.faults] == ["n_train", "n_test", "tasks", "flip_rate"]
    assert not (tmp_path / "new").exists()
