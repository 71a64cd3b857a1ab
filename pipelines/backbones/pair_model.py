"""The network that scores a pair: a transformer with a head for two labels, or a language model that answers."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError
from pipelines import trust
from pipelines.backbones.answers import answer_labels, with_answer_head
from pipelines.backbones.packing import (
    ROW_STARTS,
    VARLEN,
    real_places,
    refuse_unpackable,
    register_varlen,
    with_packed_head,
)
from pipelines.backbones.two_towers import HEAD_DROPOUT, N_LABELS, two_towers
from pipelines.config import CausalLoraRecipe, CrossEncoderRecipe, TransformerRecipe, TwoTowersRecipe
from pipelines.sections import TrainingSection
from pipelines.weights import Weights, load_checked

HEADS = ["score", "classifier", "pooler", "lm_head"]


def load_tokenizer(folder: Path, *, trusted: bool = False) -> Any:
    """The tokenizer of a local folder, with a padding token: without one, rows of a batch could not be padded."""
    tokenizer = trust.read_tokenizer(folder, trusted=trusted)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CompetitionError(
                f"the tokenizer of {folder} has neither a padding nor an end token",
                advice="set pad_token in its tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_pair_model(recipe: TransformerRecipe, weights: Weights, tokenizer: Any, *, n_heads: int = 1) -> Any:
    """The recipe's model on pretrained weights, with a new head per task (none for a model that answers)."""
    if tokenizer.model_max_length < recipe.max_length:
        raise CompetitionError(
            f"max_length {recipe.max_length} is more than {weights.name} can read",
            advice=f"set max_length to {tokenizer.model_max_length} or less",
        )
    model = base_network(recipe, weights, tokenizer)
    if isinstance(recipe, CausalLoraRecipe):
        return with_lora(model, recipe.training, task_type="CAUSAL_LM")
    if not has_own_head(recipe):
        return with_lora(model, recipe.training, task_type="SEQ_CLS")
    return with_head(recipe, with_lora(model, recipe.training, task_type="FEATURE_EXTRACTION"), n_heads=n_heads)


def base_network(recipe: TransformerRecipe, weights: Weights, tokenizer: Any) -> Any:
    """The network that adapters are put on: the encoder alone, or with the head of its own class."""
    auto_class = auto_class_of(recipe)
    refuse_larger(auto_class, weights, recipe.training.max_parameters)
    if recipe.training.attention == VARLEN:
        refuse_unpackable(read_config(weights), name=weights.name, max_length=recipe.max_length)
    settings = loading(recipe.training)
    if isinstance(recipe, CausalLoraRecipe):
        model = text_part(load_checked(auto_class, weights, head_prefixes=(), **settings))
        if recipe.training.lora is None:  # the whole model is trained and kept, its output layer too
            return model
        return with_answer_head(model, answer_labels(recipe, tokenizer))
    if has_own_head(recipe):
        return text_part(load_checked(auto_class, weights, **settings))
    model = text_part(load_checked(auto_class, weights, num_labels=N_LABELS, **settings))
    model.config.pad_token_id = tokenizer.pad_token_id
    return with_row_heads(recipe, with_fp32_head(model))


def with_fp32_head(model: Any) -> Any:
    """The classifier with its head in fp32: it is trained, and small steps would be lost in bf16."""
    for name in HEADS:
        if hasattr(model, name):
            getattr(model, name).float()
    return model


def with_row_heads(recipe: TransformerRecipe, model: Any) -> Any:
    """The model, whose own head classifies every row of a packed batch where the recipe packs rows."""
    packed = recipe.training.attention == VARLEN and isinstance(recipe, CrossEncoderRecipe)
    return with_packed_head(model) if packed and not has_own_head(recipe) else model


def auto_class_of(recipe: TransformerRecipe) -> Any:
    """The transformers class that loads the recipe's network."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    if isinstance(recipe, CausalLoraRecipe):
        return AutoModelForCausalLM
    return AutoModel if has_own_head(recipe) else AutoModelForSequenceClassification


def read_config(weights: Weights) -> Any:
    """The configuration of the network with these weights."""
    return trust.read_config(weights.folder, trusted=weights.trusted)


def refuse_larger(auto_class: Any, weights: Weights, limit: float) -> None:
    """Count the parameters of the text network from its configuration alone, before anything is loaded.

    Raises
    ------
    CompetitionError
        There are more than `limit`.
    """
    import torch

    config = read_config(weights).get_text_config()
    with torch.device("meta"), trust.refusing_code(weights.folder):
        network = auto_class.from_config(config, trust_remote_code=weights.trusted)
    n_parameters = sum(p.numel() for p in network.parameters())
    if n_parameters > limit:
        raise CompetitionError(
            f"{weights.name} has {n_parameters:,} parameters, the limit is {int(limit):,}",
            advice="take a smaller model, or raise training.max_parameters if your competition allows it",
        )


def loading(training: TrainingSection) -> dict[str, Any]:
    """What `from_pretrained` needs for the recipe's attention, number format and quantisation.

    Frozen weights under adapters are loaded in bf16 where the recipe computes in bf16 anyway: half the memory.
    """
    import torch

    attention = training.attention
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "eager"
    if attention == VARLEN:
        register_varlen()
    half = training.lora is not None and training.half
    dtype = torch.bfloat16 if half else torch.float32
    return {"attn_implementation": attention, "dtype": dtype, **quantisation(training)}


def quantisation(training: TrainingSection) -> dict[str, Any]:
    """What `from_pretrained` needs for weights in 4 bits; nothing without `training.quantize`.

    Raises
    ------
    CompetitionError
        bitsandbytes is not installed.
    """
    if training.quantize is None:
        return {}
    if find_spec("bitsandbytes") is None:
        raise CompetitionError(
            f'training.quantize = "{training.quantize}" needs bitsandbytes, which is not installed',
            advice="pip install 'relstack[quantize]', or leave training.quantize out",
        )
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=training.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if training.half else torch.float32,
        llm_int8_skip_modules=HEADS,  # new heads are trained, so they must stay whole
    )
    return {"quantization_config": config}


def text_part(model: Any) -> Any:
    """The language model (and its head) of a multimodal model; any other model as it is.

    Gemma-3 4B and larger are published with an image tower. Adapters would go there too, and `token_type_ids` of 1
    mean an image there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = model.config.get_text_config()
    if config is model.config:
        return model
    classes = {"score": AutoModelForSequenceClassification, "lm_head": AutoModelForCausalLM}
    head = next((name for name in classes if hasattr(model, name)), None)
    if head is None:
        return model.language_model
    with torch.device("meta"):  # no memory and no time for weights that are replaced
        text = classes[head].from_config(config, trust_remote_code=False)
    setattr(text, text.base_model_prefix, model.base_model.language_model)
    setattr(text, head, getattr(model, head))
    return text


def mean_pooled(encoder: Any, n_masks: int = 1, *, n_heads: int = 1) -> Any:
    """A module: mean of the encoder's last hidden states over real tokens, dropout, one linear layer per head.

    With several dropout masks its logits are ``(n_masks, n_rows, 2)`` while it trains (Inoue 2019).

    On e5 weights this learns where the first-token head or the pooler collapses.
    """
    import torch
    from torch import nn

    class MeanPooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.dropout = nn.Dropout(HEAD_DROPOUT)
            self.head = nn.Linear(encoder.config.get_text_config().hidden_size, n_heads * N_LABELS)

        def forward(
            self, input_ids: Any, attention_mask: Any = None, *, places: Any = None, **inputs: Any
        ) -> dict[str, Any]:
            if places is None:
                hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
            else:
                states = self.encoder(input_ids=input_ids, places=places, use_cache=False, **inputs)
                hidden = states.last_hidden_state[0][places]
                attention_mask = real_places(inputs[ROW_STARTS], places)
            mask = attention_mask.unsqueeze(-1).float()
            pooled = (hidden.float() * mask).sum(1) / mask.sum(1)
            if self.training and n_masks > 1:
                return {"logits": torch.stack([self.head(self.dropout(pooled)) for _ in range(n_masks)])}
            return {"logits": self.head(self.dropout(pooled))}

        def get_input_embeddings(self) -> Any:
            return self.encoder.get_input_embeddings()

        def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
            self.encoder.gradient_checkpointing_enable(**kwargs)

    return MeanPooled()


def has_own_head(recipe: TransformerRecipe) -> bool:
    """Whether the head is ours, on the bare encoder's vectors."""
    return isinstance(recipe, TwoTowersRecipe) or (
        not isinstance(recipe, CausalLoraRecipe) and recipe.pooling == "mean"
    )


def with_head(recipe: TransformerRecipe, encoder: Any, *, n_heads: int) -> Any:
    """The encoder under a new head of ours, see `has_own_head`."""
    n_masks = recipe.training.multi_sample_dropout
    if isinstance(recipe, TwoTowersRecipe):
        return two_towers(encoder, hidden=recipe.hidden, n_masks=n_masks)
    return mean_pooled(encoder, n_masks, n_heads=n_heads)


def with_lora(model: Any, training: TrainingSection, *, task_type: str) -> Any:
    """The model behind new adapters as the recipe wants them; as it is where it wants none."""
    lora = training.lora
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules,
        task_type=task_type,
    )
    return get_peft_model(model, config)
