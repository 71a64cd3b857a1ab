"""Pseudo-labels: made without a fold for its training, recorded, refused when changed, and of no use on noise."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import pipelines.backbones
from competition.errors import CompetitionError, MismatchError
from competition.metrics import auc
from competition.sample import write_sample
from competition.tasks import Task
from oof.store import PartKey
from pipelines.backbones.lexical import Lexical
from pipelines.cli import main
from pipelines.config import recipe_path
from pipelines.ensembling import gather
from pipelines.extra_rows import with_extra_rows
from pipelines.prepare import prepare, split
from pipelines.pretraining import Pretraining, pretrain
from pipelines.pseudo import PseudoLabelling, counts_table, find_pseudo, pseudo_label
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.sections import ExtraSection
from pipelines.study_plan import Tuning, plan_study
from pipelines.train import train

FOLDS = range(3)
EXTRA = '\n[extra]\npseudo = "mine"\nweight = 0.5\n'


def make_run(root: Path, data: Path) -> RunFolder:
    """A run on QI with both lexical base learners trained."""
    run = RunFolder(root)
    prepare(run, RunSettings(data=str(data), tasks=("QI",), folds=3, recipes=("lexical", "lexical-linear")))
    split(run)
    run.add_recipes(["lexical"], ["lexical:head.rounds=20"])
    for learner in ("lexical", "lexical-linear"):
        for fold in FOLDS:
            train(run, PartKey("QI", learner, fold))
    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("world")
    write_sample(root / "data", n_train=400, n_dev=90, n_test=60, tasks=("QI",))
    return make_run(root / "run", root / "data")


@pytest.fixture
def run(world: RunFolder, tmp_path: Path) -> RunFolder:
    """The run, to do with as one likes."""
    shutil.copytree(world.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def asked(**changes: Any) -> PseudoLabelling:
    values: dict[str, Any] = {"task": "QI", "name": "mine", "ensemble": "lexical", "confidence": 0.6}
    return PseudoLabelling(**{**values, **changes})


def with_extra(run: RunFolder) -> PartKey:
    """The recipe with extra rows, recorded in the run."""
    path = run.root / "lexical-extra.toml"
    path.write_text(recipe_path("lexical").read_text("utf-8").replace("rounds = 300", "rounds = 20") + EXTRA, "utf-8")
    run.add_recipes([str(path)], [])
    return PartKey("QI", "lexical-extra", 1)


def test_a_fold_s_rows_are_scored_by_its_own_models(run: RunFolder) -> None:
    made = pseudo_label(run, asked(soft=True))
    for fold in FOLDS:
        rows = made.read(fold)
        for name in ("dev", "test"):
            own = run.parts.read(PartKey("QI", "lexical", fold), name)
            found = rows[rows["split"] == name].set_index("id")["soft_label"]
            assert set(found.index) == set(own.index)
            logits = [np.log(values / (1 - values)) for values in (found.to_numpy(), own[found.index].to_numpy())]
            np.testing.assert_allclose(logits[0] * (logits[1][0] / logits[0][0]), logits[1], rtol=1e-3)  # a temperature


def test_hard_labels_are_sure_and_soft_ones_are_the_scores(run: RunFolder) -> None:
    hard, soft = pseudo_label(run, asked()).read(0), pseudo_label(run, asked(name="soft", soft=True)).read(0)
    assert 0 < len(hard) < len(soft) == 150
    assert ((hard["score"] >= 0.6) | (hard["score"] <= 0.4)).all()
    assert (hard["soft_label"] == hard["label"]).all()
    assert (soft["soft_label"] == soft["score"]).all()
    assert (soft["label"] == (soft["score"] >= 0.5)).all()


def test_the_manifest_says_what_of_and_how_many(run: RunFolder) -> None:
    made = pseudo_label(run, asked(ensemble="blend", splits=("dev",)))
    values = json.loads((run.pseudo("QI", "mine") / "manifest.json").read_text("utf-8"))
    assert values["sources"] == dict(gather(run, "QI").sources)
    assert (values["splits"], values["confidence"], values["balance"]) == (["dev"], 0.6, 1.25)
    for fold in FOLDS:
        rows = made.read(fold)
        assert set(rows["split"]) == {"dev"}
        assert values["rows"][f"fold-{fold}"] == rows["language"].value_counts().to_dict()
    table = counts_table(run, "QI", "mine")
    assert table["rows"].sum() == 90
    assert table["chosen"].sum() == pytest.approx(sum(len(made.read(fold)) for fold in FOLDS) / 3)


def test_the_same_is_left_alone_and_another_refused(run: RunFolder) -> None:
    first = pseudo_label(run, asked())
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert pseudo_label(run, asked()).digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    for other in ({"confidence": 0.7}, {"soft": True}, {"ensemble": "lexical-linear"}, {"splits": ("dev",)}):
        with pytest.raises(MismatchError, match=rf"made differently[\s\S]*{next(iter(other))}"):
            pseudo_label(run, asked(**other))


def test_the_same_seed_gives_the_same_files(run: RunFolder) -> None:
    first = pseudo_label(run, asked(ensemble="stack"))
    files, manifest = {path.name: path.read_bytes() for path in first.folder.glob("*.parquet")}, dict(first.manifest)
    shutil.rmtree(first.folder)
    again = pseudo_label(run, asked(ensemble="stack"))
    assert {path.name: path.read_bytes() for path in again.folder.glob("*.parquet")} == files
    assert {**again.manifest, "provenance": manifest["provenance"]} == manifest, "but for its times"


def test_labels_of_dev_are_not_looked_at(run: RunFolder) -> None:
    plain = [pseudo_label(run, asked(ensemble="stack")).read(fold) for fold in FOLDS]
    file = run.rows_file("QI", "dev")
    rows = pd.read_parquet(file)
    assert rows["label"].notna().any()
    rows.assign(label=1 - rows["label"]).to_parquet(file)
    for part in run.root.glob("parts/QI/*/fold-*/manifest.json"):  # else the run is refused as another one
        values = json.loads(part.read_text("utf-8"))
        values["origin"]["rows"] = dict(run.origin("QI", {}).rows)
        part.write_text(json.dumps(values), encoding="utf-8")
    for before, fold in zip(plain, FOLDS, strict=True):
        found = pseudo_label(run, asked(ensemble="stack", name="again")).read(fold)
        pd.testing.assert_frame_equal(found, before)


def test_a_set_without_rows_is_said_to_be_one_and_trains_as_without_it(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    made = pseudo_label(run, asked(confidence=1.0))
    assert "no row is sure enough" in caplog.text
    assert len(made.read(1)) == 0
    own = train(run, with_extra(run)) / "oof.parquet"
    plain = run.parts.folder(PartKey("QI", "lexical", 1)) / "oof.parquet"
    assert own.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ensemble": "e5-bi"}, "no base learner with all its parts called 'e5-bi'"),
        ({"splits": ("later",)}, "later"),
        ({"confidence": 0.4}, "confidence"),
        ({"balance": 0.5}, "balance"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(run: RunFolder, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(CompetitionError, match=fault):
        pseudo_label(run, asked(**changes))
    assert not (run.root / "pseudo").exists()


# In training


class Watched(Lexical):
    """The lexical base learner, which writes down what it is fitted on."""

    given: list[pd.DataFrame] = []  # noqa: RUF012

    def fit(self, train: pd.DataFrame, task: Task) -> "Watched":
        self.given.append(train)
        return super().fit(train, task)


def test_a_fold_is_trained_on_its_own_rows_and_its_own_set(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.backbones.KINDS, "lexical", Watched)
    monkeypatch.setattr(Watched, "given", [])
    chosen, key = pseudo_label(run, asked()).read(1), with_extra(run)
    folder = train(run, key)
    (rows,) = Watched.given
    own, extra = rows[~rows["extra"]], rows[rows["extra"]]
    fold = run.folds("QI").align(run.rows("QI")["train"])
    assert set(own["id"]) == set(run.rows("QI")["train"]["id"][(fold != 1).to_numpy()])
    assert (own["soft_label"] == own["label"]).all()
    assert (own["weight"] == 1).all()
    assert own["group"].notna().all()
    assert extra["id"].tolist() == chosen["id"].tolist()
    assert extra["label"].tolist() == chosen["label"].tolist()
    assert (extra["weight"] == 0.5).all()
    for split_name, rows_of in chosen.groupby("split"):
        texts = run.rows("QI")[str(split_name)].set_index("id")["target"]
        assert set(texts[rows_of["id"]]) <= set(extra["target"])
    details = json.loads((folder / "manifest.json").read_text("utf-8"))["details"]["extra"]
    assert details == {"pseudo": find_pseudo(run, "QI", "mine").digest, "pseudo_rows": len(chosen), "weight": 0.5}


def test_a_changed_set_is_refused(run: RunFolder) -> None:
    made, key = pseudo_label(run, asked()), with_extra(run)
    train(run, key)
    shutil.rmtree(made.folder)
    with pytest.raises(CompetitionError, match="relstack pseudo"):
        train(run, key)
    pseudo_label(run, asked())
    train(run, key)
    shutil.rmtree(made.folder)
    pseudo_label(run, asked(confidence=0.7))
    with pytest.raises(MismatchError, match="extra_digests"):
        train(run, key)


def test_a_damaged_file_is_refused(run: RunFolder) -> None:
    made, key = pseudo_label(run, asked()), with_extra(run)
    made.read(0).to_parquet(made.folder / "fold-1.parquet")
    with pytest.raises(CompetitionError, match=r"fold-1\.parquet is not the file"):
        train(run, key)


def test_studies_and_pre_training_refuse_extra_rows(run: RunFolder) -> None:
    pseudo_label(run, asked())
    path = str(run.root / "lexical-extra.toml")
    with_extra(run)
    with pytest.raises(CompetitionError, match=r"without its table \[extra\]"):
        plan_study(Tuning(run, "QI", path, ("head.rounds=5,10",)))
    with pytest.raises(CompetitionError, match="no extra rows"):
        pretrain(run, Pretraining("t", "QI", "QI", "e5-ce"), overrides=("e5-ce:extra.pseudo=mine",))


def half_noise(rng: np.random.Generator, n_rows: int) -> list[dict[str, Any]]:
    """Rows whose label can be seen (the same word on both sides), each followed by one of its own words and a coin."""
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 9)) for _ in range(3 * n_rows)]
    lines = []
    for place in range(n_rows):
        easy, label = place % 2 == 0, int(rng.integers(0, 2))
        query, other, more = words[3 * place : 3 * place + 3]
        target = query if easy and label else other if easy else f"{other} {more}"
        lines.append({"id": place, "task": "QI", "language": "en", "origin_query": query, "item_title": target,
                      "label": label})  # fmt: skip
    return lines


def test_noise_cannot_be_learnt_though_dev_shows_every_training_row(tmp_path: Path) -> None:
    """Teacher and student remember every word, and dev repeats the training rows: a label that leaks would be found."""
    data = tmp_path / "data"
    data.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in half_noise(np.random.default_rng(0), 900))
    for name in ("train", "dev"):
        (data / f"{name}_QI.txt").write_text(text, encoding="utf-8")
    run = RunFolder(tmp_path / "run")
    prepare(run, RunSettings(data=str(data), tasks=("QI",), folds=3))
    split(run)
    plain = recipe_path("lexical-linear").read_text("utf-8").replace("c = 0.1", "c = 100.0")
    for learner, more in (("teacher", ""), ("student", '[extra]\npseudo = "mine"\n')):
        (run.root / f"{learner}.toml").write_text(plain + more, encoding="utf-8")
        run.add_recipes([str(run.root / f"{learner}.toml")], [])
        for fold in FOLDS:
            train(run, PartKey("QI", learner, fold))
        if learner == "teacher":
            pseudo_label(run, asked(ensemble="teacher", soft=True))
    frames = gather(run, "QI").frames
    noise = (frames["train"].rows["id"] % 2 == 1).to_numpy()
    labels = frames["train"].labels[noise]
    teacher = frames["train"].learners.index("teacher")
    assert auc(labels, frames["dev"].scores[noise, teacher]) > 0.9  # means over parts show all
    for learner, column in zip(frames["train"].learners, frames["train"].scores[noise].T, strict=True):
        assert abs(auc(labels, column) - 0.5) < 0.07, learner


# The command line


def relstack(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def test_the_command_line_labels_and_trains(run: RunFolder) -> None:
    done = relstack("pseudo", "--run", run.root, "--ensemble", "blend", "--confidence", 0.6, "--name", "mine",
                    "--format", "json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sum(line["chosen"] for line in json.loads(done.stdout)["QI: mine"]) > 0
    with_extra(run)
    path = run.root / "lexical-extra.toml"
    assert relstack("train", "--run", run.root, "--task", "QI", "--model", path).exit_code == 0
    assert relstack("leaderboard", "--run", run.root).exit_code == 0
    assert relstack("pseudo", "--run", run.root, "--soft", "--confidence", 0.6).exit_code == 2


def translated(run: RunFolder, n_rows: int = 40) -> pd.DataFrame:
    """Rows of train with other words, as `relstack augment` leaves them."""
    from pipelines.translation.augment import with_folds

    rows = run.rows("QI")["train"]
    made = rows.head(n_rows).assign(parent=rows["id"], way="into xx", language="xx", query="wort " + rows["query"])
    made = with_folds(made, rows, run.folds("QI").align(rows))
    run.augmented("QI", "words").parent.mkdir(parents=True, exist_ok=True)
    made.to_parquet(run.augmented("QI", "words"), index=False)
    return made


def test_translated_rows_come_with_their_parents_or_not_at_all(run: RunFolder) -> None:
    made, key = translated(run), PartKey("QI", "lexical", 1)
    train_rows = run.folds("QI").with_groups(run.rows("QI")["train"])
    train_rows = train_rows[run.folds("QI").training_rows(1, train_rows)]
    both, details = with_extra_rows(run, train_rows, ExtraSection(augmented="words", weight=0.25), key)
    extra = both[both["extra"]]
    assert set(extra["id"]) == set(made["id"][made["fold"] != 1])
    assert len(extra) == details["augmented_rows"] < len(made)
    groups = train_rows.set_index("id")["group"]
    parent = made.set_index("id")["parent"]
    assert extra["group"].tolist() == groups[parent[extra["id"]]].tolist()
    assert extra["label"].tolist() == extra["soft_label"].tolist()
    assert (extra["weight"] == 0.25).all()
    assert list(both)[: len(list(train_rows))] == list(train_rows)


def test_translated_rows_train_and_a_change_of_them_is_refused(run: RunFolder) -> None:
    path = run.root / "lexical-words.toml"
    recipe = recipe_path("lexical").read_text("utf-8").replace("rounds = 300", "rounds = 20")
    path.write_text(recipe + '\n[extra]\naugmented = "words"\n', "utf-8")
    run.add_recipes([str(path)], [])
    key = PartKey("QI", "lexical-words", 0)
    with pytest.raises(CompetitionError, match="relstack augment"):
        train(run, key)
    translated(run)
    train(run, key)
    translated(run, 20)
    with pytest.raises(MismatchError, match="extra_digests"):
        train(run, key)


def test_extra_rows_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="name rows"):
        ExtraSection()
