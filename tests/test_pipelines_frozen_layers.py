"""Frozen lower layers change the work, not the result: weights and scores are those of ordinary training."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import Interrupt, assert_probabilities, make_rows, odd_rows, one_by_one

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones import build, load
from pipelines.backbones.pair_model import load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import load_recipe
from pipelines.weights import resolve_weights

ROWS = make_rows(48, seed=1)
SHORT = ["training.epochs=2", "training.batch_size=8", "training.learning_rate=1e-3", "training.precision=fp32"]
NETWORKS = {  # recipe, model, further settings
    "bert-mean": ("e5-ce", "bert", []),
    "bert-model": ("e5-ce", "bert", ["pooling=model"]),
    "xlmr-model": ("xlm-roberta-base", "xlmr", []),
    "bert-towers": ("e5-bi-tuned", "bert", []),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def unfitted(recipe: str, model: Path, folder: Path, *overrides: str) -> Any:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), 3, threads=1)
    return build(load_recipe(recipe, [f"weights.name={model}", *SHORT, *overrides]), space)


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.model.state_dict().items()}


def without_dropout(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The network with its lower layer frozen, each fitted once."""
    known: dict[str, Any] = {}

    def get(network: str) -> Any:
        if network not in known:
            recipe, model, overrides = NETWORKS[network]
            space = tmp_path_factory.mktemp(network)
            unready = unfitted(recipe, request.getfixturevalue(model), space, *overrides, "training.freeze_layers=1")
            known[network] = unready.fit(ROWS, QI)
        return known[network]

    return get


@every_network
def test_weights_are_those_of_ordinary_training_with_the_same_parameters_frozen(
    network: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.backbones import frozen_layers, pair_model, two_towers

    for module in (pair_model, two_towers):
        monkeypatch.setattr(module, "HEAD_DROPOUT", 0.0)
    recipe, name, overrides = NETWORKS[network]
    folder = without_dropout(request.getfixturevalue(name), tmp_path / "model")
    frozen = unfitted(recipe, folder, tmp_path / "frozen", *overrides, "training.freeze_layers=1").fit(ROWS, QI)

    load_whole = pair_model.load_pair_model

    def load_frozen(*args: Any, **settings: Any) -> Any:
        model = load_whole(*args, **settings)
        bare = frozen_layers._bare(model)
        for part in (bare.embeddings, bare.encoder.layer[0]):
            part.requires_grad_(False)
        return model

    monkeypatch.setattr(pair_model, "load_pair_model", load_frozen)
    ordinary = unfitted(recipe, folder, tmp_path / "ordinary", *overrides).fit(ROWS, QI)
    one, other = weights_of(frozen), weights_of(ordinary)
    assert one.keys() == other.keys()
    start = load_whole(frozen.recipe, resolve_weights(str(folder)), load_tokenizer(folder)).state_dict()
    moved = [name for name in one if np.abs(one[name] - start[name].numpy()).max() > 1e-4 and "head" not in name]
    assert moved, "the layers above are trained"
    assert all("layer.1." in name or "pooler" in name or "classifier" in name for name in moved)
    for name in one:
        if not name.endswith("key.bias"):  # its gradient is zero but for rounding, which Adam blows up
            np.testing.assert_allclose(one[name], other[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(frozen.predict(ROWS, QI), ordinary.predict(ROWS, QI), atol=1e-5)


@every_network
def test_frozen_weights_stay_bit_for_bit(network: str, fitted: Any, request: pytest.FixtureRequest) -> None:
    from safetensors.numpy import load_file

    model = fitted(network)
    stored = load_file(request.getfixturevalue(NETWORKS[network][1]) / "model.safetensors")
    lower = {name for name in stored if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert len(lower) > 15
    ours = weights_of(model)
    for name in lower:
        found = [values for own, values in ours.items() if own.endswith(name)]
        assert len(found) == 1
        np.testing.assert_array_equal(found[0], stored[name])
    assert not any("layer.2" in name for name in ours)
    trained = [name for name, p in model.model.named_parameters() if p.requires_grad]
    assert trained
    assert not any("embeddings" in name or "layer.0." in name for name in trained)


@every_network
def test_scores_from_states_are_those_of_the_saved_model_on_tokens(network: str, fitted: Any, tmp_path: Path) -> None:
    model = fitted(network)
    rows = pd.concat([ROWS[:20], odd_rows()], ignore_index=True).drop(columns="label")
    scores = model.predict(rows, QI)
    assert_probabilities(scores, rows)
    assert len(np.unique(scores)) > 5
    np.testing.assert_allclose(one_by_one(model, rows, QI), scores, atol=1e-5)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", Workspace(tmp_path / "other", tmp_path, model.workspace.corpus, 3, threads=1))
    for (name, ours), theirs in zip(weights_of(model).items(), weights_of(again).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    np.testing.assert_allclose(again.predict(rows, QI), scores, atol=1e-5)
    assert not (tmp_path / "other").exists(), "a loaded model reads tokens"


def count_lower(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on the rows that went through the embeddings, call by call."""
    from transformers.models.bert.modeling_bert import BertEmbeddings

    seen: list[int] = []
    forward = BertEmbeddings.forward

    def counted(self: Any, input_ids: Any, **kwargs: Any) -> Any:
        seen.append(len(input_ids))
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(BertEmbeddings, "forward", counted)
    return seen


def test_states_are_computed_once_for_all_epochs_and_folds(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pipelines.backbones.frozen_layers")
    seen = count_lower(monkeypatch)
    unready = unfitted("e5-ce", bert, tmp_path, "training.freeze_layers=1")
    for fold in (0, 1):
        held_out = np.arange(len(ROWS)) % 2 == fold
        space = Workspace(tmp_path / "cache", tmp_path / f"scratch-{fold}", unready.workspace.corpus, 3, threads=1)
        model = build(unready.recipe, space).fit(ROWS[~held_out], QI)
        model.predict(ROWS[held_out], QI)
    distinct = ROWS[["query", "query_en", "target"]].drop_duplicates()
    assert sum(seen) == len(distinct)
    assert caplog.text.count("GB in") == 1
    new = make_rows(5, seed=77).assign(query="never seen before", query_en="")
    model.predict(new, QI)
    assert sum(seen) == len(distinct) + new["target"].nunique()
    assert len(list((tmp_path / "cache" / "states").glob("*/*.npy"))) == 1


@pytest.mark.parametrize("change", ["training.freeze_layers=2", "training.precision=bf16", "max_length=16", "weights"])
def test_states_of_another_making_are_not_taken(
    change: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["training.freeze_layers=1", "training.epochs=1"]
    unfitted("e5-ce", bert, tmp_path, *settings).fit(ROWS, QI)
    if change == "weights":
        bert = with_another_bias(bert, tmp_path / "model")
    else:
        settings.append(change)
    seen = count_lower(monkeypatch)
    unready = unfitted("e5-ce", bert, tmp_path, *settings)
    build(unready.recipe, replace(unready.workspace, scratch=tmp_path / "another")).fit(ROWS, QI)
    assert sum(seen) > 0


def with_another_bias(model: Path, folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"] += 0.1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_killed_fit_goes_on_from_its_checkpoint_to_the_same_weights(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(55, seed=9)  # 55 steps an epoch; the loss is reported at steps 50 and 100
    settings = ["training.freeze_layers=1", "training.batch_size=1", "training.ema=0.9"]
    whole, killed = (unfitted("e5-ce", bert, tmp_path / name, *settings) for name in ("whole", "killed"))
    caplog.set_level(logging.INFO, logger="pipelines.backbones.trainer")
    logger, interrupt = logging.getLogger("pipelines.backbones.trainer"), Interrupt(len(rows))
    logger.addHandler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(rows, QI)
    logger.removeHandler(interrupt)
    kept = checkpoint_names(tmp_path / "killed" / "scratch" / "checkpoints" / f"checkpoint-{len(rows)}")
    assert not [name for name in kept if "embeddings" in name], "only what is trained is kept"
    caplog.clear()
    resumed = killed.fit(rows, QI)
    steps = [record.args[0] for record in caplog.records if record.msg.startswith("step")]
    assert min(steps) > len(rows), "the first epoch is not done again"
    for name, values in weights_of(whole.fit(rows, QI)).items():
        np.testing.assert_array_equal(weights_of(resumed)[name], values, err_msg=name)


@pytest.mark.parametrize(
    "switch",
    ["training.evaluate=2", "training.r_drop=1.0", "training.awp=0.1", "training.gradient_checkpointing=true"],
)
def test_other_switches_work_on_states(switch: str, fitted: Any, bert: Path, tmp_path: Path) -> None:
    settings = ["training.freeze_layers=1", "training.evaluate_rows=10", switch]
    model = unfitted("e5-ce", bert, tmp_path, *settings).fit(ROWS, QI)
    assert bool(model.evaluations) == ("evaluate" in switch)
    changed = np.abs(model.predict(ROWS, QI) - fitted("bert-mean").predict(ROWS, QI)).max() > 1e-4
    assert changed == ("checkpointing" not in switch)


def checkpoint_names(folder: Path) -> list[str]:
    from safetensors.numpy import load_file

    return list(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("recipe", "model", "overrides", "message"),
    [
        ("e5-ce", "bert", ["training.freeze_layers=3"], "the model has 2 layers"),
        ("e5-ce", "gemma", ["training.freeze_layers=1"], "not for gemma3_text"),
        ("e5-ce", "bert", ["training.freeze_layers=1", "training.lora.r=4"], "exclude each other"),
        ("e5-ce", "bert", ["training.freeze_layers=1", "training.fgm=1"], "exclude each other"),
        ("gemma-3-270m-yesno", "gemma", ["training.freeze_layers=1"], "exclude each other"),
        ("e5-ce", "bert", ["training.freeze_layers=-1"], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_frozen_is_refused(
    recipe: str, model: str, overrides: list[str], message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(CompetitionError, match=message):
        unfitted(recipe, request.getfixturevalue(model), tmp_path, *overrides).fit(ROWS, QI)
    assert not (tmp_path / "cache").exists()
