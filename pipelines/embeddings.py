"""Sentence embeddings: every distinct text once, by length under a token budget, cached on disk for all runs."""

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from competition.artefacts import discard, replacing
from competition.errors import CompetitionError, Fault
from pipelines.array_files import read_arrays
from pipelines.config import EncoderSection, WeightsSection
from pipelines.locks import alone, sweep
from pipelines.memory import fitting
from pipelines.progress import progress
from pipelines.tokens import batches_by_length
from pipelines.trust import MODULES, refusing_code
from pipelines.weights import Weights, named_weights

log = logging.getLogger(__name__)

REMEMBERED = 20_000  # texts of a resident encoder whose vectors are kept
SHARD = 20_000  # texts embedded between two writes of the cache: what a kill can cost


@dataclass(frozen=True)
class EmbeddingCache:
    """Vectors by text on disk, one folder per model and maximum length; a text once embedded is never again.

    Every write is one ``.npz`` shard (keys: 16-byte BLAKE2 of the text; vectors: float32), put in place by
    rename: a kill leaves nothing half-written. Processes write one after the other, so that whoever does can sweep
    away what a killed one left. A shard that is damaged all the same is deleted, and its texts are embedded again.
    """

    folder: Path

    def read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors that are known, by text."""
        wanted = {_key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        for shard in sorted(self.folder.glob("*.npz")):
            try:
                keys, vectors = _read_shard(shard)
            except CompetitionError as error:
                log.warning("%s is damaged and deleted, its texts are embedded again: %s", shard, error)
                discard(shard)
                continue
            for i, key in enumerate(keys.tolist()):
                if key in wanted:
                    found[wanted[key]] = vectors[i]
        return found

    def write(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors ``(n_texts, dim)`` of new texts."""
        with alone(self.folder / "shards"):
            sweep(self.folder)
            with replacing(self.folder / f"{uuid.uuid4().hex}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, keys=np.array([_key(text) for text in texts], dtype="S32"), vectors=vectors)


@dataclass(frozen=True, eq=False)
class Embedder:
    """A frozen sentence encoder; `embed` gives unit vectors.

    Attributes
    ----------
    resident
        The encoder stays in memory, and texts that were not prepared are looked for on no disk and written to none.
    """

    weights: WeightsSection
    encoder: EncoderSection
    cache: Path
    threads: int
    resident: bool = False
    _memory: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _passing: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def queries(self, texts: Iterable[str]) -> np.ndarray:
        """Unit vectors of queries, float32 ``(n_texts, dim)``."""
        return self.embed([self.encoder.query_prefix + text for text in texts])

    def targets(self, texts: Iterable[str]) -> np.ndarray:
        """Unit vectors of targets, float32 ``(n_texts, dim)``."""
        return self.embed([self.encoder.target_prefix + text for text in texts])

    def prepare(self, queries: Iterable[str], targets: Iterable[str]) -> None:
        """Embed queries and targets that are not known yet, all in one go."""
        query, target = self.encoder.query_prefix, self.encoder.target_prefix
        self._learn([*(query + text for text in queries), *(target + text for text in targets)])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts as they are (prefix included), float32 ``(n_texts, dim)``."""
        if self.resident:
            return self._embed_passing(texts)
        self._learn(texts)
        return np.stack([self._memory[text] for text in texts]) if len(texts) else np.zeros((0, 0), np.float32)

    def _embed_passing(self, texts: Sequence[str]) -> np.ndarray:
        """`embed` by the resident encoder; some of the latest texts are remembered."""
        if len(self._passing) > REMEMBERED:
            self._passing.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._memory and text not in self._passing]
        if new:
            self._passing.update(
                zip(new, _encode_part(self._model, new, self.encoder, lambda count: None), strict=True)
            )
        found = [self._memory[text] if text in self._memory else self._passing[text] for text in texts]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    @cached_property
    def _model(self) -> Any:
        import torch

        torch.set_num_threads(self.threads)
        return load_encoder(self.resolved, self.encoder)

    def _learn(self, texts: Sequence[str]) -> None:
        unknown = list(dict.fromkeys(text for text in texts if text not in self._memory))
        if unknown:
            store = EmbeddingCache(self.cache / self._cache_name())
            self._memory.update(store.read(unknown))
            unknown = [text for text in unknown if text not in self._memory]
        if unknown:
            for part, vectors in encode(self.resolved, unknown, self.encoder, threads=self.threads):
                store.write(part, vectors)
                self._memory.update(zip(part, vectors, strict=True))

    @cached_property
    def resolved(self) -> Weights:
        """The weights on this disk."""
        return named_weights(self.weights)

    def _cache_name(self) -> str:
        weights = self.resolved
        return f"{Path(weights.name).name}-{weights.digest[:16]}-{self.encoder.max_length}"


def encode(
    weights: Weights, texts: Sequence[str], encoder: EncoderSection, *, threads: int
) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Some of the texts and their unit vectors, float32 ``(n, dim)``, `SHARD` texts at a time.

    Texts are tokenised once, sorted by length and cut into batches of at most `tokens_per_batch` padded tokens, so that
    hardly a token is padding. The embedding itself is sentence-transformers'.
    """
    import torch

    model = load_encoder(weights, encoder)
    torch.set_num_threads(threads)
    with progress(f"embed with {Path(weights.name).name}", total=len(texts)) as advance:
        for start in range(0, len(texts), SHARD):
            part = texts[start : start + SHARD]
            yield part, _encode_part(model, part, encoder, advance)


def _encode_part(
    model: Any, texts: Sequence[str], encoder: EncoderSection, advance: Callable[[int], None]
) -> np.ndarray:
    import torch

    token_ids = model.tokenizer(list(texts), truncation=True, max_length=encoder.max_length)["input_ids"]
    lengths = np.array([len(ids) for ids in token_ids])

    def embedded(batch: np.ndarray) -> np.ndarray:
        inputs = model.tokenizer.pad({"input_ids": [token_ids[i] for i in batch]}, return_tensors="pt")
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        found = model(inputs)["sentence_embedding"].float()
        return np.asarray(torch.nn.functional.normalize(found, dim=1).cpu().numpy())

    vectors: np.ndarray | None = None
    with torch.inference_mode():
        batches = batches_by_length(lengths, tokens_per_batch=encoder.tokens_per_batch)
        for batch, part in fitting(batches, embedded):
            if vectors is None:
                vectors = np.empty((len(texts), part.shape[1]), dtype=np.float32)
            vectors[batch] = part
            advance(len(batch))
    assert vectors is not None, "called with at least one text"
    return vectors


def load_encoder(weights: Weights, encoder: EncoderSection) -> Any:
    """The sentence-transformers model of the weights: its own modules, or mean pooling over a plain transformer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoModel

    from pipelines.weights import load_checked

    # Refuses weights with missing keys, which the lines below would fill at random.
    plain = load_checked(AutoModel, weights)
    folder, trusted = str(weights.folder), weights.trusted
    loading = {"dtype": torch.float32, "use_safetensors": True}
    with refusing_code(weights.folder):
        if (weights.folder / MODULES).is_file():
            model = SentenceTransformer(folder, model_kwargs=loading, trust_remote_code=trusted, local_files_only=True)
        else:
            told = {"trust_remote_code": trusted}
            transformer = Transformer(
                folder, model_kwargs={**loading, **told}, processor_kwargs=told, config_kwargs=told
            )
            model = SentenceTransformer(modules=[transformer, Pooling(plain.config.get_text_config().hidden_size)])
    if not (trusted or any(isinstance(module, Pooling) for module in model)):
        raise CompetitionError(
            f"{weights.name} has no pooling among its modules ({MODULES})",
            advice="name weights of a sentence-transformers model: --set weights.name=NAME",
        )
    if model.tokenizer.model_max_length < encoder.max_length:
        raise CompetitionError(
            f"encoder.max_length {encoder.max_length} is more than {weights.name} can read",
            advice=f"set it to {model.tokenizer.model_max_length} or less",
        )
    model.max_seq_length = encoder.max_length
    return model.eval()


def _read_shard(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys ``(n,)`` and vectors ``(n, dim)`` of one file of the cache."""
    advice = "delete the file: its texts are then embedded again"
    arrays = read_arrays(shard, ("keys", "vectors"), what="a file of the embedding cache", advice=advice)
    keys, vectors = arrays["keys"], arrays["vectors"]
    found = f"keys {keys.dtype} {keys.shape}, vectors {vectors.dtype} {vectors.shape}"
    if keys.dtype.kind != "S" or vectors.dtype.kind != "f" or keys.ndim != 1 or vectors.ndim != 2:
        fault = Fault(str(shard), found, "a key and a vector for every text")
    elif len(keys) != len(vectors) or not np.isfinite(vectors).all():
        fault = Fault(str(shard), f"{found}, or numbers that are not finite", "a finite vector for every key")
    else:
        return keys, vectors
    raise CompetitionError("a file of the embedding cache is damaged", faults=[fault], advice=advice)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest().encode()
