"""Switches of training: what each does to the loss, the learning rate and the weights; limits of size."""

import math
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_rows
from torch import nn

from competition.errors import CompetitionError
from competition.tasks import QC, QI
from pipelines.backbones import load
from pipelines.backbones.averaging import MovingAverage
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.evaluation import Labelled
from pipelines.backbones.loader import epoch_loader
from pipelines.backbones.losses import loss_of
from pipelines.backbones.pair_model import load_tokenizer, mean_pooled
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import read_corpus
from pipelines.backbones.trainer import make_trainer
from pipelines.config import load_recipe
from pipelines.progress import listening
from pipelines.sections import TrainingSection
from pipelines.targets import Targets
from pipelines.tokens import TokenRows, TrainingBatches

ROWS = make_rows(32, seed=1)
SHORT = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=1e-2", "training.precision=fp32"]
SWITCHES = [
    "training.schedule=constant",
    "training.label_smoothing=0.2",
    "training.multi_sample_dropout=4",
    "training.r_drop=1.0",
    "training.fgm=1.0",
    "training.awp=0.1",
    "training.ema=0.9",
]


def unfitted(model: Path, folder: Path, *overrides: str, recipe: str = "e5-ce") -> CrossEncoder:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    return CrossEncoder(load_recipe(recipe, [f"weights.name={model}", *SHORT, *overrides]), space)  # type: ignore[arg-type]


def scores_of(model: Path, folder: Path, *overrides: str, recipe: str = "e5-ce") -> np.ndarray:
    return unfitted(model, folder, *overrides, recipe=recipe).fit(ROWS, QI).predict(ROWS, QI)


@pytest.fixture(scope="module")
def plain(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Scores without any switch."""
    return scores_of(bert, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_training_and_the_same_seed_repeats_it(
    switch: str, bert: Path, plain: np.ndarray, tmp_path: Path
) -> None:
    scores = scores_of(bert, tmp_path / "one", switch)
    assert np.abs(scores - plain).max() > 1e-4
    np.testing.assert_array_equal(scores_of(bert, tmp_path / "other", switch), scores)


def test_switches_work_together_and_behind_adapters(gemma: Path, tmp_path: Path) -> None:
    together = [setting for setting in SWITCHES if "multi_sample" not in setting]
    for recipe in ("gemma-3-12b", "gemma-3-270m-yesno"):
        model = unfitted(gemma, tmp_path / recipe, *together, recipe=recipe).fit(ROWS, QI)
        model.save(tmp_path / recipe / "saved")
        scores = load(tmp_path / recipe / "saved", model.workspace).predict(ROWS, QI)
        np.testing.assert_array_equal(scores, model.predict(ROWS, QI))


def test_a_training_reports_every_step_to_whoever_listens(bert: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    with listening(lambda done, total: heard.append((done, total))):
        scores_of(bert, tmp_path)
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_switches_that_are_off_leave_every_weight_alone(bert: Path, plain: np.ndarray, tmp_path: Path) -> None:
    off = ["training.r_drop=0", "training.fgm=0", "training.awp=0", "training.ema=0", "training.label_smoothing=0"]
    np.testing.assert_array_equal(scores_of(bert, tmp_path, *off, "training.multi_sample_dropout=1"), plain)


# The loss

LABELS = torch.tensor([1, 0])
LOGITS = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
RIGHT, WRONG = math.log(1 + math.exp(-2)), 2 + math.log(1 + math.exp(-2))


def test_the_loss_is_cross_entropy_computed_by_hand() -> None:
    assert float(loss_of([LOGITS], LABELS, TrainingSection())) == pytest.approx((RIGHT + WRONG) / 2)


def test_smoothing_spreads_its_share_over_both_labels() -> None:
    loss = loss_of([LOGITS[:1]], LABELS[:1], TrainingSection(label_smoothing=0.2))
    assert float(loss) == pytest.approx(0.9 * RIGHT + 0.1 * WRONG)


def test_losses_of_several_masks_are_averaged() -> None:
    masks = torch.stack([LOGITS, -LOGITS, LOGITS * 0])
    losses = [float(loss_of([mask], LABELS, TrainingSection())) for mask in masks]
    assert float(loss_of([masks], LABELS, TrainingSection())) == pytest.approx(np.mean(losses))


def test_r_drop_adds_the_symmetric_divergence_of_two_passes() -> None:
    training, other = TrainingSection(r_drop=3.0), torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    p, q = torch.softmax(LOGITS, -1).numpy(), torch.softmax(other, -1).numpy()
    divergence = ((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2 / len(LABELS)
    plain = np.mean([float(loss_of([one], LABELS, TrainingSection())) for one in (LOGITS, other)])
    assert float(loss_of([LOGITS, other], LABELS, training)) == pytest.approx(plain + 3 * divergence, rel=1e-5)
    assert float(loss_of([LOGITS, LOGITS], LABELS, training)) == pytest.approx((RIGHT + WRONG) / 2)


SOFT_LABELS, ROW_WEIGHTS = torch.tensor([0.75, 0.0]), torch.tensor([1.0, 3.0])


def test_soft_labels_are_the_share_of_each_label_in_the_loss() -> None:
    loss = loss_of([LOGITS], SOFT_LABELS, TrainingSection())
    assert float(loss) == pytest.approx((0.75 * RIGHT + 0.25 * WRONG + WRONG) / 2)
    hard = loss_of([LOGITS], LABELS.float(), TrainingSection(label_smoothing=0.2))
    assert float(hard) == pytest.approx(float(loss_of([LOGITS], LABELS, TrainingSection(label_smoothing=0.2))))


def test_a_weight_multiplies_all_of_its_rows_loss() -> None:
    other, masks = torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.stack([LOGITS, -LOGITS, LOGITS * 0.5])
    cases: list[tuple[list[torch.Tensor], TrainingSection]] = [
        ([LOGITS], TrainingSection(label_smoothing=0.2)),
        ([LOGITS, other], TrainingSection(r_drop=3.0)),
        ([masks, -masks * 2], TrainingSection(r_drop=1.0)),
    ]
    for labels in (LABELS, SOFT_LABELS):
        for outputs, training in cases:
            rows = [float(loss_of([out[..., i : i + 1, :] for out in outputs], labels[i : i + 1], training))
                    for i in range(2)]  # fmt: skip
            weighted = loss_of(outputs, labels, training, weights=ROW_WEIGHTS)
            assert float(weighted) == pytest.approx((rows[0] + 3 * rows[1]) / 2, rel=1e-5)


def with_targets(soft: Any, weight: float, *, extra: Any = False) -> pd.DataFrame:
    return ROWS.assign(soft_label=np.asarray(soft, dtype=float), weight=weight, extra=extra)


@pytest.mark.parametrize("switch", ["training.epochs=1", *SWITCHES])
def test_hard_labels_of_weight_one_train_bit_for_bit_as_without_the_columns(
    switch: str, bert: Path, tmp_path: Path
) -> None:
    fits = [
        unfitted(bert, tmp_path / str(i), switch).fit(rows, QI).predict(ROWS, QI)
        for i, rows in enumerate((ROWS, with_targets(ROWS["label"], 1.0)))
    ]
    np.testing.assert_array_equal(*fits)


@pytest.mark.parametrize(("recipe", "more"), [("e5-ce", SWITCHES[1:]), ("gemma-3-270m-yesno", []), ("e5-bi-tuned", [])])
def test_soft_labels_pull_the_scores_their_way(
    recipe: str, more: list[str], bert: Path, gemma: Path, tmp_path: Path
) -> None:
    model = gemma if "gemma" in recipe else bert
    low, high = (
        unfitted(model, tmp_path / str(soft), *more, "training.epochs=4", recipe=recipe)
        .fit(with_targets(np.full(len(ROWS), soft), 0.5), QI)
        .predict(ROWS, QI)
        for soft in (0.1, 0.9)
    )
    assert high.mean() > low.mean() + 0.2


@pytest.mark.parametrize("joint", ["heads", "tag"])
def test_other_tasks_rows_have_weight_one_beside_soft_ones(joint: str, bert: Path, tmp_path: Path) -> None:
    model = unfitted(bert, tmp_path, f"joint={joint}")
    others = make_rows(8, seed=5, targets=["pets", "shoes"])
    reading = read_corpus(model.recipe, bert, Corpus.of([ROWS]), QI)
    labelled = reading.joint(with_targets(np.full(len(ROWS), 0.25), 0.5), QI, {QC: others})
    assert labelled.weights is not None
    assert labelled.weights.tolist() == [0.5] * len(ROWS) + [1.0] * 8
    assert labelled.labels.tolist() == [0.25] * len(ROWS) + others["label"].tolist()


def test_rows_to_evaluate_on_are_real_ones_with_their_labels(bert: Path, tmp_path: Path) -> None:
    extra = np.arange(len(ROWS)) % 2 == 0
    rows = with_targets(np.full(len(ROWS), 0.5), 1.0, extra=extra).assign(group=ROWS["id"].where(~extra))
    rows = rows.sample(frac=1, random_state=0)
    model = unfitted(bert, tmp_path, "training.evaluate=1", "training.evaluate_rows=10")
    trained, judged = model._slice(rows)
    assert 0 < len(judged) <= 10
    assert not judged["extra"].any()
    assert set(trained["id"]) | set(judged["id"]) == set(ROWS["id"])
    assert set(Targets.of(judged).labels.tolist()) == {0, 1}
    assert (trained["soft_label"] == 0.5).all()


def test_copies_of_rows_to_evaluate_on_are_not_trained_on(bert: Path, tmp_path: Path) -> None:
    own = with_targets(ROWS["label"], 1.0).assign(group=ROWS["query"])
    copies = own.assign(id=-1 - own["id"], query="other words", extra=True)
    model = unfitted(bert, tmp_path, "training.evaluate=1", "training.evaluate_rows=10")
    trained, judged = model._slice(pd.concat([own, copies], ignore_index=True))
    assert len(judged)
    assert not judged["extra"].any()
    assert trained["extra"].any()
    assert not set(trained["group"]) & set(judged["group"])


def test_several_masks_are_drawn_in_training_only(bert: Path) -> None:
    from transformers import AutoModel

    model = mean_pooled(AutoModel.from_pretrained(bert), 5)
    batch = dict(load_tokenizer(bert)(["red", "shoes"], return_tensors="pt", padding=True))
    logits = model.train()(**batch)["logits"]
    assert logits.shape == (5, 2, 2)
    assert not torch.equal(logits[0], logits[1])
    assert model.eval()(**batch)["logits"].shape == (2, 2)


# Schedule, average


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("linear", [0, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 1, 0.8536, 0.5, 0.1464]),
        ("constant", [0, 1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_follows_the_schedule(schedule: str, shares: list[float], bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    training = TrainingSection(schedule=schedule, epochs=1, batch_size=1, warmup=0.2, learning_rate=0.01)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(bert)
    space = Workspace(tmp_path, tmp_path, Corpus.of([ROWS]), 3, threads=1)
    trainer = make_trainer(
        mean_pooled(AutoModel.from_pretrained(bert)),
        Labelled(TokenRows.of([tokenizer("red")["input_ids"]] * 5), np.ones(5, dtype=int)),
        training=training,
        workspace=space,
        logits=lambda model, batch: model(**batch)["logits"],
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=5)
    rates = []
    for _ in shares:
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    np.testing.assert_allclose(rates, 0.01 * np.array(shares), atol=1e-6)


def test_the_average_begins_as_a_mean_and_then_forgets_at_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    average, expected = MovingAverage(model, 0.5), None
    for step, value in enumerate([1.0, 3.0, 5.0, 9.0], start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model, step=step)
        expected = {1: 1.0, 2: 2.0, 3: 3.5, 4: 6.25}[step]
        assert float(average.values["weight"]) == pytest.approx(expected)
    average.put_into(model)
    assert model.weight.item() == pytest.approx(6.25)


def test_frozen_weights_have_no_average() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert set(MovingAverage(model, 0.9).values) == {"weight"}


# Size


@pytest.mark.parametrize("recipe", ["gemma-3-12b", "gemma-3-270m-yesno", "e5-ce"])
def test_a_network_above_the_limit_is_refused_before_it_is_loaded(recipe: str, gemma: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = shutil.copytree(gemma, tmp_path / "model")
    save_file({"another": torch.zeros(1)}, folder / "model.safetensors")  # loading it would fail
    with pytest.raises(CompetitionError, match=r"has [\d,]+ parameters, the limit is 1,000"):
        unfitted(folder, tmp_path, "training.max_parameters=1000", recipe=recipe).fit(ROWS, QI)


def test_the_image_tower_does_not_count(gemma: Path, gemma_multimodal: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    n_parameters = sum(tensor.numel() for tensor in load_file(gemma / "model.safetensors").values())
    assert n_parameters < sum(t.numel() for t in load_file(gemma_multimodal / "model.safetensors").values())
    limits = [f"training.max_parameters={n_parameters + extra}" for extra in (0, -1)]
    for folder in (gemma, gemma_multimodal):
        recipe = "gemma-3-270m-yesno"
        unfitted(folder, tmp_path, limits[0], "training.epochs=0", recipe=recipe).fit(ROWS, QI)
        with pytest.raises(CompetitionError, match=f"{n_parameters:,} parameters"):
            unfitted(folder, tmp_path, limits[1], "training.epochs=0", recipe=recipe).fit(ROWS, QI)


def test_the_default_limit_is_the_competitions() -> None:
    assert load_recipe("qwen3-14b").training.max_parameters == 15e9  # type: ignore[union-attr]


# Four bits


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_four_bits_without_bitsandbytes_are_refused(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="needs bitsandbytes, which is not installed"):
        unfitted(gemma, tmp_path, "training.quantize=nf4", recipe="gemma-3-12b").fit(ROWS, QI)


def wider(model: Path, folder: Path) -> Path:
    """The tiny model with layers as wide as a block of four-bit weights, which CPUs ask for."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "query_pre_attn_scalar": 32}
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model, **sizes)).save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("recipe", ["gemma-3-12b", "gemma-3-270m-yesno"])
def test_adapters_on_four_bits_survive_save_and_load(recipe: str, gemma: Path, tmp_path: Path) -> None:
    bitsandbytes: Any = pytest.importorskip("bitsandbytes")
    folder = wider(gemma, tmp_path / "wide")
    model = unfitted(folder, tmp_path, "training.quantize=nf4", recipe=recipe).fit(ROWS, QI)
    assert any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.model.modules())
    model.save(tmp_path / "saved")
    scores = model.predict(ROWS, QI)
    assert len(np.unique(scores)) > 5
    np.testing.assert_allclose(load(tmp_path / "saved", model.workspace).predict(ROWS, QI), scores, atol=1e-5)


def test_every_epoch_has_another_order() -> None:
    loader = epoch_loader(
        40, TrainingBatches(np.ones(40, dtype=np.int64), 8, seed=1), lambda rows: {"rows": rows.tolist()}
    )
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        epochs.append([row for batch in loader for row in batch["rows"]])
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(40))
