"""Where memory runs out a batch is computed in pieces, with the same gradient; a loss that is no number is named."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import Interrupt, assert_equal_weights, make_rows, weights_of
from torch import nn

import pipelines.backbones.trainer
from competition.tasks import QI
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.losses import DivergedError
from pipelines.backbones.pair_heads import DenseRows, fit_head
from pipelines.backbones.pair_model import load_pair_model
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import read_corpus
from pipelines.backbones.trainer import make_trainer
from pipelines.config import load_recipe
from pipelines.launch import BatchTooLargeError, doublings, failure
from pipelines.memory import MemoryShortageError, fitting
from pipelines.targets import Targets
from pipelines.weights import resolve_weights

ROWS = make_rows(40, seed=1)
SHORT = ["training.epochs=2", "training.batch_size=8", "training.learning_rate=1e-3", "training.precision=fp32"]
ON_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has 8 GiB.")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to")


@pytest.fixture(scope="module")
def steady(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BertModel without dropout."""
    folder = shutil.copytree(bert, tmp_path_factory.mktemp("models") / "steady")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def unfitted(model: Path, folder: Path, *overrides: str, recipe: str = "e5-ce") -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    return CrossEncoder(load_recipe(recipe, [f"weights.name={model}", *SHORT, *overrides]), space)  # type: ignore[arg-type]


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes networks run out of memory with more than `most` rows, from their `first` pass on."""
    own = make_trainer

    def limit(most: int, *, first: int = 1, error: Exception = ON_GPU) -> None:
        passes = [0]

        def refuse(module: Any, args: Any, batch: dict[str, Any]) -> None:
            passes[0] += 1
            if module.training and passes[0] >= first and len(batch["input_ids"]) > most:
                raise error

        def limited(model: Any, *args: Any, **kwargs: Any) -> Any:
            model.register_forward_pre_hook(refuse, with_kwargs=True)
            return own(model, *args, **kwargs)

        monkeypatch.setattr(pipelines.backbones.trainer, "make_trainer", limited)

    return limit


# Gradients

HARD = ROWS
SOFT = ROWS.assign(soft_label=np.linspace(0, 1, len(ROWS)), weight=1.0, extra=False)
WEIGHTED = ROWS.assign(soft_label=ROWS["label"].astype(float), weight=np.linspace(0.1, 3, len(ROWS)), extra=False)


@pytest.mark.parametrize("rows", [HARD, SOFT, WEIGHTED], ids=["hard", "soft", "weighted"])
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("e5-ce", ["training.label_smoothing=0.1", "training.multi_sample_dropout=2"]),
        ("e5-ce", ["training.fgm=1.0", "training.awp=0.1"]),
        ("e5-ce", ["pooling=model", "training.attention=varlen", "training.r_drop=1.0"]),
        ("e5-bi-tuned", []),
    ],
    ids=["plain", "attacks", "packed", "two-towers"],
)
def test_the_gradient_of_the_pieces_is_that_of_the_whole_batch(
    recipe: str, overrides: list[str], rows: pd.DataFrame, steady: Path, tmp_path: Path
) -> None:
    unfit = unfitted(steady, tmp_path, *overrides, recipe=recipe)
    weights = resolve_weights(str(steady))
    reading = read_corpus(unfit.recipe, weights.folder, unfit.workspace.corpus, QI)
    torch.manual_seed(5)
    model = load_pair_model(unfit.recipe, weights, reading.tokenizer)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    trainer = make_trainer(model, reading.labelled(rows, QI), training=unfit.recipe.training,
                           workspace=unfit.workspace, logits=reading.reader.logits)  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    found = {}
    for pieces in (1, 3, 16):
        trainer.pieces = pieces
        model.zero_grad()
        loss = trainer._gradients(model, np.arange(7, 18))
        found[pieces] = (
            float(loss),
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        )
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in found[1][1].values())
    for pieces in (3, 16):
        assert found[pieces][0] == pytest.approx(found[1][0], rel=1e-5)
        for name, gradient in found[1][1].items():
            torch.testing.assert_close(found[pieces][1][name], gradient, rtol=1e-3, atol=2e-6, msg=name)


# Trainings that run out of memory


@pytest.mark.parametrize("error", [ON_GPU, ON_CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("overrides", [[], ["training.accumulate=2"]], ids=["plain", "accumulated"])
def test_a_training_short_of_memory_takes_the_same_steps_in_pieces_and_says_so(
    overrides: list[str],
    error: Exception,
    steady: Path,
    tmp_path: Path,
    short_of_memory: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = ["pooling=model", *overrides]  # without dropout
    roomy = unfitted(steady, tmp_path / "roomy", *whole).fit(ROWS, QI)
    assert "pieces" not in roomy.details()
    short_of_memory(3, first=4, error=error)  # with accumulation: in the middle of an optimiser step
    tight = unfitted(steady, tmp_path / "tight", *whole).fit(ROWS, QI)
    assert tight.details()["pieces"] == 4
    told = [message for message in caplog.messages if message.startswith("out of memory at step")]
    assert len(told) == 2
    assert "4 pieces" in told[1]
    start = weights_of(unfitted(steady, tmp_path / "start", *whole, "training.learning_rate=1e-12").fit(ROWS, QI))
    found, expected = weights_of(tight), weights_of(roomy)
    for name in expected:
        moved = np.linalg.norm(expected[name] - start[name])
        assert np.linalg.norm(found[name] - expected[name]) <= 0.03 * moved + 1e-6, name
    assert moved > 1e-3


def test_a_row_that_does_not_fit_is_an_error_worth_retrying(
    steady: Path, tmp_path: Path, short_of_memory: Callable[..., None]
) -> None:
    short_of_memory(0)
    with pytest.raises(MemoryShortageError, match="one row's activations") as caught:
        unfitted(steady, tmp_path).fit(ROWS, QI)
    assert caught.value.exit_code == 75
    assert "step 1, 8 rows in 8 pieces: CUDA out of memory. Tried to allocate 20.00 GiB." in str(caught.value)
    assert "gradient_checkpointing" in caught.value.advice


def test_a_resumed_training_keeps_its_pieces_and_its_weights(
    bert: Path, tmp_path: Path, short_of_memory: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    short_of_memory(1)
    always = ["training.checkpoint_minutes=1e-9", "training.batch_size=2", "training.epochs=3"]
    killed, whole = (unfitted(bert, tmp_path / name, *always) for name in ("killed", "whole"))
    logger, interrupt = logging.getLogger("pipelines.backbones.trainer"), Interrupt(30)
    logger.setLevel(logging.INFO)
    logger.addHandler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(ROWS, QI)
    logger.removeHandler(interrupt)
    caplog.clear()
    resumed = killed.fit(ROWS, QI)
    assert not [message for message in caplog.messages if message.startswith("out of memory")]
    assert [message for message in caplog.messages if message.startswith("going on from")]
    assert_equal_weights(resumed, whole.fit(ROWS, QI))


def test_other_errors_of_a_step_are_not_taken_for_memory(
    steady: Path, tmp_path: Path, short_of_memory: Callable[..., None]
) -> None:
    short_of_memory(3, error=RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        unfitted(steady, tmp_path).fit(ROWS, QI)


@pytest.mark.parametrize("recipe", ["e5-ce", "e5-bi-tuned"])
def test_scoring_short_of_memory_goes_on_with_smaller_batches(
    recipe: str, steady: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = unfitted(steady, tmp_path, "training.epochs=0.2", recipe=recipe).fit(ROWS, QI)
    scores = fitted.predict(ROWS, QI)

    def refuse(module: Any, args: Any, batch: dict[str, Any]) -> None:
        if len(batch["input_ids"]) > 3:
            raise ON_GPU

    getattr(fitted.model, "encoder", fitted.model).register_forward_pre_hook(refuse, with_kwargs=True)
    np.testing.assert_allclose(fitted.predict(ROWS, QI), scores, atol=1e-6)
    assert [message for message in caplog.messages if message.startswith("out of memory with")]
    assert np.ptp(scores) > 1e-4


def test_batches_are_halved_in_order_and_a_single_row_raises_what_it_raised() -> None:
    batches = [np.array([5, 3, 1, 0]), np.array([2, 4])]

    def sums(rows: np.ndarray) -> int:
        if len(rows) > 2:
            raise ON_CPU
        return int(rows.sum())

    assert [(rows.tolist(), found) for rows, found in fitting(batches, sums)] == [
        ([5, 3], 8), ([1, 0], 1), ([2], 2), ([4], 4),
    ]  # fmt: skip

    def never(rows: np.ndarray) -> int:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(fitting(batches, never))
    with pytest.raises(RuntimeError, match="allocate memory"):
        list(fitting(batches, sums, may_halve=False))


# Several processes


def test_of_several_causes_the_batch_that_was_too_large_is_the_one(tmp_path: Path) -> None:
    notes = [
        {"rank": 0, "exit_code": 1, "message": "RuntimeError: Connection closed by peer", "smaller_pieces": False},
        {"rank": 1, "exit_code": 75, "message": "the memory does not hold a batch", "smaller_pieces": True},
    ]
    for note in notes:
        (tmp_path / f"failure-{note['rank']}.json").write_text(json.dumps(note))
    error = failure(tmp_path, 1, [])
    assert type(error) is BatchTooLargeError
    assert error.exit_code == 75
    assert [fault.where for fault in error.faults] == ["process 1"]
    assert list(doublings(2, most=5)) == [2, 4, 8]


SITE = """
import os, sys
if "pipelines.worker" in " ".join(sys.orig_argv) and "torch.distributed.run" not in " ".join(sys.orig_argv):
    import torch
    own = torch.nn.functional.embedding
    def embedding(tokens, *args, **kwargs):
        if torch.is_grad_enabled() and len(tokens) > 3 and os.environ["RANK"] == "1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return own(tokens, *args, **kwargs)
    torch.nn.functional.embedding = embedding
"""


@pytest.mark.slow
def test_two_processes_of_which_one_runs_out_of_memory_begin_again_with_pieces(
    steady: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipelines.launch import fit_and_score

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    unfit = unfitted(steady, tmp_path, "training.gpus=2", "training.epochs=1", "pooling=model")
    fitted = fit_and_score(unfit.recipe, QI, unfit.workspace, train=ROWS, unseen={"dev": ROWS.drop(columns="label")})
    assert fitted.details["pieces"] == 2
    assert fitted.scores["dev"].shape == (len(ROWS),)
    assert [message for message in caplog.messages if "begin again from the last checkpoint" in message]


# Losses that are no numbers


def test_a_diverged_training_is_named_and_leaves_no_checkpoint_of_it(steady: Path, tmp_path: Path) -> None:
    unfit = unfitted(steady, tmp_path, "training.learning_rate=1e25", "training.checkpoint_minutes=1e-9")
    for _ in range(2):  # the second one goes on from where the loss was a number
        with pytest.raises(DivergedError, match="the training diverged") as caught:
            unfit.fit(ROWS, QI)
        assert caught.value.exit_code == 1
        assert "lower the learning rate" in caught.value.advice
    from safetensors.torch import load_file

    for path in (tmp_path / "scratch").rglob("checkpoint-*/model.safetensors"):
        assert all(bool(values.isfinite().all()) for values in load_file(path).values())


def test_a_loss_that_is_no_number_is_told_with_its_step_and_learning_rate() -> None:
    from pipelines.backbones.losses import FiniteLoss

    losses = FiniteLoss()
    for step, loss in enumerate([0.5, 0.4, float("nan"), 0.3, float("inf")], start=1):
        losses.see(torch.tensor(loss), step=step)
    with pytest.raises(DivergedError, match=r"step 3: loss nan or inf at learning rate 0\.0002"):
        losses.refuse_bad(learning_rate=2e-4)
    fine = FiniteLoss()
    fine.see(torch.tensor(0.5), step=1)
    fine.refuse_bad(learning_rate=2e-4)


def test_a_head_that_diverges_is_named() -> None:
    table = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    targets = Targets((table[:, 0] > 0).astype(np.int8))
    with pytest.raises(DivergedError, match="the training diverged"):
        fit_head(DenseRows(table), targets, hidden=8, epochs=3, dropout=0.0, learning_rate=1e30, weight_decay=0.0,
                 seed=0, threads=1)  # fmt: skip
