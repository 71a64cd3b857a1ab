"""The speed benchmarks: both sides read the same tokens and learn the same, turns alternate, the scripts run."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import make_rows

from competition.tasks import QC
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.pair_model import load_tokenizer
from pipelines.backbones.readers import PairReader

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
import inference
import training
from reference import PerItemRows, Seconds, Turns, median_ratio, read_pairs, recipe_of, workspace

ROWS = make_rows(64, seed=2)


@pytest.fixture(scope="module")
def steady(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BertModel without dropout, so that different orders of drawing do not matter."""
    folder = shutil.copytree(bert, tmp_path_factory.mktemp("steady") / "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_both_sides_read_the_same_tokens_and_labels(bert: Path) -> None:
    recipe, tokenizer = recipe_of(["max_length=192"]), load_tokenizer(bert)
    reader, items = PairReader(recipe, tokenizer), PerItemRows(ROWS, recipe, tokenizer)
    inputs = reader.inputs(reader.texts(ROWS, QC))
    assert len(items) == len(ROWS)
    for row in range(len(ROWS)):
        batch = inputs.batch(np.array([row]))
        assert items[row]["input_ids"] == batch["input_ids"][0].tolist()
        assert items[row]["token_type_ids"] == batch["token_type_ids"][0].tolist()
        assert items[row]["labels"] == ROWS["label"].iloc[row]


def test_rows_have_translations_and_both_labels() -> None:
    train, fresh = read_pairs(None, n_train=200, n_fresh=100, seed=0)
    assert (len(train), len(fresh)) == (200, 100)
    assert (train.loc[train["language"] != "en", "query_en"] != "").all()
    assert set(train["label"]) == set(fresh["label"]) == {0, 1}


def test_every_state_between_the_two_sides_learns_the_same(steady: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, rates and weights are the same from the second on: each contribution is one of speed alone."""
    monkeypatch.setattr("pipelines.backbones.pair_model.HEAD_DROPOUT", 0.0)
    settings = ("training.batch_size=8", "training.learning_rate=1e-2", "max_length=192", f"weights.name={steady}")
    job = training.Job(settings, threads=1, seed=3)
    fitted = {rung.name: job.fit(rung, ROWS) for rung in training.LADDER}
    full = fitted[training.REFERENCE.name]  # scores in fp32
    scores = {name: replace(full, model=one.model).predict(ROWS, QC) for name, one in fitted.items()}
    base = scores["+ batches by length"]
    assert base.std() > 0.02, "it learned something"
    assert np.abs(scores["reference"] - base).max() > 1e-3, "the reference draws its own batches"
    for name in list(scores)[2:]:
        np.testing.assert_allclose(scores[name], base, atol=0.02 if "bf16" in name or "ours" in name else 1e-3)


def test_every_way_of_scoring_gives_the_same_scores(bert: Path, tmp_path: Path) -> None:
    settings = ["training.precision=bf16", "training.batch_size=8", "max_length=192", f"weights.name={bert}"]
    model = CrossEncoder(recipe_of(settings), workspace(tmp_path, [ROWS[:1]], seed=3, threads=1)).fit(ROWS, QC)
    fresh = make_rows(40, seed=4)
    scores = {name: score(fresh) for name, score in inference.scorers(model, tmp_path).items()}
    base = scores[inference.REFERENCE]
    assert len(np.unique(base)) > 20
    for name in list(scores)[1:4]:
        np.testing.assert_allclose(scores[name], base, atol=1e-5, err_msg=name)
    for name in {inference.OURS, inference.OPENVINO} & set(scores):
        np.testing.assert_allclose(scores[name], base, atol=0.02)
    np.testing.assert_allclose(scores[inference.TWICE], np.tile(base, 2), atol=1e-5)
    np.testing.assert_array_equal(scores[inference.ONCE], np.tile(scores[inference.OURS], 2))


def test_turns_alternate_and_every_second_is_counted_once() -> None:
    turns, seen = Turns(("a", "b")), []

    def work(name: str, n_turns: int) -> str:
        for _ in range(n_turns):
            seen.append(name)
            turns.take()
        return name.upper()

    found = turns.run({"b": lambda: work("b", 4), "a": lambda: work("a", 2)})
    assert found == {"a": "A", "b": "B"}
    assert "".join(seen) == "ababbb"
    assert {name: len(seconds) for name, seconds in turns.seconds.items()} == {"a": 3, "b": 5}


def test_a_work_that_fails_does_not_hold_up_the_other() -> None:
    turns, seen = Turns(("a", "b")), []

    def fails() -> None:
        raise ValueError("mine")

    def goes_on() -> None:
        turns.take()
        seen.append("done")

    with pytest.raises(ValueError, match="mine"):
        turns.run({"a": fails, "b": goes_on})
    assert seen == ["done"]


def test_the_ratio_is_the_median_of_what_stood_side_by_side() -> None:
    slow, fast = [Seconds(6, 1), Seconds(8, 1), Seconds(90, 1)], [Seconds(2, 1), Seconds(2, 1), Seconds(3, 1)]
    assert median_ratio(slow, fast) == 4
    assert median_ratio(slow, fast, clock="cpu") == 1


@pytest.mark.parametrize(("script", "result"), [(training, "training_speedup"), (inference, "inference_speedup")])
def test_the_benchmarks_run(script: object, result: str, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--quick", "--threads", "1", "--set", f"weights.name={bert}"])  # type: ignore[attr-defined]
    out = capsys.readouterr().out
    assert re.fullmatch(rf"RESULT {result} \d+\.\d\d", out.strip().splitlines()[-1])
    assert "ours |" in out
