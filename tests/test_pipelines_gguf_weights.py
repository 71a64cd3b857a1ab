"""Gemma out of packages: the pieces are joined or refused; weights and token ids are those of the packed file."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.errors import CompetitionError
from pipelines import gguf_weights
from pipelines.gguf_weights import join_pieces, read_model
from pipelines.packaged import PACKAGED
from pipelines.weights import Weights, load_checked, resolve_weights

GEMMA = "google/gemma-3-270m"
PAD, EOS, BOS, UNK = 0, 1, 2, 3

TEXTS = [
    "wireless noise-cancelling headphones, Women's 3/4 Sleeve T-Shirt, 2-pack (S–XXL)",
    "Olla a presión rápida 6 L, acero inoxidable",
    "Cafetière à piston 1 L – verre borosilicaté",
    "Fußballschuhe für Kinder größe 36",
    "Caffè in grani 1kg, tostatura scura, più aroma",
    "capa para celular à prova d'água nº 42",
    "żarówka led e27 ciepła biel",
    "防水 スマホケース ｉＰｈｏｎｅ 【送料無料】",
    "무선 블루투스 이어폰 (블랙, 95)",
    "เคสโทรศัพท์กันน้ำ สำหรับไอโฟน 15",
    "حذاء رياضي للرجال مقاس ٤٢، أسود",
    "Nồi cơm điện tử 1,8 lít, lòng nồi chống dính",
    "स्टेनलेस स्टील पानी की बोतल, क्‍वालिटी १ लीटर",
    "不锈钢保温杯 ５００毫升，大容量",
    "ﬁtness ½ l ™ №5 ① 👩‍🍳 \u1ccd6 🅬 \ue000",
    " a leading blank",
]


def missing_packages() -> str:
    return ", ".join(PACKAGED[GEMMA].missing() + [name for name in _pieces() if not _installed(name)])


def _pieces() -> list[str]:
    return [f"{gguf_weights.PACKAGE}-part{i}" for i in range(1, 5)]


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


needs_packages = pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {missing_packages()}")


# Pieces


@pytest.fixture
def pieces(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"file.part{i}" for i in range(3)]
    for path, content in zip(paths, (b"GG", b"U" * (gguf_weights.BLOCK + 1), b"F"), strict=True):
        path.write_bytes(content)
    return paths


def digest_of(pieces: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in pieces)).hexdigest()


def test_pieces_are_joined_in_their_order(pieces: list[Path], tmp_path: Path) -> None:
    join_pieces(pieces, tmp_path / "file", sha256=digest_of(pieces))
    assert (tmp_path / "file").read_bytes() == b"GG" + b"U" * (gguf_weights.BLOCK + 1) + b"F"


def test_another_order_or_content_is_an_error(pieces: list[Path], tmp_path: Path) -> None:
    sha256 = digest_of(pieces)
    with pytest.raises(CompetitionError, match="damaged"):
        join_pieces(pieces[::-1], tmp_path / "file", sha256=sha256)
    pieces[1].write_bytes(b"U")
    with pytest.raises(CompetitionError, match=sha256):
        join_pieces(pieces, tmp_path / "file", sha256=sha256)


def test_a_piece_that_is_not_there_is_named(pieces: list[Path], tmp_path: Path) -> None:
    sha256 = digest_of(pieces)
    pieces[1].unlink()
    with pytest.raises(CompetitionError, match=r"file\.part1: no such file"):
        join_pieces(pieces, tmp_path / "file", sha256=sha256)


# A packed file


SIZES = {
    "token_embd": (24, 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.attn_q": (16, 16),
    "blk.0.attn_k": (8, 16), "blk.0.attn_v": (8, 16), "blk.0.attn_output": (16, 16), "blk.0.attn_q_norm": (8,),
    "blk.0.attn_k_norm": (8,), "blk.0.post_attention_norm": (16,), "blk.0.ffn_norm": (16,), "blk.0.ffn_gate": (32, 16),
    "blk.0.ffn_up": (32, 16), "blk.0.ffn_down": (16, 32), "blk.0.post_ffw_norm": (16,),
}  # fmt: skip


def write_packed(path: Path, *, without: str = "") -> dict[str, np.ndarray]:
    """A tiny Gemma-3 as a GGUF file, with one tensor left out; gives the tensors."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=size).astype(np.float32) for name, size in SIZES.items() if name != without}
    writer = gguf.GGUFWriter(path, "gemma3")
    for key, value in {
        "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 32, "head_count": 2,
        "head_count_kv": 1, "key_length": 8, "value_length": 8, "sliding_window": 8, "layer_norm_rms_eps": 1e-6,
    }.items():  # fmt: skip
        getattr(writer, f"add_{key}")(value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token{i}" for i in range(24)])
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_packed_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    tensors = write_packed(tmp_path / "tiny.gguf")
    model = read_model(tmp_path / "tiny.gguf")
    assert sum(p.numel() for p in model.parameters()) == sum(values.size for values in tensors.values())
    np.testing.assert_array_equal(model.model.layers[0].mlp.up_proj.weight.detach(), tensors["blk.0.ffn_up"])
    np.testing.assert_array_equal(model.model.layers[0].self_attn.q_proj.weight.detach(), tensors["blk.0.attn_q"])
    assert model.config.rms_norm_eps == 1e-6


@pytest.mark.parametrize(("without", "missing"), [("blk.0.ffn_up", "up_proj"), ("blk.0.attn_q_norm", "q_norm")])
def test_a_tensor_that_the_file_lacks_is_an_error(without: str, missing: str, tmp_path: Path) -> None:
    write_packed(tmp_path / "tiny.gguf", without=without)
    with pytest.raises(CompetitionError, match=rf"1 parameters would be random\n.*{missing}\.weight: not in the file"):
        read_model(tmp_path / "tiny.gguf")


# The converted weights are the package's


@pytest.fixture(scope="module")
def gemma() -> Weights:
    return resolve_weights(GEMMA, source="package")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The packed file, read by the gguf package alone."""
    from gguf import GGUFReader

    joined = tmp_path_factory.mktemp("gguf") / "packed.gguf"
    join_pieces(gguf_weights.piece_paths(), joined, sha256=gguf_weights.SHA256)
    return GGUFReader(joined)


@pytest.fixture(scope="module")
def tokenizer(gemma: Weights) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gemma.folder)


@pytest.fixture(scope="module")
def model(gemma: Weights) -> Any:
    from transformers import AutoModelForCausalLM

    return load_checked(AutoModelForCausalLM, gemma, head_prefixes=()).eval()


@needs_packages
@pytest.mark.weights
def test_every_weight_is_the_packed_one(model: Any, packed: Any) -> None:
    from gguf.quants import dequantize

    names = {
        "token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
        "post_ffw_norm": "post_feedforward_layernorm",
    }  # fmt: skip
    parameters = {name.removeprefix("model."): p.detach().numpy() for name, p in model.named_parameters()}
    for tensor in packed.tensors:
        *layer, kind = tensor.name.removesuffix(".weight").removeprefix("blk.").split(".")
        name = ".".join([*(["layers"] if layer else []), *layer, names[kind], "weight"])
        # Gemma multiplies by one plus the weight of a norm; the packed file holds the sum.
        expected = dequantize(tensor.data, tensor.tensor_type) - ("norm" in kind)
        np.testing.assert_allclose(parameters.pop(name), expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert parameters == {}


@needs_packages
@pytest.mark.weights
def test_the_folder_is_an_ordinary_one(gemma: Weights, model: Any) -> None:
    config = model.config.to_dict()
    assert "quantization_config" not in config
    assert (config["rms_norm_eps"], config["pad_token_id"], config["sliding_window"]) == (1e-6, PAD, 512)
    assert [i for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"] == [5, 11, 17]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert sum(p.numel() for p in model.parameters()) == 268_098_176
    assert not [path.name for path in gemma.folder.iterdir() if path.suffix == ".gguf"]


@needs_packages
@pytest.mark.weights
def test_only_the_head_of_a_classifier_is_new(gemma: Weights) -> None:
    from transformers import AutoModelForSequenceClassification

    classifier = load_checked(AutoModelForSequenceClassification, gemma, num_labels=2)
    assert classifier.score.weight.shape == (2, 640)
    with pytest.raises(CompetitionError, match=r"1 parameters would be random\n.*score\.weight"):
        load_checked(AutoModelForSequenceClassification, gemma, head_prefixes=(), num_labels=2)


# Token ids


def merged_ids(text: str, tokens: list[str], scores: list[float]) -> list[int]:
    """Ids by the rule of sentencepiece BPE: merge the neighbours of the best score until none is a token."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pieces = list(text.replace(" ", "▁"))
    while True:
        pairs = [(scores[vocabulary[a + b]], -i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in vocabulary]
        if not pairs:
            break
        i = -max(pairs)[1]
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    ids = [[vocabulary[p]] if p in vocabulary else [vocabulary[f"<0x{b:02X}>"] for b in p.encode()] for p in pieces]
    return [token for group in ids for token in group]


@pytest.fixture(scope="module")
def vocabulary(packed: Any) -> tuple[list[str], list[float]]:
    tokens, scores = (packed.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores"))
    return tokens, scores


@needs_packages
@pytest.mark.weights
@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_follow_the_packed_vocabulary(text: str, tokenizer: Any, vocabulary: Any) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids == [BOS, *merged_ids(text, *vocabulary)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@needs_packages
@pytest.mark.weights
def test_every_token_has_the_id_of_the_packed_vocabulary(tokenizer: Any, vocabulary: Any) -> None:
    tokens, _ = vocabulary
    blanks = ["▁" * len(token) if token and not token.strip(" ") else token for token in tokens]
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == blanks
    assert len(tokenizer) == len(tokens) == 262_144


@needs_packages
@pytest.mark.weights
def test_token_ids_are_the_published_ones(tokenizer: Any) -> None:
    assert tokenizer("Hello, world!")["input_ids"] == [BOS, 9259, 236764, 1902, 236888]
    assert tokenizer("a   b\n\nc", add_special_tokens=False)["input_ids"] == [236746, 139, 236763, 108, 236755]
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    assert special == (PAD, EOS, BOS, UNK)
    assert [tokenizer.pad_token, tokenizer.bos_token] == ["<pad>", "<bos>"]


@needs_packages
@pytest.mark.weights
def test_each_side_of_a_pair_begins_once(tokenizer: Any) -> None:
    red, shoes = tokenizer("red")["input_ids"], tokenizer("shoes")["input_ids"]
    assert [ids.count(BOS) for ids in (red, shoes)] == [1, 1]
    assert tokenizer("red", "shoes")["input_ids"] == red + shoes


# The model knows what Gemma knows


@needs_packages
@pytest.mark.weights
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The capital of France is the city of", " Paris"),
        ("The capital of France is Paris. The capital of Italy is", " Rome"),
        ("Paris is the capital of", " France"),
        ("one two three four five six", " seven"),
    ],
)
def test_greedy_continuation_is_right(text: str, answer: str, model: Any, tokenizer: Any) -> None:
    inputs = tokenizer(text, return_tensors="pt")
    longer = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(longer[0, -1]) == answer


@needs_packages
@pytest.mark.weights
@pytest.mark.parametrize("text", TEXTS[:4] + TEXTS[7:9])
def test_texts_are_likelier_than_their_tokens_shuffled(text: str, model: Any, tokenizer: Any) -> None:
    first, *rest = tokenizer(text)["input_ids"]
    shuffled = np.random.default_rng(0).permutation(rest).tolist()
    both = [torch.tensor([[first, *ids]]) for ids in (rest, shuffled)]
    with torch.inference_mode():
        loss, loss_shuffled = (float(model(input_ids=ids, labels=ids).loss) for ids in both)
    assert loss < loss_shuffled - 3
    assert loss < np.log(len(tokenizer)) / 2


@needs_packages
@pytest.mark.weights
def test_padding_changes_no_logit(model: Any, tokenizer: Any) -> None:
    texts = ["red shoes", "The capital of France is the city of"]
    padded = tokenizer(texts, padding=True, return_tensors="pt")
    assert padded["input_ids"][0, 0] == PAD
    places = (padded["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    with torch.inference_mode():
        together = model(**padded, position_ids=places).logits[:, -1]
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits[:, -1] for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


# A conversion is whole or not there


@needs_packages
@pytest.mark.weights
def test_the_second_resolve_does_not_convert_again(gemma: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[Path]:
        raise AssertionError("the pieces are read again")

    monkeypatch.setattr(gguf_weights, "piece_paths", refuse)
    assert resolve_weights(GEMMA, source="package") == gemma
    assert gemma.source == f"package {gguf_weights.PACKAGE} {version(gguf_weights.PACKAGE)} (4-bit)"
