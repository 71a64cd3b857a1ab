"""Shapes of transformers, and what follows from them: parameters, operations per token, numbers kept per token.

Nothing is loaded: a shape comes from the table ``networks.toml`` or from the ``config.json`` of a local folder.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from competition.errors import CompetitionError
from pipelines.config import read_toml
from pipelines.sections import LoraSection

TABLE = Path(__file__).with_name("networks.toml")

Family = Literal["encoder", "disentangled", "decoder"]
ENCODERS: dict[str, Family] = {
    "bert": "encoder",
    "xlm-roberta": "encoder",
    "roberta": "encoder",
    "deberta-v2": "disentangled",
}


@dataclass(frozen=True)
class Network:
    """The shape of a transformer without its output layer, as relstack trains it.

    Attributes
    ----------
    hidden, inner, n_layers, vocabulary
        Width, width inside a feed-forward block, layers, tokens.
    queries, keys
        Width of all query heads together, and of all key heads (as wide as the value heads).
    """

    family: Family
    hidden: int
    inner: int
    n_layers: int
    queries: int
    keys: int
    vocabulary: int

    @classmethod
    def of_config(cls, values: dict[str, Any]) -> "Network":
        """From a Hugging Face ``config.json`` or an entry of the table.

        Raises
        ------
        CompetitionError
            It does not say the shape of a transformer's layers.
        """
        values = values.get("text_config", values)
        try:
            heads, hidden = values["num_attention_heads"], values["hidden_size"]
            width = values.get("head_dim") or hidden // heads
            family: Family = values.get("family") or ENCODERS.get(values.get("model_type", ""), "decoder")
            return cls(
                family=family,
                hidden=hidden,
                inner=values["intermediate_size"],
                n_layers=values["num_hidden_layers"],
                queries=heads * width,
                keys=values.get("num_key_value_heads", heads) * width,
                vocabulary=values["vocab_size"],
            )
        except KeyError as error:
            raise CompetitionError(
                f"this config.json does not say its network's {error}",
                advice="add the key to config.json, or leave this recipe out: --recipes",
            ) from error

    @property
    def matrices(self) -> list[tuple[str, int, int]]:
        """The linear layers of one layer: name, inputs, outputs."""
        h, q, k, m = self.hidden, self.queries, self.keys, self.inner
        if self.family == "decoder":  # the block is gated: one more matrix into it
            attention = [("q_proj", h, q), ("k_proj", h, k), ("v_proj", h, k), ("o_proj", q, h)]
            return [*attention, ("gate_proj", h, m), ("up_proj", h, m), ("down_proj", m, h)]
        attention = [("query", h, q), ("key", h, k), ("value", h, k), ("dense", q, h)]
        return [*attention, ("dense", h, m), ("dense", m, h)]

    @property
    def n_linear(self) -> int:
        """Weights in matrix products of all layers."""
        return self.n_layers * sum(inputs * outputs for _, inputs, outputs in self.matrices)

    @property
    def n_embedding(self) -> int:
        """Weights of the embedding of tokens."""
        return self.vocabulary * self.hidden

    @property
    def n_parameters(self) -> int:
        """All weights, but for biases, norms and positions (under one in a hundred)."""
        return self.n_linear + self.n_embedding

    def n_adapter(self, lora: LoraSection) -> int:
        """Weights of low-rank adapters on the layers that `lora` names."""
        wanted = lora.target_modules
        sides = [
            inputs + outputs for name, inputs, outputs in self.matrices if wanted == "all-linear" or name in wanted
        ]
        return self.n_layers * lora.r * sum(sides)

    def trained_flop(self, lora: LoraSection | None) -> float:
        """Floating point operations to train on one token: forward, and backward to inputs and to what is trained.

        6 N whole, 4 N + 6 n with n weights of adapters on N frozen ones. Attention between tokens, and what
        checkpointing computes again, are left out.
        """
        if lora is None:
            return 6.0 * self.n_linear
        return 4.0 * self.n_linear + 6.0 * self.n_adapter(lora)

    def scored_flop(self, lora: LoraSection | None) -> float:
        """Floating point operations to score one token: 2 N + 2 n."""
        return 2.0 * self.n_linear + (2.0 * self.n_adapter(lora) if lora else 0.0)

    def kept_per_layer(self) -> float:
        """Bytes that one layer keeps of one token for its backward pass, in 16 bits.

        After Korthikanti et al. (2022, "Reducing activation recomputation in large transformer models"), 34 h for a
        plain layer without the attention matrix, which fused attention does not keep; gated blocks keep two more.
        """
        attention = 2 * (self.hidden + 2 * self.queries + 2 * self.keys) + self.hidden
        block = 2 * (self.hidden + (4 if self.family == "decoder" else 2) * self.inner) + self.hidden
        return attention + block + 4 * self.hidden


@cache
def networks() -> dict[str, Network]:
    """The shapes that relstack knows, by the name of the weights."""
    return {name: Network.of_config(values) for name, values in read_toml(TABLE)["networks"].items()}


def network_of(name: str) -> Network | None:
    """The shape of the weights `name` (a known name, or a local folder), None where it is not known."""
    if name in networks():
        return networks()[name]
    config = Path(name).expanduser() / "config.json"
    if not config.is_file():
        return None
    try:
        return Network.of_config(json.loads(config.read_text(encoding="utf-8")))
    except (ValueError, CompetitionError):
        return None
