"""Scores of new rows by a run's fold models: those of the parts, where the rows are the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from competition.errors import CompetitionError
from competition.sample import write_sample
from oof.store import PartKey
from pipelines.cli import main
from pipelines.predict import predict
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.train import train


@pytest.fixture(scope="module")
def run(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("predict")
    write_sample(folder / "data", n_train=90, n_dev=25, n_test=20, tasks=("QI",))
    run = RunFolder(folder / "run")
    prepare(run, RunSettings(data=str(folder / "data"), tasks=("QI",), folds=3,
                             translations=str(folder / "data" / "translations.csv")))  # fmt: skip
    split(run)
    settings = [f"weights.name={bert}", "training.epochs=1", "training.learning_rate=1e-3"]
    run.add_recipes(["e5-ce", "lexical"], [*(f"e5-ce:{one}" for one in settings), "lexical:candidates=false"])
    for fold in range(3):
        train(run, PartKey("QI", "e5-ce", fold))
        train(run, PartKey("QI", "lexical", fold))
    return run


@pytest.mark.parametrize("learner", ["e5-ce", "lexical"])
def test_rows_of_dev_score_as_in_the_parts(learner: str, run: RunFolder) -> None:
    found = predict(run, task="QI", learner=learner, data=run.root.parent / "data" / "dev_QI.txt").set_index("id")
    parts = [run.parts.read(PartKey("QI", learner, fold), "dev") for fold in range(3)]
    np.testing.assert_allclose(found["score"], np.mean(parts, axis=0), atol=1e-6)


def test_new_rows_get_scores_on_the_command_line(run: RunFolder, tmp_path: Path) -> None:
    rows = [{"id": i, "language": "en", "origin_query": f"red shoes {i}", "item_title": "shoes"} for i in range(3)]
    (tmp_path / "new.txt").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["predict", str(tmp_path / "new.txt"), "--run", str(run.root), "--task", "QI", "--model", "e5-ce"]
    done = CliRunner().invoke(main, [*words, "--format", "json"])
    assert done.exit_code == 0, done.stderr
    assert [line["id"] for line in json.loads(done.stdout)] == [0, 1, 2]
    assert all(0 <= line["score"] <= 1 for line in json.loads(done.stdout))


def test_a_learner_with_missing_folds_is_refused_with_the_commands(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="relstack train --task QI --model e5-bi --fold 2"):
        predict(run, task="QI", learner="e5-bi", data=run.root.parent / "data" / "dev_QI.txt")
