"""Frozen lower layers: what they make of every input is computed once, and only the layers above them run."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import CompetitionError
from pipelines.backbones.pair_store import pretrained_weights
from pipelines.backbones.protocol import Workspace
from pipelines.backbones.readers import Reading
from pipelines.backbones.scoring import TOKENS_ON_CPU, to_tensors
from pipelines.backbones.two_towers import TextPairs
from pipelines.config import TransformerRecipe
from pipelines.encoding import RunTokens
from pipelines.memory import fitting
from pipelines.progress import progress
from pipelines.tokens import Inputs, TokenRows, batches_by_length, spans, starts_of
from pipelines.weights import Weights, write_once

log = logging.getLogger(__name__)

FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta")  # embeddings, then a list of layers, nothing between
STATES = "states.npy"


@dataclass(frozen=True, eq=False)
class StateRows:
    """States of each row's tokens in place of the tokens, see `pipelines.tokens.Inputs`.

    Attributes
    ----------
    states
        Float32 ``(n_tokens, size)``, on disk.
    begins, lengths
        Where each row's states begin and how many there are, int64 ``(n_rows,)``.
    """

    states: np.ndarray
    begins: np.ndarray
    lengths: np.ndarray
    pad: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> "StateRows":
        """See `Inputs`."""
        return replace(self, begins=self.begins[rows], lengths=self.lengths[rows])

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """``input_ids``, which are states, float32 ``(n, longest, size)``, and ``attention_mask``."""
        lengths = self.lengths[rows]
        real = np.arange(int(lengths.max(initial=1))) < lengths[:, None]
        states = np.zeros((*real.shape, self.states.shape[1]), dtype=np.float32)
        states[real] = self.states[spans(self.begins[rows], lengths)]
        return {"input_ids": states, "attention_mask": real.astype(np.int64)}

    def token_ids(self) -> np.ndarray:
        """None: the embeddings are not read any more."""
        return np.zeros(0, dtype=np.int64)

    def renumbered(self, table: np.ndarray) -> "StateRows":
        """The same: there are no tokens."""
        return self


@dataclass(frozen=True)
class FrozenLayers:
    """The embeddings and the lowest layers of an encoder, which keep their pretrained weights.

    Attributes
    ----------
    n_layers
        How many layers are frozen, counted from below.
    origin
        What else decides the states: the weights, how they compute.
    folder
        Where the states of a run's inputs are kept, a folder for each set of inputs.
    half
        Whether matrices are multiplied in bf16.
    """

    n_layers: int
    origin: str
    folder: Path
    half: bool

    @classmethod
    def of(cls, recipe: TransformerRecipe, weights: Weights, workspace: Workspace) -> "FrozenLayers | None":
        """Those that the recipe asks for; None where it freezes nothing."""
        training = recipe.training
        if not training.freeze_layers:
            return None
        origin = f"{pretrained_weights(weights, workspace.init).digest} {training.attention}"
        return cls(training.freeze_layers, origin, workspace.cache / "states", training.half)

    @contextmanager
    def taken_out(self, model: Any, reading: Reading) -> Iterator[Reading]:
        """Inside, `model` is the layers above, and the reading that is given has states as inputs.

        States of the run's texts come from disk, or are written there now; those of other texts are computed when they
        come. Afterwards the model is whole again, its lower part not trainable.

        Raises
        ------
        CompetitionError
            The model has fewer layers, or is not of a family whose layers can be told apart.
        """
        bare = _bare(model)
        self._refuse(bare)
        embeddings, layers = bare.embeddings, bare.encoder.layer
        below, above = layers[: self.n_layers], layers[self.n_layers :]
        for part in (embeddings, below):
            part.requires_grad_(False).eval()

        def lower(inputs: Inputs, *, kept: bool) -> Inputs:
            with _only(bare, embeddings, below):
                return self._states(bare, inputs, kept=kept)

        known = reading.tokens
        states = lower(known.inputs, kept=True)
        tokens = RunTokens(lambda texts: lower(reading.reader.inputs(texts), kept=False), known.known, states)
        try:
            with _only(bare, _passed_on(), above):
                yield replace(reading, tokens=tokens)
        finally:
            bare.to(next(model.parameters()).device)  # training may have moved the layers above

    def _refuse(self, bare: Any) -> None:
        if bare.config.model_type not in FAMILIES:
            raise CompetitionError(
                f"training.freeze_layers works for {', '.join(FAMILIES)}, not for {bare.config.model_type}",
                advice="leave it out",
            )
        if self.n_layers > len(bare.encoder.layer):
            raise CompetitionError(
                f"training.freeze_layers is {self.n_layers}, but the model has {len(bare.encoder.layer)} layers",
                advice=f"set it to {len(bare.encoder.layer)} or less",
            )

    def _states(self, lower: Any, inputs: Inputs, *, kept: bool) -> Inputs:
        if isinstance(inputs, TextPairs):
            queries, targets = (self._states(lower, side, kept=kept) for side in (inputs.queries, inputs.targets))
            return replace(inputs, queries=queries, targets=targets)
        assert isinstance(inputs, TokenRows), "encoders of these families read tokens"
        batches = batches_by_length(inputs.lengths, tokens_per_batch=TOKENS_ON_CPU)
        begins = np.empty(len(inputs), dtype=np.int64)
        order = np.concatenate([np.zeros(0, dtype=np.int64), *batches])
        begins[order] = starts_of(inputs.lengths[order])[:-1]
        shape = (int(inputs.lengths.sum()), lower.config.hidden_size)
        if not kept:
            states = np.empty(shape, dtype=np.float32)
            self._fill(states, lower, inputs, batches)
            return StateRows(states, begins, inputs.lengths)
        folder = self.folder / self._digest(inputs)

        def write(part: Path) -> None:
            part.mkdir()
            log.info("states below layer %d: %.2f GB in %s", self.n_layers, 4e-9 * shape[0] * shape[1], folder)
            states = np.lib.format.open_memmap(part / STATES, mode="w+", dtype=np.float32, shape=shape)
            self._fill(states, lower, inputs, batches)
            states.flush()

        write_once(folder, write)
        return StateRows(np.load(folder / STATES, mmap_mode="r", allow_pickle=False), begins, inputs.lengths)

    def _fill(self, states: np.ndarray, lower: Any, inputs: TokenRows, batches: list[np.ndarray]) -> None:
        """The states of all rows, in the order of the batches: rows that train together lie together."""
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        lower.to(device)

        def computed(rows: np.ndarray) -> np.ndarray:
            batch = to_tensors(inputs.batch(rows), device)
            states = lower(**batch).last_hidden_state.float()[batch["attention_mask"].bool()]
            return np.asarray(states.cpu().numpy())

        begin = 0
        with (
            progress(f"states below layer {self.n_layers}", total=len(inputs)) as advance,
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.half),
        ):
            for rows, found in fitting(batches, computed):
                states[begin : begin + len(found)] = found
                begin += len(found)
                advance(len(rows))

    def _digest(self, inputs: TokenRows) -> str:
        digest = hashlib.sha256(f"{self.n_layers} {self.origin} {self.half}".encode())
        for values in (inputs.ids, inputs.starts, *([] if inputs.types is None else [inputs.types])):
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]


def _bare(model: Any) -> Any:
    """The encoder without any head, ours or that of its own class."""
    from transformers import PreTrainedModel

    return (model if isinstance(model, PreTrainedModel) else model.encoder).base_model


@contextmanager
def _only(bare: Any, embeddings: Any, layers: Any) -> Iterator[None]:
    """Inside, the encoder has these embeddings and layers alone."""
    before = bare.embeddings, bare.encoder.layer
    bare.embeddings, bare.encoder.layer = embeddings, layers
    try:
        yield
    finally:
        bare.embeddings, bare.encoder.layer = before


def _passed_on() -> Any:
    """A module in place of the embeddings: what it is given are states already."""
    from torch import nn

    class PassedOn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word_embeddings = nn.Identity()  # what the encoder gives as its input embeddings: nothing to trim

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return input_ids

    return PassedOn()
