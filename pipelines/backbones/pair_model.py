"""The network of a cross-encoder: any transformer with a head for two labels, whole or behind LoRA adapters."""

from pathlib import Path
from typing import Any

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
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_pair_model(recipe: CrossEncoderRecipe, weights: Weights, tokenizer: Any) -> Any:
    """The recipe's model on pretrained weights, with a new head."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    if recipe.pooling == "model":
        model = load_checked(AutoModelForSequenceClassification, weights, num_labels=N_LABELS)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        return _with_lora(model, recipe, task_type="SEQ_CLS")
    encoder = load_checked(AutoModel, weights)
    return mean_pooled(_with_lora(encoder, recipe, task_type="FEATURE_EXTRACTION"))


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

        def forward(self, labels: Any = None, **inputs: Any) -> dict[str, Any]:
            hidden = self.encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            logits = self.head(self.dropout(pooled.float()))
            if labels is None:
                return {"logits": logits}
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

        def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
            self.encoder.gradient_checkpointing_enable(**kwargs)

    return MeanPooled()


def save_pair_model(model: Any, folder: Path) -> None:
    """Write the model as safetensors: adapter (if any) and head, or all of it."""
    from safetensors.torch import save_file

    encoder = getattr(model, "encoder", model) if hasattr(model, "head") else model
    encoder.save_pretrained(folder / (ADAPTER if _is_peft(encoder) else MODEL))
    if encoder is not model:
        save_file({name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}, folder / HEAD)


def restore_pair_model(recipe: CrossEncoderRecipe, folder: Path, tokenizer: Any) -> Any:
    """The model that `save_pair_model` wrote; with adapters the base weights are resolved again by name."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForSequenceClassification

    whole = recipe.pooling == "model"
    auto_class = AutoModelForSequenceClassification if whole else AutoModel
    if (folder / ADAPTER).is_dir():
        from peft import PeftModel

        weights = resolve_weights(recipe.weights.name, source=recipe.weights.source, revision=recipe.weights.revision)
        base = load_checked(auto_class, weights, **({"num_labels": N_LABELS} if whole else {}))
        if whole:
            base.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        encoder = PeftModel.from_pretrained(base, folder / ADAPTER)
    else:
        encoder = load_checked(auto_class, resolve_weights(str(folder / MODEL), source="folder"), head_prefixes=())
    if whole:
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


def _is_peft(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
