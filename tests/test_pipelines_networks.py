"""Shapes of networks are those of the transformers classes; what follows from them is right by hand."""

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import TRANSFORMERS, load_recipe, recipe_names
from pipelines.footprint import CARDS, memory_table, n_trained, part_bytes, training_memory
from pipelines.networks import TABLE, Network, network_of, networks
from pipelines.sections import LoraSection, TrainingSection

CLASSES = {"intfloat/multilingual-e5-small": "BertConfig", "microsoft/mdeberta-v3-base": "DebertaV2Config"}


def config_class(name: str) -> Any:
    import transformers

    families = {
        "gemma-3": "Gemma3TextConfig",
        "gemma-2": "Gemma2Config",
        "Qwen2.5": "Qwen2Config",
        "Qwen3": "Qwen3Config",
    }
    found = next((value for key, value in families.items() if key in name), CLASSES.get(name, "XLMRobertaConfig"))
    return getattr(transformers, found)


def built(name: str) -> Any:
    """The network in its published shape, without memory."""
    import tomllib

    import torch
    from transformers import AutoModel

    values = tomllib.loads(TABLE.read_text(encoding="utf-8"))["networks"][name]
    values = {key: value for key, value in values.items() if key != "family"}
    if name.startswith("microsoft"):
        values |= {
            "relative_attention": True,
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 256,
        }
    with torch.device("meta"):
        return AutoModel.from_config(config_class(name)(**values))


@pytest.mark.parametrize("name", sorted(networks()))
def test_counted_parameters_are_those_of_the_transformers_class(name: str) -> None:
    import torch

    model = built(name)
    linear = sum(
        m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in n
    )
    assert networks()[name].n_linear == linear
    assert networks()[name].n_parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.01)


def test_every_recipe_with_weights_has_a_known_shape() -> None:
    names = {load_recipe(name).weights.name for name in recipe_names() if not name.startswith("lexical")}
    assert names == set(networks())


def test_figures_of_gemma_3_12b() -> None:
    network, lora = networks()["google/gemma-3-12b-pt"], load_recipe("gemma-3-12b").training.lora
    assert network.n_parameters / 1e9 == pytest.approx(11.77, abs=0.01)
    assert network.n_linear / 1e9 == pytest.approx(10.76, abs=0.01)
    assert network.n_adapter(lora) / 1e6 == pytest.approx(65.5, abs=0.1)
    assert network.trained_flop(lora) / 1e9 == pytest.approx(43.5, abs=0.1)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_adapters_are_as_large_as_those_that_peft_makes(gemma: Path, targets: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    model = AutoModel.from_pretrained(gemma)
    wanted = targets if isinstance(targets, str) else list(targets)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=wanted))
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert network_of(str(gemma)).n_adapter(LoraSection(r=4, target_modules=targets)) == trained


@pytest.mark.parametrize("kind", ["bert", "xlmr", "gemma", "gemma_multimodal"])
def test_a_local_folder_tells_its_shape(kind: str, request: pytest.FixtureRequest) -> None:
    import torch
    from transformers import AutoModel

    folder = request.getfixturevalue(kind)
    model = AutoModel.from_pretrained(folder)
    model = getattr(model, "language_model", model)
    linear = sum(
        m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in n
    )
    assert network_of(str(folder)).n_linear == linear


def test_a_folder_without_a_transformer_has_no_shape(tmp_path: Path) -> None:
    assert network_of(str(tmp_path)) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    assert network_of(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("{")
    assert network_of(str(tmp_path)) is None


def test_memory_of_a_small_network_by_hand() -> None:
    network = Network("encoder", hidden=8, inner=32, n_layers=2, queries=8, keys=8, vocabulary=100)
    recipe = load_recipe("e5-ce")
    n_linear = 2 * (4 * 64 + 2 * 256)
    assert network.n_linear == n_linear
    assert network.kept_per_layer() == 34 * 8
    memory = training_memory(recipe, network)
    assert memory.weights == 4 * (n_linear + 800) + 2 * n_linear
    assert memory.states == 12 * (n_linear + 800)
    assert memory.activations == 2 * 34 * 8 * 32 * 96


def test_gemma_3_12b_fits_one_40_gb_card_with_its_base_in_bf16_and_a_24_gb_card_in_4_bits() -> None:
    recipe = load_recipe("gemma-3-12b")
    network = networks()[recipe.weights.name]
    memory = training_memory(recipe, network)
    assert memory.weights / 1e9 == pytest.approx(2 * 11.77 + 0.26, abs=0.02)
    assert memory.smallest_card == 40
    packed = load_recipe("gemma-3-12b", ["training.quantize=nf4"])
    assert training_memory(packed, network).smallest_card == 16
    assert part_bytes(recipe, network) == 4 * network.n_adapter(recipe.training.lora)


def test_more_of_everything_takes_more_memory() -> None:
    network = networks()["FacebookAI/xlm-roberta-large"]

    def total(**changes: Any) -> float:
        recipe = load_recipe("xlm-roberta-large")
        training = TrainingSection.model_validate({**recipe.training.model_dump(), **changes})
        return training_memory(recipe.model_copy(update={"training": training}), network).total

    usual = total()
    assert total(batch_size=64) > usual > total(gradient_checkpointing=True)
    assert total(precision="fp32") > usual
    assert total(lora=LoraSection()) < usual
    assert total(gpus=2, sharding="fsdp", trim_vocabulary=False) < total(trim_vocabulary=False)
    assert total(tokens_per_batch=512) < usual
    assert total(freeze_layers=12) < usual


def test_only_used_tokens_are_trained_where_the_vocabulary_is_trimmed() -> None:
    network, training = networks()["FacebookAI/xlm-roberta-large"], load_recipe("xlm-roberta-large").training
    whole = training.model_copy(update={"trim_vocabulary": False})
    assert n_trained(network, whole) == network.n_parameters
    assert n_trained(network, training) == network.n_linear + 30_000 * 1024


def test_the_table_has_every_transformer_recipe() -> None:
    table = memory_table()
    assert list(table["recipe"]) == [name for name in recipe_names() if isinstance(load_recipe(name), TRANSFORMERS)]
    assert table["smallest_card_gb"].isin(CARDS).all()
    assert list(memory_table(["gemma-3-12b", "lexical"])["recipe"]) == ["gemma-3-12b"]


def test_the_memory_table_of_the_documentation_is_what_the_code_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    shown = {cells[0]: cells[1:] for cells in table_of(page, "smallest card")}
    table = memory_table()
    assert len(shown) > 30
    assert set(shown) <= set(table["recipe"])
    assert {name for name in table["recipe"] if not name.endswith(("-joint", "-tapt"))} == set(shown)
    for line in table.set_index("recipe").loc[list(shown)].itertuples():
        assert [float(cell.replace(",", "")) for cell in shown[line.Index]] == list(line[1:])


def table_of(page: str, column: str) -> list[list[str]]:
    """The cells of the Markdown table whose header has `column`, without the header."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and column in line)
    rows = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in rows]
