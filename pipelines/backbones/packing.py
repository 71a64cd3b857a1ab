"""Batches without padding: rows stand one after the other in one sequence, and attention stays inside each row.

A packed batch is what the network reads of one long row (``input_ids``, ``position_ids`` and, where there are types,
``token_type_ids``, each ``(1, n_tokens)``) and two arrays that say where the rows are: ``row_starts``, int32
``(n_rows + 1,)``, and ``places``, int64 ``(n_rows, longest)``: the places of every row's tokens, the last one repeated
up to the longest row, so that ``places[:, 0]`` and ``places[:, -1]`` are the first and last tokens and no length has
to be fetched from the GPU. Both go through the network's keyword arguments to the attention of every layer: a
variable beside the network would be gone when gradient checkpointing computes a layer a second time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import numpy as np

from competition.errors import CompetitionError
from pipelines.tokens import Inputs, Joined, TokenRows, starts_of

VARLEN = "varlen"  # in recipes, and the name that transformers knows our attention by
ROW_STARTS, PLACES = "row_starts", "places"


@dataclass(frozen=True)
class Packable:
    """A kind of network that reads packed rows exactly as it reads padded ones.

    Attributes
    ----------
    head
        From the classifier, hidden states ``(n_tokens, hidden)`` and `places` to logits ``(n_rows, n_labels)``.
    after_padding
        Whether positions are counted from the id after the padding token's, as in RoBERTa, instead of from 0.
    """

    head: Callable[[Any, Any, Any], Any]
    after_padding: bool = False


def _pooler(model: Any, hidden: Any, places: Any) -> Any:
    return model.classifier(model.dropout(model.bert.pooler(hidden[places[:, :1]])))


def _first_token(model: Any, hidden: Any, places: Any) -> Any:
    return model.classifier(hidden[places[:, :1]])


def _last_token(model: Any, hidden: Any, places: Any) -> Any:
    return model.score(hidden[places[:, -1]])


PACKABLE: Mapping[str, Packable] = {  # by the configuration's model_type
    "bert": Packable(_pooler),
    "xlm-roberta": Packable(_first_token, after_padding=True),
    "gemma3_text": Packable(_last_token),
    "qwen2": Packable(_last_token),
    "qwen3": Packable(_last_token),
}


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows whose batches are packed, see `pipelines.tokens.Inputs`.

    Attributes
    ----------
    rows
        The rows; each has a token.
    first_position
        The position id of every row's first token.
    """

    rows: TokenRows
    first_position: int = 0

    @classmethod
    def of(cls, rows: TokenRows, *, first_position: int = 0) -> "PackedRows":
        """The rows, packed; one without tokens reads a padding token, as it does in a padded batch."""
        empty = np.flatnonzero(rows.lengths == 0)
        if len(empty):
            places = rows.starts[empty]
            types = None if rows.types is None else np.insert(rows.types, places, 0)
            starts = starts_of(np.maximum(rows.lengths, 1))
            rows = replace(rows, ids=np.insert(rows.ids, places, rows.pad), starts=starts, types=types)
        return cls(rows, first_position)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pad(self) -> int:
        """See `Inputs`."""
        return self.rows.pad

    @property
    def lengths(self) -> np.ndarray:
        """See `Inputs`."""
        return self.rows.lengths

    def take(self, rows: np.ndarray) -> "PackedRows":
        """See `Inputs`."""
        return replace(self, rows=self.rows.take(rows))

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the network reads of these rows, one after the other, see the module."""
        chosen = self.rows.take(rows)
        lengths, begins = chosen.lengths, chosen.starts[:-1]
        columns = np.arange(int(lengths.max(initial=1)))
        packed = {
            "input_ids": chosen.ids.astype(np.int64)[None],
            "position_ids": self.first_position + np.arange(len(chosen.ids))[None] - np.repeat(begins, lengths),
            ROW_STARTS: chosen.starts.astype(np.int32),
            PLACES: begins[:, None] + np.minimum(columns, lengths[:, None] - 1),
        }
        if chosen.types is not None:
            packed["token_type_ids"] = chosen.types.astype(np.int64)[None]
        return packed

    def token_ids(self) -> np.ndarray:
        """See `Inputs`."""
        return self.rows.token_ids()

    def renumbered(self, table: np.ndarray) -> "PackedRows":
        """See `Inputs`."""
        return replace(self, rows=self.rows.renumbered(table))


def laid_out(inputs: Inputs, model: Any) -> Inputs:
    """The inputs with batches as the model's attention reads them: packed for `varlen`, else as they are."""
    if isinstance(inputs, Joined):
        return replace(inputs, rows=laid_out(inputs.rows, model))
    config = getattr(getattr(model, "encoder", model), "config", None)
    if config is None or config._attn_implementation != VARLEN or not isinstance(inputs, TokenRows):
        return inputs
    config = config.get_text_config()
    after_padding = PACKABLE[config.model_type].after_padding
    return PackedRows.of(inputs, first_position=config.pad_token_id + 1 if after_padding else 0)


def refuse_unpackable(config: Any, *, name: str, max_length: int) -> None:
    """Check that the network with this configuration would read packed rows as it reads padded ones.

    Raises
    ------
    CompetitionError
        Its attention caps logits or adds terms of its own, it is none of `PACKABLE`, or rows may be longer than its
        sliding window.
    """
    config = config.get_text_config()
    reason = None
    if config.model_type not in PACKABLE:
        reason = f"{config.model_type} is none of {', '.join(PACKABLE)}"
    elif getattr(config, "attn_logit_softcapping", None) is not None:
        reason = "its attention caps the logits"
    if reason is not None:
        raise CompetitionError(
            f'training.attention = "{VARLEN}" cannot read rows with {name}: {reason}',
            advice='set training.attention to "auto", "eager" or "sdpa"',
        )
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    window = config.sliding_window if slides else max_length
    if window < max_length:
        raise CompetitionError(
            f'training.attention = "{VARLEN}" cannot read rows of {max_length} tokens with {name}: layers see {window}',
            advice=f"set max_length to {window} or less, or training.attention to another",
        )


def register_varlen() -> None:
    """Make our attention known to transformers; for a name without a mask function it builds no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_attention)


def varlen_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    row_starts: Any = None,
    places: Any = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention of packed rows, as transformers asks for it: ``(1, n_tokens, n_heads, head_dim)``, and no weights.

    On GPUs in half precision it is `torch.nn.attention.varlen` (FlashAttention), else exact over padded rows.
    FlashAttention for rows of many lengths knows no dropout, so neither has it.
    """
    import torch

    assert places is not None, "varlen attention reads packed batches, see laid_out"
    assert attention_mask is None, "packed rows have no mask"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # norms may leave them in fp32
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if query.is_cuda and value.dtype in (torch.bfloat16, torch.float16):
        found = _flash(query, key, value, row_starts, longest=places.shape[1], causal=module.is_causal, scale=scale)
    else:
        found = _over_padded_rows(query, key, value, row_starts, places=places, causal=module.is_causal, scale=scale)
    return found[None], None


def _flash(query: Any, key: Any, value: Any, starts: Any, *, longest: int, causal: bool, scale: float) -> Any:
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if causal else (-1, -1)
    grouped = query.shape[1] != key.shape[1]
    return varlen_attn(
        query, key, value, starts, starts, longest, longest, scale=scale, window_size=window, enable_gqa=grouped
    )


def _over_padded_rows(query: Any, key: Any, value: Any, starts: Any, *, places: Any, causal: bool, scale: float) -> Any:
    from torch.nn.functional import scaled_dot_product_attention

    real = real_places(starts, places)
    mask = real[:, None, None, :]
    if causal:
        mask = mask & mask.new_ones(places.shape[1], places.shape[1]).tril()
    query, key, value = (x[places].transpose(1, 2) for x in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    found = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return found.transpose(1, 2)[real]


def real_places(row_starts: Any, places: Any) -> Any:
    """Which of `places` hold a token of their own instead of repeating the last one, bool ``(n_rows, longest)``."""
    import torch

    return torch.arange(places.shape[1], device=places.device) < row_starts.diff()[:, None]


def with_packed_head(model: Any) -> Any:
    """The sequence classifier, which from now on classifies every row of a packed batch; padded ones as ever.

    Its own `forward` would take one vector from the one sequence that it is given.
    """
    head = PACKABLE[model.config.model_type].head
    padded = model.forward

    def forward(self: Any, input_ids: Any = None, *, places: Any = None, **inputs: Any) -> Any:
        if places is None:
            return padded(input_ids, **inputs)
        states = self.base_model(input_ids, places=places, use_cache=False, **inputs)
        return {"logits": head(self, states.last_hidden_state[0], places)}

    model.forward = MethodType(forward, model)
    return model
