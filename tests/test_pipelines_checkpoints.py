"""Checkpoints: a training that was cut off at any step ends with the same weights; damaged ones do not count."""

import json
import logging
from pathlib import Path

import pytest
from tiny import Interrupt, assert_equal_weights, make_rows, save_tiny

from competition.tasks import QI
from pipelines.backbones.checkpoints import KEPT, SEAL, checkpoints, last_checkpoint, notes_of, seal
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.masked_lm import pretrain_masked
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import CrossEncoderRecipe, load_recipe

ROWS = make_rows(55, seed=9)  # 55 steps an epoch with one row a batch; the loss is reported at steps 50 and 100
ALWAYS = "training.checkpoint_minutes=1e-9"
BRIEF = ["training.epochs=2", "training.batch_size=1", "training.learning_rate=1e-3", "training.precision=fp32"]


def workspace(folder: Path) -> Workspace:
    return Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)


def unfitted(model: Path, folder: Path, *overrides: str, recipe: str = "e5-ce") -> CrossEncoder:
    settings = [f"weights.name={model}", *BRIEF, ALWAYS, *overrides]
    return CrossEncoder(load_recipe(recipe, settings), workspace(folder))  # type: ignore[arg-type]


def cut_off(model: CrossEncoder, step: int) -> Path:
    """Fit until the loss is reported after `step`; gives the folder of the checkpoints."""
    logger, interrupt = logging.getLogger("pipelines.backbones.trainer"), Interrupt(step)
    logger.setLevel(logging.INFO)
    logger.addHandler(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(ROWS, QI)
    finally:
        logger.removeHandler(interrupt)
    return model.workspace.scratch / "checkpoints"


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.ema=0.9"],
        ["training.evaluate=5", "training.evaluate_rows=10", "training.multi_sample_dropout=2", "training.epochs=3"],
        ["training.accumulate=2", "training.epochs=4", "training.schedule=cosine"],
        ["training.fgm=1.0", "training.r_drop=1.0"],
    ],
)
def test_a_fit_cut_off_within_an_epoch_goes_on_to_the_same_weights(
    overrides: list[str], bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed, whole = (unfitted(bert, tmp_path / name, *overrides) for name in ("killed", "whole"))
    folder = cut_off(killed, 60)
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-98", "checkpoint-99"]
    caplog.clear()
    resumed = killed.fit(ROWS, QI)
    assert [message for message in caplog.messages if message.startswith(f"going on from {folder}/checkpoint-99")]
    expected = whole.fit(ROWS, QI)
    assert_equal_weights(resumed, expected)
    assert resumed.evaluations == expected.evaluations


def test_a_fit_without_a_clocks_checkpoints_has_the_same_weights(bert: Path, tmp_path: Path) -> None:
    often, seldom = (
        unfitted(bert, tmp_path / name, f"training.checkpoint_minutes={minutes}")
        for name, minutes in (("often", 1e-9), ("seldom", 1e9))
    )
    assert_equal_weights(often.fit(ROWS, QI), seldom.fit(ROWS, QI))
    assert len(checkpoints(often.workspace.scratch / "checkpoints")) == KEPT
    names = [path.name for path in checkpoints(seldom.workspace.scratch / "checkpoints")]
    assert names == ["checkpoint-55", "checkpoint-110"]


@pytest.mark.parametrize("damage", ["model.safetensors", "optimizer.pt", SEAL])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    damage: str, bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed, whole = (unfitted(bert, tmp_path / name) for name in ("killed", "whole"))
    newest = checkpoints(cut_off(killed, 60))[-1]
    data = (newest / damage).read_bytes()
    (newest / damage).write_bytes(data[: len(data) // 2 if damage == "optimizer.pt" else 0])
    caplog.clear()
    resumed = killed.fit(ROWS, QI)
    assert [
        message for message in caplog.messages if message.startswith(f"{newest} is not whole") and damage in message
    ]
    assert [message for message in caplog.messages if message.endswith("checkpoint-98")]
    assert_equal_weights(resumed, whole.fit(ROWS, QI))


def test_without_a_whole_checkpoint_training_begins_anew(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated = ["training.evaluate=5", "training.evaluate_rows=10", "training.epochs=3"]
    killed, whole = (unfitted(bert, tmp_path / name, *evaluated) for name in ("killed", "whole"))
    for checkpoint in checkpoints(cut_off(killed, 60)):
        (checkpoint / "trainer_state.json").write_text('{"half')
    caplog.clear()
    resumed = killed.fit(ROWS, QI)
    assert not [message for message in caplog.messages if message.startswith("going on from")]
    expected = whole.fit(ROWS, QI)
    assert_equal_weights(resumed, expected)
    assert resumed.evaluations == expected.evaluations


def test_only_a_checkpoint_whose_seal_fits_counts(tmp_path: Path) -> None:
    for step in (9, 10, 20, 30):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        if step != 30:
            seal(folder, {"pieces": step})
    (tmp_path / "checkpoint-20" / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}
    assert notes_of(tmp_path / "checkpoint-10") == {"pieces": 10}


def test_masked_language_modelling_cut_off_within_an_epoch_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipelines.backbones.checkpoints as module

    model = save_tiny(tmp_path / "model", "bert", mask=True)
    recipe = load_recipe("e5-ce", [f"weights.name={model}", *BRIEF, ALWAYS, "training.batch_size=4"])
    assert isinstance(recipe, CrossEncoderRecipe)
    own = module.seal

    def die_at_the_twentieth(checkpoint: Path, notes: object) -> None:
        own(checkpoint, notes)  # type: ignore[arg-type]
        if checkpoint.name == "checkpoint-20":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "seal", die_at_the_twentieth)
    with pytest.raises(KeyboardInterrupt):
        pretrain_masked(recipe, workspace(tmp_path / "killed"), QI, tmp_path / "resumed")
    monkeypatch.setattr(module, "seal", own)
    pretrain_masked(recipe, workspace(tmp_path / "killed"), QI, tmp_path / "resumed")
    pretrain_masked(recipe, workspace(tmp_path / "whole"), QI, tmp_path / "expected")
    found, expected = (tmp_path / name / "encoder" / "model.safetensors" for name in ("resumed", "expected"))
    assert found.read_bytes() == expected.read_bytes()
    assert json.loads((tmp_path / "resumed" / "backbone.json").read_text())
