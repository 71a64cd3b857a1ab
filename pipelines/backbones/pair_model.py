"""The network of a cross-encoder: any transformer with a head for two labels, whole or behind LoRA adapters."""

from pathlib import Path
from typing import Any

from competition.errors import CompetitionError
from pipelines.config import CrossEncoderRecipe
from pipelines.weights import Weights, load_checked, resolve_weights

N_LABELS = 2
HEAD_DROPOUT = 0.1
ADAPTER, MODEL, HEAD = "adapter", "model", "head.safetensors"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local folder, with a padding token: without one, rows of a batch could not be padded."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CompetitionError(
                f"the tokenizer of {folder} has neither a padding nor an end token",
                advice="set pad_token in its tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_pair_model(recipe: CrossEncoderRecipe, weights: Weights, tokenizer: Any) -> Any:
    """The recipe's model on pretrained weights, with a new head."""
    if tokenizer.model_max_length < recipe.max_length:
        raise CompetitionError(
            f"max_length {recipe.max_length} is more than {weights.name} can read",
            advice=f"set max_length to {tokenizer.model_max_length} or less",
        )
    model = _pretrained(recipe, weights, tokenizer)
    if recipe.pooling == "model":
        return _with_lora(model, recipe, task_type="SEQ_CLS")
    return mean_pooled(_with_lora(model, recipe, task_type="FEATURE_EXTRACTION"))


def _pretrained(recipe: CrossEncoderRecipe, weights: Weights, tokenizer: Any) -> Any:
    """The network that adapters are put on: the encoder alone, or with the head of its own class."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    if recipe.pooling == "mean":
        return text_part(load_checked(AutoModel, weights))
    model = text_part(load_checked(AutoModelForSequenceClassification, weights, num_labels=N_LABELS))
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def text_part(model: Any) -> Any:
    """The language model (and head) of a multimodal model; any other model as it is.

    Gemma-3 4B and larger are published with an image tower. Adapters would go there too, and `token_type_ids` of 1
    mean an image there.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = model.config.get_text_config()
    if config is model.config:
        return model
    if not hasattr(model, "score"):
        return model.language_model
    with torch.device("meta"):  # no memory and no time for weights that are replaced
        text = AutoModelForSequenceClassification.from_config(config)
    setattr(text, text.base_model_prefix, model.base_model.language_model)
    text.score = model.score
    return text


def mean_pooled(encoder: Any) -> Any:
    """A module: mean of the encoder's last hidden states over real tokens, dropout, one linear layer.

    On e5 weights this learns where the first-token head or the pooler collapses (see FACTS in the documentation).
    """
    import torch
    from torch import nn

    class MeanPooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.dropout = nn.Dropout(HEAD_DROPOUT)
            self.head = nn.Linear(encoder.config.get_text_config().hidden_size, N_LABELS)

        # Named inputs: the Trainer drops what a signature does not name, and would scale the loss for **kwargs.
        def forward(
            self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, labels: Any = None
        ) -> dict[str, Any]:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            logits = self.head(self.dropout(pooled.float()))
            if labels is None:
                return {"logits": logits}
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

        def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
            self.encoder.gradient_checkpointing_enable(**kwargs)

    return MeanPooled()


def save_pair_model(recipe: CrossEncoderRecipe, model: Any, folder: Path) -> None:
    """Write the model as safetensors: adapter (if any) and head, or all of it."""
    from safetensors.torch import save_file

    encoder = model.encoder if recipe.pooling == "mean" else model
    encoder.save_pretrained(folder / (MODEL if recipe.training.lora is None else ADAPTER))
    if recipe.pooling == "mean":
        save_file({name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}, folder / HEAD)


def restore_pair_model(recipe: CrossEncoderRecipe, folder: Path, tokenizer: Any) -> Any:
    """The model that `save_pair_model` wrote; with adapters the base weights are resolved again by name."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForSequenceClassification

    if (folder / ADAPTER).is_dir():
        from peft import PeftModel

        weights = resolve_weights(recipe.weights.name, source=recipe.weights.source, revision=recipe.weights.revision)
        encoder = PeftModel.from_pretrained(_pretrained(recipe, weights, tokenizer), folder / ADAPTER)
    else:
        auto_class = AutoModelForSequenceClassification if recipe.pooling == "model" else AutoModel
        encoder = load_checked(auto_class, resolve_weights(str(folder / MODEL), source="folder"), head_prefixes=())
    if recipe.pooling == "model":
        return encoder.eval()
    model = mean_pooled(encoder)
    model.head.load_state_dict(load_file(folder / HEAD))
    return model.eval()


def _with_lora(model: Any, recipe: CrossEncoderRecipe, *, task_type: str) -> Any:
    lora = recipe.training.lora
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
