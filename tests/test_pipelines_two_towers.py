"""The bi-encoder that is trained end to end: same scores in any company, weights that survive, every text read once."""

import logging
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
    weights_of,
)

from competition.errors import CompetitionError
from competition.tasks import QI
from pipelines.backbones import build, load
from pipelines.backbones.pair_model import load_pair_model, load_tokenizer
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.two_towers import encode_text_pairs, two_towers
from pipelines.config import load_recipe
from pipelines.weights import resolve_weights

ROWS = make_rows(48, seed=1)
SHORT = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=1e-2", "training.precision=fp32"]
NETWORKS = {  # model, further settings
    "bert": ("bert", []),
    "bert-hidden": ("bert", ["hidden=8"]),
    "bert-lora": ("bert", ["training.lora.r=4"]),
    "bert-bf16": ("bert", ["training.precision=bf16"]),
    "xlmr-ema": ("xlmr", ["training.ema=0.9"]),
    "gemma-lora": ("gemma", ["training.lora.r=4"]),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def unfitted(model: Path, folder: Path, *overrides: str, rows: pd.DataFrame = ROWS) -> Any:
    space = Workspace(folder / "cache", folder / "scratch", Corpus.of([rows]), 3, threads=1)
    return build(load_recipe("e5-bi-tuned", [f"weights.name={model}", *SHORT, *overrides]), space)


@pytest.fixture(scope="module")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The fitted bi-encoder of a network, each fitted once."""
    known: dict[str, Any] = {}

    def get(network: str) -> Any:
        if network not in known:
            model, overrides = NETWORKS[network]
            unready = unfitted(request.getfixturevalue(model), tmp_path_factory.mktemp(network), *overrides)
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
    bound = 5e-3 if "bf16" in network else 1e-5
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(model.predict(shuffled, QI), scores[shuffled.index], atol=bound)
    np.testing.assert_allclose(one_by_one(model, rows, QI), scores, atol=bound)
    assert model.predict(rows[:0], QI).shape == (0,)


@every_network
def test_saved_and_loaded_weights_and_scores_are_equal_bit_for_bit(network: str, fitted: Any, tmp_path: Path) -> None:
    model = fitted(network)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", model.workspace)
    assert_equal_weights(again, model)
    np.testing.assert_array_equal(again.predict(ROWS, QI), model.predict(ROWS, QI))
    assert (tmp_path / "saved" / "adapter").is_dir() == ("lora" in network)


def test_scores_of_pairs_are_those_of_the_network_on_whole_batches(fitted: Any) -> None:
    """Scoring embeds texts apart from their pairs; training runs pairs through the network."""
    import torch

    from pipelines.backbones.scoring import to_tensors

    model = fitted("bert-hidden")
    rows = pd.concat([ROWS] * 2, ignore_index=True)
    texts = pd.DataFrame({"query": "query: " + rows["query"], "target": "passage: " + rows["target"]})
    inputs = encode_text_pairs(model.tokenizer, texts, max_length=96)
    with torch.inference_mode():
        logits = model.model(**to_tensors(inputs.batch(np.arange(len(rows)))))["logits"]
    plain = rows.assign(query_en="")
    np.testing.assert_allclose(model.predict(plain, QI), torch.softmax(logits, -1)[:, 1].numpy(), atol=1e-5)


def test_before_training_pairs_stand_in_the_order_of_their_cosines(bert: Path) -> None:
    import torch
    from transformers import AutoModel

    model = two_towers(AutoModel.from_pretrained(bert), hidden=0).eval()
    queries, targets = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(1)) + 3
    model.begin_at(queries, targets)
    with torch.inference_mode():
        logits = model.compare(queries, targets)
        features = model.head[0](model.features(queries, targets))
    cosines = torch.nn.functional.cosine_similarity(queries, targets)
    assert torch.equal((logits[:, 1] - logits[:, 0]).argsort(), cosines.argsort())
    torch.testing.assert_close(features.mean(0), torch.zeros(65), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(65), atol=1e-3, rtol=0)


def test_texts_that_are_all_the_same_have_no_scale(bert: Path) -> None:
    import torch
    from transformers import AutoModel

    model = two_towers(AutoModel.from_pretrained(bert), hidden=0).eval()
    targets = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    model.begin_at(torch.ones(50, 16), targets)
    features = model.head[0](model.features(torch.arange(16.0).expand(50, 16), targets))
    assert features[:, :16].abs().max() < 2


def test_every_distinct_text_is_embedded_once(fitted: Any) -> None:
    model = fitted("bert")
    pairs = ROWS[:6].merge(ROWS[["target"]][:9], how="cross", suffixes=("_", ""))
    pairs = pairs.assign(query_en="", id=np.arange(len(pairs)))
    seen: list[int] = []
    hook = model.model.encoder.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    scores = model.predict(pairs, QI)
    hook.remove()
    assert sum(seen) == pairs["query"].nunique() + pairs["target"].nunique() < len(pairs)
    assert len(np.unique(scores)) > len(pairs) // 2


@pytest.mark.parametrize("network", ["bert", "bert-lora"])
def test_the_same_seed_gives_the_same_weights(
    network: str, fitted: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model, overrides = NETWORKS[network]
    again = unfitted(request.getfixturevalue(model), tmp_path, *overrides).fit(ROWS, QI)
    assert_equal_weights(again, fitted(network))


def test_it_learns_which_targets_name_red(bert: Path, tmp_path: Path) -> None:
    train, fresh = make_rows(300, seed=5), make_rows(100, seed=6)
    model = unfitted(bert, tmp_path, "training.epochs=4", rows=train).fit(train, QI)
    scores = model.predict(fresh.drop(columns="label"), QI)
    assert roc_auc_score(fresh["label"].astype(int), scores) > 0.85


def test_with_lora_only_adapter_and_head_are_trained(fitted: Any, bert: Path) -> None:
    model = fitted("bert-lora")
    trained = {name for name, tensor in model.model.named_parameters() if tensor.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    assert any(name.startswith("head.") for name in trained)
    fresh = load_pair_model(model.recipe, resolve_weights(str(bert)), load_tokenizer(bert)).state_dict()
    changed = {name for name, values in weights_of(model).items() if (values != fresh[name].numpy()).any()}
    assert changed >= {"head.2.weight", "head.0.mean", "head.0.deviation"}
    assert changed - {"head.0.mean", "head.0.deviation"} <= trained
    details = model.details()
    assert details["trainable_parameters"] < details["parameters"]


@pytest.mark.parametrize(
    "switch",
    [
        "training.fgm=1.0",
        "training.awp=0.1",
        "training.r_drop=1.0",
        "training.multi_sample_dropout=4",
        "hidden=8",
        "text.language_tag=true",
    ],
)
def test_every_switch_changes_training(switch: str, fitted: Any, bert: Path, tmp_path: Path) -> None:
    scores = unfitted(bert, tmp_path, switch).fit(ROWS, QI).predict(ROWS, QI)
    assert np.abs(scores - fitted("bert").predict(ROWS, QI)).max() > 1e-4


def test_evaluation_while_it_trains_scores_the_slice_like_predict(bert: Path, tmp_path: Path) -> None:
    rows = make_rows(80, seed=4)
    settings = ["training.evaluate=2", "training.evaluate_rows=16", "training.epochs=2"]
    model = unfitted(bert, tmp_path, *settings, rows=rows).fit(rows, QI)
    judged = model._slice(rows)[1]
    best = max(found["auc"] for found in model.evaluations)
    assert len(model.evaluations) == 4
    assert roc_auc_score(judged["label"].astype(int), model.predict(judged, QI)) == pytest.approx(best)


def test_a_killed_fit_goes_on_from_its_checkpoint_to_the_same_weights(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(55, seed=9)  # 55 steps an epoch; the loss is reported at steps 50 and 100
    settings = ["training.epochs=2", "training.batch_size=1", "training.fgm=0.5"]
    whole, killed = (unfitted(bert, tmp_path / name, *settings, rows=rows) for name in ("whole", "killed"))
    caplog.set_level(logging.INFO, logger="pipelines.backbones.trainer")
    logger, interrupt = logging.getLogger("pipelines.backbones.trainer"), Interrupt(len(rows))
    logger.addHandler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(rows, QI)
    logger.removeHandler(interrupt)
    caplog.clear()
    resumed = killed.fit(rows, QI)
    steps = [record.args[0] for record in caplog.records if record.msg.startswith("step")]
    assert min(steps) > len(rows), "the first epoch is not done again"
    assert_equal_weights(resumed, whole.fit(rows, QI))


def test_a_text_is_cut_at_its_end_and_read_without_the_other(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    texts = pd.DataFrame({"query": ["red shoes", "red shoes"], "target": ["掃除機 " * 99, "pets"]})
    inputs = encode_text_pairs(tokenizer, texts, max_length=12)
    assert (len(inputs.queries), len(inputs.targets)) == (1, 2)
    batch = inputs.batch(np.array([1, 0]))
    assert batch["query_input_ids"].tolist() == [tokenizer("red shoes")["input_ids"]] * 2
    assert batch["target_attention_mask"].sum(1).tolist() == [len(tokenizer("pets")["input_ids"]), 12]
    lengths = np.array([len(tokenizer(text)["input_ids"]) for text in ("red shoes", "pets")])
    assert inputs.lengths.tolist() == [lengths[0] + 12, lengths.sum()]


def test_only_tokens_of_texts_that_a_row_has_are_in_use(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    inputs = encode_text_pairs(
        tokenizer, pd.DataFrame({"query": ["red", "blue"], "target": ["dog", "toy"]}), max_length=9
    )
    expected = {token for text in ("blue", "toy") for token in tokenizer(text)["input_ids"]}
    assert set(inputs.take(np.array([1])).token_ids().tolist()) == expected


def test_more_tokens_than_the_model_reads_are_refused(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    tokenizer.model_max_length = 50
    with pytest.raises(CompetitionError, match="set max_length to 50"):
        load_pair_model(load_recipe("e5-bi-tuned"), resolve_weights(str(bert)), tokenizer)  # type: ignore[arg-type]
