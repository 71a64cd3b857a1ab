"""Memory and disk that a transformer takes, computed from its shape and its recipe: no network is loaded.

All figures are computed. What they leave out (the CUDA context, buffers of kernels, fragmentation) is `MARGIN`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.config import (
    TRANSFORMERS,
    BiEncoderRecipe,
    CategoryTreeRecipe,
    LexicalRecipe,
    Recipe,
    TransformerRecipe,
    load_recipe,
    recipe_names,
)
from pipelines.networks import Network, network_of
from pipelines.sections import TrainingSection

GIB = 2**30
MARGIN = 1.5 * GIB, 1.1  # CUDA context and workspaces, and fragmentation: assumed
CARDS = (16, 24, 40, 48, 80, 141)  # GB, as cards are sold
USABLE = 0.92 * GIB  # bytes a process can have of a sold GB: drivers tell 15,109 MiB of 16, 23,034 of 24, 81,559 of 80
NF4 = 0.516  # bytes a weight: 4 bits and doubly quantised scales of blocks of 64 (Dettmers et al. 2023)
USED_TOKENS = 30_000  # of the vocabulary, where training trims it: measured on the competition's kind of texts
ADAM = 12.0  # bytes beside each trained fp32 weight: its gradient and two moments
MASTER = 4.0


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU while a network trains, by what they are for.

    Attributes
    ----------
    weights
        All weights, and in bf16 the copies that matrix products read.
    states
        Gradients and the optimiser's moments of what is trained.
    activations
        What the layers keep of the tokens of one step for the backward pass.
    """

    weights: float
    states: float
    activations: float

    @property
    def total(self) -> float:
        """With `MARGIN`."""
        fixed, factor = MARGIN
        return fixed + factor * (self.weights + self.states + self.activations)

    @property
    def smallest_card(self) -> int | None:
        """The smallest card in GB that holds it, None if none does."""
        return next((card for card in CARDS if self.total <= card * USABLE), None)


def gpus_of(recipe: Recipe) -> int:
    """GPUs that a base learner works with: frozen embeddings are made on one, a trained network may take several."""
    if isinstance(recipe, TRANSFORMERS):
        return recipe.training.gpus
    return 0 if isinstance(recipe, LexicalRecipe) else 1


def frozen_bytes(network: Network) -> float:
    """Bytes on a GPU of a frozen encoder in fp32, with `MARGIN`; its batches are cut to what memory is left."""
    fixed, factor = MARGIN
    return fixed + factor * MASTER * network.n_parameters


def training_memory(recipe: TransformerRecipe, network: Network) -> Memory:
    """Bytes on each GPU for the largest step: a full batch of rows as long as `max_length` allows."""
    training = recipe.training
    shares = training.gpus if training.sharding == "fsdp" else 1
    return Memory(
        weights=weight_bytes(network, training) / shares,
        states=ADAM * n_trained(network, training) / shares,
        activations=kept_bytes(network, training) * step_tokens(recipe),
    )


def weight_bytes(network: Network, training: TrainingSection) -> float:
    """Bytes of the weights as they are loaded for training."""
    if training.lora is None:
        copies = 2.0 * network.n_linear if _half(training) else 0.0  # autocast keeps them for a step
        return MASTER * network.n_parameters + copies
    adapters = MASTER * network.n_adapter(training.lora)
    if training.quantize:
        return NF4 * network.n_linear + 2.0 * network.n_embedding + adapters
    return (2.0 if _half(training) else MASTER) * network.n_parameters + adapters


def n_trained(network: Network, training: TrainingSection) -> int:
    """Weights that are trained: adapters, or all, of the embeddings those in use where the vocabulary is trimmed."""
    if training.lora is not None:
        return network.n_adapter(training.lora)
    trims = training.trim_vocabulary and training.sharding == "ddp"
    vocabulary = min(USED_TOKENS, network.vocabulary) if trims else network.vocabulary
    above = 1 - training.freeze_layers / network.n_layers
    return int(network.n_linear * above) + (0 if training.freeze_layers else vocabulary * network.hidden)


def kept_bytes(network: Network, training: TrainingSection) -> float:
    """Bytes of activations a token; with checkpointing the input of every layer, and all of one layer."""
    width = 1 if _half(training) else 2
    whole = width * network.kept_per_layer()
    if training.gradient_checkpointing:
        return network.n_layers * 2 * width * network.hidden + whole
    return (network.n_layers - training.freeze_layers) * whole


def step_tokens(recipe: TransformerRecipe) -> int:
    """Most tokens that one GPU holds at once."""
    training = recipe.training
    texts = 2 if recipe.kind == "two_towers" else 1
    full = training.batch_size // training.gpus * recipe.max_length * texts
    return min(full, training.tokens_per_batch or full)


def part_bytes(recipe: TransformerRecipe, network: Network) -> float:
    """Bytes of the weights that a finished part keeps: adapters in fp32, or the whole network."""
    lora = recipe.training.lora
    return MASTER * (network.n_adapter(lora) if lora else network.n_parameters)


def checkpoint_bytes(recipe: TransformerRecipe, network: Network) -> float:
    """Bytes of two checkpoints, which are there while the newer one is written; gone when the part is finished."""
    return 2 * (part_bytes(recipe, network) + 8.0 * n_trained(network, recipe.training))


def base_bytes(recipe: Recipe, network: Network) -> float:
    """Bytes of the pretrained weights on disk, once for all jobs: 16 bits for decoders, 32 for encoders."""
    assert isinstance(recipe, (*TRANSFORMERS, BiEncoderRecipe, CategoryTreeRecipe)), "other kinds have no weights"
    return (2.0 if network.family == "decoder" else MASTER) * network.n_parameters


def memory_table(recipes: Sequence[str] = ()) -> pd.DataFrame:
    """GiB on a GPU for every transformer recipe (all built-in ones by default), and the smallest card that holds it."""
    lines = []
    for name in recipes or recipe_names():
        recipe = load_recipe(name)
        if not isinstance(recipe, TRANSFORMERS):
            continue
        network = network_of(recipe.weights.name)
        if network is not None:
            lines.append({"recipe": name, **_memory_line(recipe, network)})
    return pd.DataFrame(lines)


def _memory_line(recipe: TransformerRecipe, network: Network) -> dict[str, object]:
    memory = training_memory(recipe, network)
    return {
        "parameters_b": round(network.n_parameters / 1e9, 2),
        "trained_m": round(n_trained(network, recipe.training) / 1e6, 1),
        "step_tokens": step_tokens(recipe),
        "weights_gib": round(memory.weights / GIB, 1),
        "states_gib": round(memory.states / GIB, 1),
        "activations_gib": round(memory.activations / GIB, 1),
        "total_gib": round(memory.total / GIB, 1),
        "smallest_card_gb": memory.smallest_card,
        "part_mb": round(part_bytes(recipe, network) / 1e6, 1),
    }


def _half(training: TrainingSection) -> bool:
    """Whether a GPU of today would compute in bf16: what this machine has does not matter here."""
    return training.precision in ("bf16", "auto")
