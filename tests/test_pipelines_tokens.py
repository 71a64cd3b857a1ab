"""Flat token arrays: padding, batches of an epoch, tokens of a run; equal to what the tokenizer itself would give."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_tokenizer

from pipelines.encoding import RunTokens, encode_pairs
from pipelines.tokens import Joined, TokenRows, TrainingBatches, batches_by_length

SEQUENCES = st.lists(st.lists(st.integers(1, 50), max_size=9), min_size=1, max_size=12)
TEXT = st.text(alphabet="ab é掃 -", max_size=12)


@given(SEQUENCES, st.booleans(), st.randoms())
def test_a_batch_holds_each_rows_tokens_and_padding_on_its_side(
    sequences: list[list[int]], left: bool, random: Any
) -> None:
    rows = TokenRows.of(sequences, pad=99, left=left)
    chosen = [random.randrange(len(sequences)) for _ in range(5)]
    batch = rows.batch(np.array(chosen))
    longest = max(1, max(len(sequences[i]) for i in chosen))
    for i, ids, mask in zip(chosen, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        blanks = [99] * (longest - len(sequences[i]))
        assert ids == (blanks + sequences[i] if left else sequences[i] + blanks)
        assert mask == [int(id_ != 99) for id_ in ids]
    again = rows.take(np.array(chosen)).batch(np.arange(5))
    assert all((again[name] == values).all() for name, values in batch.items())


@given(SEQUENCES)
def test_renumbered_tokens_can_be_numbered_back(sequences: list[list[int]]) -> None:
    rows = TokenRows.of(sequences, pad=0)
    kept = np.union1d([0], rows.token_ids())
    table = np.full(60, -1)
    table[kept] = np.arange(len(kept))
    new = rows.renumbered(table)
    assert new.pad == 0
    assert kept[new.ids].tolist() == rows.ids.tolist()


def test_joined_tasks_name_each_rows_head() -> None:
    joined = Joined.of([TokenRows.of([[1], [2, 3]]), TokenRows.of([[4, 5]])])
    batch = joined.batch(np.array([2, 0]))
    assert batch["head"].tolist() == [1, 0]
    assert batch["input_ids"].tolist() == [[4, 5], [1, 0]]


# Batches of an epoch


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=300),
    st.integers(1, 16),
    st.one_of(st.none(), st.integers(16, 400)),
    st.integers(1, 3),
)
@settings(deadline=None)
def test_every_row_is_in_an_epoch_once_and_all_processes_take_equal_steps(
    lengths: list[int], rows_per_batch: int, tokens: int | None, world: int
) -> None:
    all_lengths = np.array(lengths)
    shards = [
        list(TrainingBatches(all_lengths, rows_per_batch, 5, tokens_per_batch=tokens, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(shard) for shard in shards}) == 1
    batches = [batch for step in zip(*shards, strict=True) for batch in step]
    n_repeated = -len(TrainingBatches(all_lengths, rows_per_batch, 5, tokens_per_batch=tokens)) % world
    whole = batches[: len(batches) - n_repeated]
    assert sorted(np.concatenate(whole).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= rows_per_batch
        assert tokens is None or len(batch) == 1 or len(batch) * all_lengths[batch].max() <= tokens


def test_batches_are_of_similar_length_in_random_order_and_differ_by_epoch() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    batches = TrainingBatches(lengths, 16, seed=1)
    first, again = list(batches), list(batches)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    assert padded < 1.05 * lengths.sum()
    longest = [lengths[batch].max() for batch in first]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3, "neither ascending nor descending"
    batches.set_epoch(1)
    assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in first]
    assert len(batches) == len(first)


def test_without_a_token_budget_only_the_last_batch_of_an_epoch_is_short() -> None:
    sizes = sorted(len(batch) for batch in TrainingBatches(np.arange(1, 8 * 250 + 4), 8, seed=0))
    assert sizes == [3] + [8] * 250


# Tokens


@pytest.mark.parametrize("kind", ["bert", "xlmr", "gemma"])
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
@settings(deadline=None)
def test_pairs_are_what_the_tokenizer_makes_of_them(kind: str, pairs: list[tuple[str, str]]) -> None:
    tokenizer = make_tokenizer(kind)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    rows = encode_pairs(tokenizer, pd.DataFrame(pairs, columns=["query", "target"], dtype="str"), max_length=500)
    expected = tokenizer([query for query, _ in pairs], [target for _, target in pairs], padding=True)
    batch = rows.batch(np.arange(len(pairs)))
    assert {name: values.tolist() for name, values in batch.items()} == dict(expected)


def test_a_runs_texts_are_tokenised_once_and_new_ones_when_they_come() -> None:
    seen: list[int] = []

    def encode(texts: pd.DataFrame) -> TokenRows:
        seen.append(len(texts))
        return TokenRows.of([[len(text)] for text in texts["query"] + texts["target"]])

    pairs = [("a", "b"), ("a", "cc"), ("a", "b"), ("ddd", "b")]
    texts = pd.DataFrame(pairs, columns=["query", "target"], dtype="str")
    tokens = RunTokens.read(encode, texts)
    inputs, codes = tokens.of(texts.iloc[[3, 0, 2]])
    assert seen == [3]
    assert inputs.take(codes).batch(np.arange(3))["input_ids"].ravel().tolist() == [4, 2, 2]
    fresh = pd.DataFrame([("new", "one"), ("a", "b"), ("new", "one")], columns=["query", "target"], dtype="str")
    inputs, codes = tokens.of(fresh)
    assert seen == [3, 2]
    assert inputs.take(codes).batch(np.arange(3))["input_ids"].ravel().tolist() == [6, 2, 6]
    assert codes.tolist() == [0, 1, 0]


def test_a_budget_bounds_batches_that_are_scored() -> None:
    batches = batches_by_length(np.array([3, 9, 2, 8]), tokens_per_batch=100, rows_per_batch=3)
    assert [batch.tolist() for batch in batches] == [[1, 3, 0], [2]]
