"""From texts to token ids: pairs and prompts of limited length; every text once for all folds and epochs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import CompetitionError
from pipelines.tokens import Inputs, TokenRows, spans, starts_of

SEPARATOR = "\x1f"


@dataclass(frozen=True, eq=False)
class RunTokens:
    """Model inputs of the texts of a run, made once; texts that are not of the run are tokenised when they come.

    Attributes
    ----------
    encode
        From texts, ``(n_rows, ...)``, to their inputs.
    known
        The distinct texts of the run, one string each.
    inputs
        Their inputs.
    """

    encode: Callable[[pd.DataFrame], Inputs]
    known: pd.Index
    inputs: Inputs

    @classmethod
    def read(cls, encode: Callable[[pd.DataFrame], Inputs], texts: pd.DataFrame) -> "RunTokens":
        """All distinct rows of `texts`, tokenised."""
        texts = texts.drop_duplicates(ignore_index=True)
        return cls(encode, pd.Index(_joined_texts(texts)), encode(texts))

    def of(self, texts: pd.DataFrame) -> tuple[Inputs, np.ndarray]:
        """Inputs of the distinct texts, and which of them every row reads, int64 ``(n_rows,)``."""
        codes, distinct = pd.factorize(_joined_texts(texts))
        places = self.known.get_indexer(pd.Index(distinct))
        if (places >= 0).all():
            return self.inputs.take(places), codes
        first = np.unique(codes, return_index=True)[1]
        return self.encode(texts.iloc[first]), codes


def _joined_texts(texts: pd.DataFrame) -> pd.Series:
    columns = [texts[name] for name in texts.columns]
    joined = columns[0]
    for column in columns[1:]:
        joined = joined + SEPARATOR + column
    return joined


def padding(tokenizer: Any) -> dict[str, Any]:
    """How rows are padded for this tokenizer: the arguments of `TokenRows`."""
    return {"pad": tokenizer.pad_token_id, "left": tokenizer.padding_side == "left"}


@dataclass(frozen=True)
class PairLayout:
    """The special tokens around the two sides of a pair, as the tokenizer's own template places them.

    Attributes
    ----------
    special
        Ids before, between and after the sides.
    types
        Token types of the ids before, of the first side, between, of the second side, after; None without types.
    """

    special: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    types: tuple[tuple[int, ...], ...] | None

    @property
    def n_special(self) -> int:
        """How many special tokens a pair has."""
        return sum(map(len, self.special))

    @classmethod
    def of(cls, tokenizer: Any) -> "PairLayout":
        """Read off a pair of one letter each."""
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
        pair = tokenizer("a", "b")
        ids, n_special = pair["input_ids"], tokenizer.num_special_tokens_to_add(pair=True)
        assert len(ids) == len(first) + len(second) + n_special, "a pair is its sides and special tokens"
        i, j = next(
            (i, j)
            for i in range(n_special + 1)
            for j in range(i + len(first), n_special + len(first) + 1)
            if ids[i : i + len(first)] == first and ids[j : j + len(second)] == second
        )
        cuts = [0, i, i + len(first), j, j + len(second), len(ids)]
        before, _, between, _, after = (tuple(ids[a:b]) for a, b in pairwise(cuts))
        types = pair.get("token_type_ids")
        kinds = None if types is None else tuple(tuple(types[a:b]) for a, b in pairwise(cuts))
        return cls((before, between, after), kinds)


def encode_pairs(tokenizer: Any, texts: pd.DataFrame, *, max_length: int) -> TokenRows:
    """Model inputs of every pair ``query, target``, unpadded, at most `max_length` tokens.

    Every distinct query and every distinct target is tokenised once. The target is cut first, if need be to
    nothing. Only a query that is too long by itself is cut, at its end.
    """
    layout = PairLayout.of(tokenizer)
    queries, query = distinct_tokens(tokenizer, texts["query"])
    targets, target = distinct_tokens(tokenizer, texts["target"])
    room = max_length - layout.n_special
    query_lengths = np.minimum(queries.lengths[query], room)
    target_lengths = np.minimum(targets.lengths[target], room - query_lengths)
    one = np.zeros(len(texts), dtype=np.int64)
    before, between, after = (TokenRows.of([ids]) for ids in layout.special)
    blocks = [
        (before, one, before.lengths[one]),
        (queries, query, query_lengths),
        (between, one, between.lengths[one]),
        (targets, target, target_lengths),
        (after, one, after.lengths[one]),
    ]
    return _side_by_side(blocks, layout.types, **padding(tokenizer))


def distinct_tokens(tokenizer: Any, texts: pd.Series, *, max_length: int | None = None) -> tuple[TokenRows, np.ndarray]:
    """Tokens of every distinct text, and which of them each row has.

    With `max_length` a text stands between its special tokens and is cut at its end; without, it is bare and whole.
    """
    codes, distinct = pd.factorize(texts)
    whole = {"add_special_tokens": False, "verbose": False}
    how = whole if max_length is None else {"truncation": True, "max_length": max_length}
    ids = tokenizer(list(distinct), **how)["input_ids"] if len(distinct) else []
    return TokenRows.of(ids, **padding(tokenizer)), codes


def _side_by_side(
    blocks: list[tuple[TokenRows, np.ndarray, np.ndarray]],
    types: tuple[tuple[int, ...], ...] | None,
    *,
    pad: int,
    left: bool,
) -> TokenRows:
    """The first tokens of each block's row, block after block, row after row; a block is its texts, codes, lengths."""
    starts = starts_of(np.asarray(np.sum([lengths for _, _, lengths in blocks], axis=0, dtype=np.int64)))
    ids = np.empty(int(starts[-1]), dtype=np.int32)
    kinds = None if types is None else np.zeros(len(ids), dtype=np.int8)
    begins = starts[:-1].copy()
    for k, (texts, codes, lengths) in enumerate(blocks):
        places = spans(begins, lengths)
        ids[places] = texts.ids[spans(texts.starts[:-1][codes], lengths)]
        if kinds is not None and types is not None and types[k]:
            kinds[places] = np.resize(np.array(types[k], dtype=np.int8), len(places))  # a side has one type
        begins += lengths
    return TokenRows(ids, starts, kinds, pad, left)


def render(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The prompt, and where in it every field's value begins and ends.

    Examples
    --------
    >>> render("{query} or {target}?", {"query": "a", "target": "bc"})
    ('a or bc?', {'query': (0, 1), 'target': (5, 7)})
    """
    prompt, places = "", {}
    for literal, field, _, _ in Formatter().parse(template):
        prompt += literal
        if field is not None:
            places[field] = (len(prompt), len(prompt) + len(values[field]))
            prompt += values[field]
    return prompt, places


def encode_prompts(tokenizer: Any, texts: pd.DataFrame, *, template: str, max_length: int) -> TokenRows:
    """Model inputs of every prompt, unpadded, at most `max_length` tokens; the template itself is never cut.

    The target is cut first, then the translation, then the query, each at its end.

    Raises
    ------
    CompetitionError
        The template alone is longer than `max_length`.
    """
    rows = [{str(name): text for name, text in row.items()} for row in texts.to_dict("records")]
    encoded = tokenizer([render(template, row)[0] for row in rows], verbose=False)["input_ids"] if rows else []
    ids = [
        whole if len(whole) <= max_length else _shortened(tokenizer, row, template, max_length)
        for whole, row in zip(encoded, rows, strict=True)
    ]
    return TokenRows.of(ids, **padding(tokenizer))


def _shortened(tokenizer: Any, row: Mapping[str, str], template: str, max_length: int) -> list[int]:
    values = dict(row)
    while True:
        prompt, places = render(template, values)
        encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        offsets = encoded.pop("offset_mapping")
        surplus = len(offsets) - max_length
        if surplus <= 0:
            return list(encoded["input_ids"])
        field = next((name for name in ("target", "english", "query") if values.get(name)), None)
        if field is None:
            raise CompetitionError(
                f"the prompt's template alone has more than {max_length} tokens",
                advice="shorten text.template or raise max_length",
            )
        begin, end = places[field]
        starts = [max(start, begin) for start, stop in offsets if begin < stop and start < end and start < stop]
        last = starts[max(len(starts) - surplus, 0)] if starts else begin
        values[field] = values[field][: min(last, end - 1) - begin]  # always shorter: this ends
