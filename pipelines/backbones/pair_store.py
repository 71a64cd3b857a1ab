"""How fitted networks are kept: as safetensors, with adapters and head apart from the base; and taken up again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault
from pipelines.backbones.pair_model import (
    auto_class_of,
    base_network,
    has_own_head,
    load_pair_model,
    loading,
    with_head,
    with_row_heads,
)
from pipelines.backbones.protocol import DETAILS, TRAIN_AGAIN
from pipelines.backbones.sharding import below, is_first_process, whole_weights
from pipelines.backbones.two_towers import N_LABELS
from pipelines.config import TransformerRecipe, TwoTowersRecipe
from pipelines.weights import Weights, load_checked, named_weights, resolve_weights

ADAPTER, MODEL, HEAD = "adapter", "model", "head.safetensors"
ENCODER = "encoder"  # what masked-language modelling leaves: no head
LORA_KEYS = ("task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save")


def save_pair_model(recipe: TransformerRecipe, model: Any, folder: Path) -> None:
    """Write the model as safetensors: adapter (if any) and head, or all of it.

    Of several processes the first one writes; where the network is shared out among them, all must call this.
    """
    from safetensors.torch import save_file

    weights = whole_weights(model)
    if not is_first_process():
        return
    headed = has_own_head(recipe)
    encoder = model.encoder if headed else model
    kind = MODEL if recipe.training.lora is None else ADAPTER
    encoder.save_pretrained(folder / kind, state_dict=below(weights, "encoder." if headed else ""))
    if headed:
        head = below(weights, "head.") or model.head.state_dict()
        save_file({name: tensor.contiguous() for name, tensor in head.items()}, folder / HEAD)


def restore_folds(recipe: TransformerRecipe, folders: Sequence[Path], tokenizer: Any) -> Iterator[Any]:
    """The models that `save_pair_model` wrote to several folders, one after the other.

    With adapters the base weights are resolved again by name, and loaded once: all models are one that wears one fold's
    adapter at a time, the last one that was given; `wear_adapter` changes it.
    """
    encoder = None
    for i, folder in enumerate(folders):
        if encoder is None or recipe.training.lora is None:
            encoder = _restore_encoder(recipe, folder, tokenizer, trainable=False)
        else:
            encoder.add_adapter(adapter_name(i), saved_lora(folder / ADAPTER))
            encoder.load_adapter(folder / ADAPTER, adapter_name=adapter_name(i))
            encoder.set_adapter(adapter_name(i))
        yield (_restore_head(recipe, encoder, folder) if has_own_head(recipe) else encoder).eval()


def adapter_name(place: int) -> str:
    """What peft calls the adapter of the model at a place among those of `restore_folds`."""
    return f"model-{place}" if place else "default"


def wear_adapter(recipe: TransformerRecipe, model: Any, name: str) -> None:
    """Let a model of `restore_folds` wear its own adapter, whichever was worn last; merged ones have none."""
    from peft import PeftModel

    encoder = model.encoder if has_own_head(recipe) else model
    if isinstance(encoder, PeftModel):
        encoder.set_adapter(name)


def continue_pair_model(recipe: TransformerRecipe, folder: Path, tokenizer: Any, *, n_heads: int = 1) -> Any:
    """The recipe's model on the weights that pre-training left in `folder`, ready to be trained further.

    Weights of supervised pre-training bring their adapter and head along; those of masked-language modelling are an
    encoder, which gets a new head.

    Raises
    ------
    CompetitionError
        They are of another base model, pooling or adapter shape than the recipe's.
    """
    if (folder / ENCODER).is_dir():
        stored = _stored(folder / ENCODER, trust_remote_code=recipe.weights.trust_remote_code)
        return load_pair_model(recipe, stored, tokenizer, n_heads=n_heads)
    saved = json.loads((folder / DETAILS).read_text(encoding="utf-8"))["recipe"]
    _refuse_other_network(recipe, saved)
    encoder = _restore_encoder(recipe, folder, tokenizer, trainable=True)
    if not has_own_head(recipe):
        return encoder
    model = _restore_head(recipe, encoder, folder)
    return with_head(recipe, encoder, n_heads=n_heads) if n_heads > 1 else model


def pretrained_weights(weights: Weights, init: Path | None) -> Weights:
    """The whole weights that training begins with: those of pre-training where there are any."""
    if init is None:
        return weights
    folder = init / (ENCODER if (init / ENCODER).is_dir() else MODEL)
    return _stored(folder, trust_remote_code=weights.trusted)


def has_head(init: Path | None) -> bool:
    """Whether the weights that training begins with bring a head along."""
    return init is not None and (init / HEAD).is_file()


def _refuse_other_network(recipe: TransformerRecipe, saved: Mapping[str, Any]) -> None:
    wanted = recipe.model_dump(mode="json")
    shape = [(key, wanted.get(key), saved.get(key)) for key in ("kind", "weights", "pooling", "hidden")]
    shape += [("training.lora", *(_lora_shape(one["training"]["lora"]) for one in (wanted, saved)))]
    faults = [
        Fault(key, f"{ours!r}", f"{theirs!r}, as it was pretrained") for key, ours, theirs in shape if ours != theirs
    ]
    if faults:
        raise CompetitionError(
            "the pretrained weights are of another network than the recipe's",
            faults=faults,
            advice="pretrain with the same recipe (the learning rate and the like may differ)",
        )


def _lora_shape(lora: Mapping[str, Any] | None) -> Any:
    return lora and {key: lora[key] for key in ("r", "alpha", "target_modules")}


def _restore_encoder(recipe: TransformerRecipe, folder: Path, tokenizer: Any, *, trainable: bool) -> Any:
    if (folder / ADAPTER).is_dir():
        from peft import PeftModel

        config = saved_lora(folder / ADAPTER)
        base = base_network(recipe, named_weights(recipe.weights), tokenizer)
        return PeftModel.from_pretrained(base, folder / ADAPTER, config=config, is_trainable=trainable)
    stored = _stored(folder / MODEL, trust_remote_code=recipe.weights.trust_remote_code)
    encoder = load_checked(auto_class_of(recipe), stored, head_prefixes=(), **loading(recipe.training))
    return with_row_heads(recipe, encoder)


def saved_lora(folder: Path) -> Any:
    """The settings of saved adapters: those that we set, and no others.

    peft knows kinds and settings that import modules or load a tokenizer with code of its own, all named by the file.

    Raises
    ------
    CompetitionError
        There are no such settings, or no safetensors beside them.
    """
    from peft import LoraConfig

    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise CompetitionError(
            "an adapter has no weights", faults=[Fault(str(weights), "no such file")], advice=TRAIN_AGAIN
        )
    try:
        values = json.loads(file.read_bytes())
        return LoraConfig(**{key: values[key] for key in LORA_KEYS if key in values}, inference_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise CompetitionError(
            "an adapter cannot be read", faults=[Fault(str(file), str(error))], advice=TRAIN_AGAIN
        ) from error


def _stored(folder: Path, *, trust_remote_code: bool) -> Weights:
    return resolve_weights(str(folder), source="folder", trust_remote_code=trust_remote_code)


def _restore_head(recipe: TransformerRecipe, encoder: Any, folder: Path) -> Any:
    from safetensors.torch import load_file

    state = load_file(folder / HEAD)
    n_heads = 1 if isinstance(recipe, TwoTowersRecipe) else len(state["bias"]) // N_LABELS
    model = with_head(recipe, encoder, n_heads=n_heads)
    model.head.load_state_dict(state)
    return model
