"""The cross-encoder base learner on tiny real networks: encoders and decoders, whole and behind LoRA adapters."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny import (
    Interrupt,
    assert_equal_weights,
    assert_probabilities,
    make_rows,
    odd_rows,
    one_by_one,
    save_tiny,
    weights_of,
)

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones import load, load_folds
from pipelines.backbones.checkpoints import last_checkpoint
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.readers import reader_of
from pipelines.config import load_recipe
from pipelines.weights import resolve_weights

ROWS = make_rows(48, seed=1)
SHORT = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=1e-2", "training.precision=fp32"]
LORA = "training.lora.r=4"
NETWORKS = {  # recipe, model, further settings
    "xlmr": ("xlm-roberta-base", "xlmr", []),
    "bert-mean": ("e5-ce", "bert", []),
    "bert-mean-lora": ("e5-ce", "bert", [LORA]),
    "bert-model": ("e5-ce", "bert", ["pooling=model"]),
    "gemma-lora": ("gemma-3-12b", "gemma", []),
    "gemma-multimodal-lora": ("gemma-3-12b", "gemma_multimodal", []),
    "gemma-multimodal-mean": ("e5-ce", "gemma_multimodal", []),
    "deberta": ("mdeberta-v3-base", "deberta", []),
    "gemma2-lora": ("gemma-2-9b", "gemma2", []),
    "qwen2-lora": ("qwen2-5-0-5b", "qwen2", []),
    "qwen3-lora": ("qwen3-14b", "qwen3", []),
    "gemma-yesno-lora": ("gemma-3-270m-yesno", "gemma", []),
    "gemma-multimodal-yesno-lora": ("gemma-3-12b-yesno", "gemma_multimodal", []),
    "gemma2-yesno-lora": ("gemma-2-9b-yesno", "gemma2", []),
    "qwen3-yesno-lora": ("qwen3-14b-yesno", "qwen3", []),
    "bert-mean-ema": ("e5-ce", "bert", ["training.ema=0.9"]),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


@pytest.fixture(scope="session")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "deberta", "deberta")


@pytest.fixture(scope="session")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "gemma2", "gemma2")


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "qwen2", "qwen2")


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "qwen3", "qwen3")


def workspace(folder: Path, *, seed: int = 3) -> Workspace:
    return Workspace(folder / "cache", folder / "scratch", Corpus.of([ROWS]), seed, threads=1)


def unfitted(recipe: str, model: Path, space: Workspace, *overrides: str) -> CrossEncoder:
    settings = [f"weights.name={model}", *SHORT, *overrides]
    return CrossEncoder(load_recipe(recipe, settings), space)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The fitted cross-encoder of a network, each fitted once."""
    known: dict[str, CrossEncoder] = {}

    def get(network: str) -> CrossEncoder:
        if network not in known:
            recipe, model, overrides = NETWORKS[network]
            space = workspace(tmp_path_factory.mktemp(network))
            unready = unfitted(recipe, request.getfixturevalue(model), space, *overrides)
            known[network] = unready.fit(ROWS, QI)
        return known[network]

    return get


@every_network
def test_a_row_scores_the_same_alone_and_in_any_order(network: str, fitted: Any) -> None:
    model = fitted(network)
    rows = pd.concat([ROWS[:10], odd_rows()], ignore_index=True).drop(columns="label")
    scores = model.predict(rows, QI)
    assert_probabilities(scores, rows)
    assert len(np.unique(scores)) > 5
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(model.predict(shuffled, QI), scores[shuffled.index], atol=1e-5)
    np.testing.assert_allclose(one_by_one(model, rows, QI), scores, atol=1e-5)
    assert model.predict(rows[:0], QI).shape == (0,)


@every_network
def test_saved_and_loaded_weights_and_scores_are_equal_bit_for_bit(network: str, fitted: Any, tmp_path: Path) -> None:
    model = fitted(network)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path))
    assert isinstance(again, CrossEncoder)
    assert_equal_weights(again, model)
    np.testing.assert_array_equal(again.predict(ROWS, QI), model.predict(ROWS, QI))
    assert (tmp_path / "saved" / "adapter").is_dir() == ("lora" in network)
    assert not list((tmp_path / "saved").rglob("*.bin")), "no pickles"


@pytest.mark.parametrize("network", ["xlmr", "bert-mean-lora", "gemma-lora", "gemma-yesno-lora"])
def test_the_same_seed_gives_the_same_weights(
    network: str, fitted: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe, model, overrides = NETWORKS[network]
    again = unfitted(recipe, request.getfixturevalue(model), workspace(tmp_path), *overrides).fit(ROWS, QI)
    assert_equal_weights(again, fitted(network))


def test_it_learns_which_targets_name_red(bert: Path, tmp_path: Path) -> None:
    train, fresh = make_rows(300, seed=5), make_rows(100, seed=6)
    model = unfitted("e5-ce", bert, workspace(tmp_path), "training.epochs=4").fit(train, QI)
    scores = model.predict(fresh.drop(columns="label"), QI)
    assert roc_auc_score(fresh["label"].astype(int), scores) > 0.85


def test_with_lora_only_adapter_and_head_are_trained(fitted: Any, gemma: Path) -> None:
    model = fitted("gemma-lora")
    trained = {name for name, tensor in model.model.named_parameters() if tensor.requires_grad}
    assert all("lora_" in name or "score" in name for name in trained)
    assert any("score" in name for name in trained)
    assert model.details()["trainable_parameters"] < model.details()["parameters"]
    recipe = model.recipe
    fresh = load_pair_model(recipe, resolve_weights(str(gemma)), load_tokenizer(gemma)).state_dict()
    changed = {name for name, values in weights_of(model).items() if (values != fresh[name].numpy()).any()}
    assert changed
    assert all("lora_" in name or "score" in name for name in changed)


@pytest.mark.parametrize("network", ["gemma-lora", "bert-mean-lora", "gemma-yesno-lora"])
def test_in_half_precision_the_frozen_base_is_half_and_what_is_trained_is_not(
    network: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe, folder, overrides = NETWORKS[network]
    half = unfitted(
        recipe, request.getfixturevalue(folder), workspace(tmp_path), *overrides, "training.precision=bf16"
    ).fit(ROWS, QI)
    kinds = {(p.requires_grad, str(p.dtype)) for n, p in half.model.named_parameters() if "original_module" not in n}
    assert kinds == {(True, "torch.float32"), (False, "torch.bfloat16")}
    half.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path))
    assert_equal_weights(again, half)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.predict(ROWS, QI), half.predict(ROWS, QI))


@pytest.mark.parametrize("network", ["gemma-lora", "gemma-yesno-lora", "bert-mean-lora", "bert-mean"])
def test_fold_models_share_one_base_and_score_as_each_alone(
    network: str, fitted: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe, folder, overrides = NETWORKS[network]
    one = fitted(network)
    other = unfitted(recipe, request.getfixturevalue(folder), workspace(tmp_path, seed=8), *overrides).fit(ROWS, QI)
    for i, model in enumerate((one, other)):
        model.save(tmp_path / f"fold-{i}")
    models: list[Any] = list(load_folds([tmp_path / "fold-0", tmp_path / "fold-1"], workspace(tmp_path)))
    scores = [model.predict(ROWS, QI) for model in models]
    np.testing.assert_array_equal(models[0].predict(ROWS, QI), scores[0])  # whichever was asked last
    bases = [id(model.model.get_input_embeddings().weight) for model in models]
    np.testing.assert_array_equal(scores[0], one.predict(ROWS, QI))
    np.testing.assert_array_equal(scores[1], other.predict(ROWS, QI))
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    assert (bases[0] == bases[1]) == ("lora" in network)


@pytest.mark.parametrize("network", ["gemma-lora", "gemma-yesno-lora", "qwen3-lora"])
def test_merged_and_unmerged_adapters_agree(network: str, fitted: Any, tmp_path: Path) -> None:
    model = fitted(network)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path))
    merged = replace(again, model=again.model.merge_and_unload())  # type: ignore[attr-defined, type-var]
    assert not [name for name, _ in merged.model.named_parameters() if "lora_" in name]
    np.testing.assert_allclose(merged.predict(ROWS, QI), model.predict(ROWS, QI), atol=1e-5)


def test_a_multimodal_layout_gives_its_language_model_alone(fitted: Any, gemma_multimodal: Path) -> None:
    from safetensors.numpy import load_file

    model = fitted("gemma-multimodal-lora")
    assert type(model.model.base_model.model).__name__ == "Gemma3TextForSequenceClassification"
    assert not [name for name in weights_of(model) if "vision" in name]
    stored = load_file(gemma_multimodal / "model.safetensors")
    loaded = weights_of(model)
    for name in ("embed_tokens.weight", "layers.1.input_layernorm.weight", "norm.weight"):
        values = loaded[f"base_model.model.model.{name}"]
        np.testing.assert_array_equal(values, stored[f"language_model.model.{name}"])


def test_without_a_padding_token_the_end_token_pads(gemma: Path, fitted: Any) -> None:
    tokenizer = load_tokenizer(gemma)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert fitted("gemma-lora").model.config.pad_token_id == tokenizer.pad_token_id


def test_each_distinct_pair_is_scored_once(fitted: Any) -> None:
    model = fitted("bert-mean")
    seen: list[int] = []
    hook = model.model.register_forward_hook(lambda module, args, output: seen.append(len(output["logits"])))
    repeated = pd.concat([ROWS[:5]] * 4, ignore_index=True)
    scores = model.predict(repeated, QI)
    hook.remove()
    assert sum(seen) == 5
    assert len({tuple(part) for part in scores.reshape(4, 5).tolist()}) == 1


@pytest.mark.parametrize(
    ("recipe", "model"), [("xlm-roberta-base", "xlmr"), ("e5-ce", "bert"), ("gemma-3-12b", "gemma")]
)
def test_weights_that_lack_more_than_the_head_are_refused(
    recipe: str, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(request.getfixturevalue(model), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layer" in name and "norm" in name.lower())
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CompetitionError, match="would be random"):
        unfitted(recipe, folder, workspace(tmp_path)).fit(ROWS, QI)


def test_more_tokens_than_the_model_reads_are_refused(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    tokenizer.model_max_length = 50
    with pytest.raises(CompetitionError, match="set max_length to 50"):
        load_pair_model(load_recipe("e5-ce"), resolve_weights(str(bert)), tokenizer)  # type: ignore[arg-type]


def test_the_longer_side_is_cut_and_the_query_kept(bert: Path, tmp_path: Path) -> None:
    model = unfitted("e5-ce", bert, workspace(tmp_path), "max_length=24", "target_prefix=")
    tokenizer = load_tokenizer(bert)
    reader = reader_of(model.recipe, tokenizer)
    rows = pd.DataFrame({"query": ["red shoes"], "target": ["掃除機 " * 99]})
    inputs = reader.inputs(reader.texts(rows, QI))
    query = tokenizer("query: red shoes")["input_ids"]
    assert inputs.lengths.tolist() == [24]
    assert inputs.batch(np.array([0]))["input_ids"][0, : len(query)].tolist() == query


# A killed fit


@pytest.mark.parametrize("network", ["bert-mean", "bert-mean-lora", "bert-mean-ema", "xlmr", "gemma-lora"])
def test_a_killed_fit_goes_on_from_its_checkpoint_to_the_same_weights(
    network: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, model, overrides = NETWORKS[network]
    rows = make_rows(55, seed=9)  # 55 steps an epoch; the loss is reported at steps 50 and 100
    overrides = [*overrides, "training.epochs=2", "training.batch_size=1", "training.gradient_checkpointing=false"]
    whole, killed = (
        unfitted(recipe, request.getfixturevalue(model), workspace(tmp_path / name), *overrides)
        for name in ("whole", "killed")
    )
    caplog.set_level(logging.INFO, logger="pipelines.backbones.trainer")
    logger, interrupt = logging.getLogger("pipelines.backbones.trainer"), Interrupt(len(rows))
    logger.addHandler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(rows, QI)
    logger.removeHandler(interrupt)
    checkpoints = tmp_path / "killed" / "scratch" / "checkpoints"
    assert last_checkpoint(checkpoints) == str(checkpoints / f"checkpoint-{len(rows)}")
    caplog.clear()
    resumed = killed.fit(rows, QI)
    steps = [record.args[0] for record in caplog.records if record.msg.startswith("step")]
    assert steps, "the loss is logged"
    assert min(steps) > len(rows), "the first epoch is not done again"
    assert_equal_weights(resumed, whole.fit(rows, QI))


# Settings


def test_half_precision_scores_survive_save_and_load(bert: Path, tmp_path: Path) -> None:
    model = unfitted("e5-ce", bert, workspace(tmp_path), "training.precision=bf16").fit(ROWS, QI)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", workspace(tmp_path))
    np.testing.assert_array_equal(again.predict(ROWS, QI), model.predict(ROWS, QI))
    full, full_again = (replace(one, recipe=load_recipe("e5-ce", SHORT)) for one in (model, again))
    np.testing.assert_array_equal(full_again.predict(ROWS, QI), full.predict(ROWS, QI))
    np.testing.assert_allclose(full.predict(ROWS, QI), model.predict(ROWS, QI), atol=0.02)


@pytest.mark.parametrize("network", ["bert-mean", "gemma-lora"])
def test_checkpointing_of_activations_changes_no_weight(
    network: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe, model, overrides = NETWORKS[network]
    folder = request.getfixturevalue(model)
    settings = [f"training.gradient_checkpointing={switch}" for switch in ("true", "false")]
    one, other = (
        unfitted(recipe, folder, workspace(tmp_path / str(i)), *overrides, setting).fit(ROWS, QI)
        for i, setting in enumerate(settings)
    )
    np.testing.assert_allclose(one.predict(ROWS, QI), other.predict(ROWS, QI), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_accumulated_batches_train_like_one_large_batch(pooling: str, bert: Path, tmp_path: Path) -> None:
    """Without dropout, which draws differently: 4 x 4 rows give the gradients of 16."""
    import json
    import shutil

    folder = shutil.copytree(bert, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    rows, scores = make_rows(16, seed=8), []
    for batch, accumulate in ((16, 1), (4, 4)):
        sizes = [f"training.batch_size={batch}", f"training.accumulate={accumulate}", f"pooling={pooling}"]
        model = unfitted("e5-ce", folder, workspace(tmp_path / str(batch)), *sizes, "training.warmup=0")
        scores.append(model.fit(rows, QI).predict(rows, QI))
    # The head of the mean-pooled model has a dropout of its own.
    np.testing.assert_allclose(scores[0], scores[1], atol=0.05 if pooling == "mean" else 1e-4)


def test_accumulated_batches_of_a_decoder_train_like_one_large_batch(gemma: Path, tmp_path: Path) -> None:
    """The Trainer once left gradients of decoders as many times too large as batches were accumulated."""
    rows, scores = make_rows(16, seed=8), []
    for batch, accumulate in ((16, 1), (4, 4)):
        sizes = [f"training.batch_size={batch}", f"training.accumulate={accumulate}", "training.lora.dropout=0"]
        model = unfitted("gemma-3-12b", gemma, workspace(tmp_path / str(batch)), *sizes, "training.epochs=8")
        scores.append(model.fit(rows, QI).predict(rows, QI))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_a_limit_of_rows_takes_that_many(bert: Path, tmp_path: Path) -> None:
    model = unfitted("e5-ce", bert, workspace(tmp_path), "training.max_rows=10")
    chosen = model._subsample(ROWS)
    assert len(chosen) == 10
    assert set(chosen["id"]) <= set(ROWS["id"])
    pd.testing.assert_frame_equal(chosen, model._subsample(ROWS))


def test_fitting_prints_nothing_to_stdout(bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unfitted("e5-ce", bert, workspace(tmp_path)).fit(ROWS, QI)
    assert capfd.readouterr().out == ""
