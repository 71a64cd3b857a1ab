"""Model input: views of query and target, pairs and prompts; what is cut when they are too long."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tokenizer

from competition.categories import CategoryTree
from competition.errors import CompetitionError
from competition.tasks import QC, QI
from pipelines.encoding import encode_pairs, encode_prompts, render
from pipelines.sections import PairTextSection, PromptSection
from pipelines.text import english, pair_texts, prompt_texts, query_text, target_text, with_ancestors
from pipelines.tokens import TokenRows

TEXT = st.text(max_size=6)


def rows_of(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["query", "query_en"], dtype="str")


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_the_views_follow_their_definition_row_by_row(pairs: list[tuple[str, str]]) -> None:
    rows = rows_of(pairs)
    translated = [translation or query for query, translation in pairs]
    assert query_text(rows, "original").tolist() == [query for query, _ in pairs]
    assert query_text(rows, "english").tolist() == english(rows).tolist() == translated
    joined = [q if q == t else f"{q} - {t}" for (q, _), t in zip(pairs, translated, strict=True)]
    assert query_text(rows, "both").tolist() == joined


@pytest.mark.parametrize("view", ["original", "english", "both"])
def test_without_translations_every_view_is_the_query(view: str) -> None:
    rows = pd.DataFrame({"query": ["zapatos", ""]})
    assert query_text(rows, view).tolist() == ["zapatos", ""]  # type: ignore[arg-type]


@pytest.mark.parametrize("view", ["original", "english", "both"])
def test_the_text_is_aligned_with_the_rows(view: str) -> None:
    rows = rows_of([("a", "x"), ("b", ""), ("c", "c")]).iloc[[2, 0, 1]]
    assert query_text(rows, view).index.tolist() == [2, 0, 1]  # type: ignore[arg-type]


# Targets and tags

PATHS = ["home & garden,kitchen, dining & bar,cookware", "shoes", ""]


@pytest.mark.parametrize(
    ("view", "texts"),
    [
        ("path", PATHS),
        ("leaf", ["cookware", "shoes", ""]),
        ("tagged", ["<1> home & garden <2> kitchen, dining & bar <3> cookware", "<1> shoes", ""]),
        ("ancestors", ["cookware < kitchen, dining & bar < home & garden", "shoes", ""]),
        ("siblings", PATHS),  # without a tree there are none
    ],
)
def test_categories_are_shown_as_asked_and_titles_as_they_are(view: Any, texts: list[str]) -> None:
    rows = pd.DataFrame({"target": PATHS}, index=[4, 2, 9])
    assert target_text(rows, QC, view).tolist() == texts
    assert target_text(rows, QC, view).index.tolist() == [4, 2, 9]
    assert target_text(rows, QI, view).tolist() == PATHS


def test_siblings_are_those_of_the_tree_few_and_short() -> None:
    many = [f"home,room {i}" for i in range(9)]
    long = [f"garden,{letter * 50}" for letter in "abcde"]
    tree = CategoryTree.of([*many, *long, "pets,dogs,toys", "shoes"])
    rows = pd.DataFrame({"target": ["home,room 2", "garden,new", "pets,dogs,toys", "shoes", "", "none,such"]})
    texts = target_text(rows, QC, "siblings", tree).tolist()
    assert texts[0] == "home,room 2 (beside: room 0, room 1, room 3, room 4, room 5)"
    assert texts[1] == f"garden,new (beside: {'a' * 50}, {'b' * 50})"
    assert texts[2:] == ["pets,dogs,toys", "shoes (beside: garden, home, pets)", "", "none,such"]
    assert pair_texts(rows.assign(query="x"), QC, PairTextSection(target="siblings"), tree)["target"].tolist() == texts


def test_the_nearest_ancestors_are_shown() -> None:
    assert with_ancestors("a,b,c,d,e,f") == "f < e < d < c"


def test_the_language_stands_before_the_query() -> None:
    rows = rows_of([("zapatos", "shoes")]).assign(language="es", target="shoes")
    assert pair_texts(rows, QC, PairTextSection(language_tag=True))["query"].tolist() == ["[es] zapatos - shoes"]
    assert pair_texts(rows, QC, PairTextSection())["query"].tolist() == ["zapatos - shoes"]


# Truncation


def items_of(rows: TokenRows) -> list[dict[str, list[int]]]:
    """Each row's model input, as a tokenizer would give it."""
    batches = [rows.batch(np.array([i])) for i in range(len(rows))]
    return [{name: values[0].tolist() for name, values in batch.items()} for batch in batches]


LONG = st.text(alphabet="ab é掃 -", max_size=40)


@pytest.fixture(scope="module", params=["bert", "xlmr", "gemma"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    tokenizer = make_tokenizer(request.param)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


@given(st.lists(st.tuples(LONG, LONG), min_size=1, max_size=4))
def test_the_query_is_cut_only_where_it_is_too_long_by_itself(tokenizer: Any, pairs: list[tuple[str, str]]) -> None:
    limit = 24
    texts = pd.DataFrame(pairs, columns=["query", "target"], dtype="str")
    for (query, target), item in zip(pairs, items_of(encode_pairs(tokenizer, texts, max_length=limit)), strict=True):
        encoded = tokenizer([query, query], [target, ""])  # in lists, for "" alone would be taken for no second text
        whole, alone = ({name: values[i] for name, values in encoded.items()} for i in (0, 1))
        assert len(item["input_ids"]) == len(item["attention_mask"]) == min(len(whole["input_ids"]), limit)
        assert set(item) == set(whole)
        if len(whole["input_ids"]) <= limit:
            assert item == whole
        ids = tokenizer(query, add_special_tokens=False)["input_ids"]
        room = limit - tokenizer.num_special_tokens_to_add(pair=True)
        start = next(i for i in range(3) if alone["input_ids"][i : i + len(ids)] == ids)
        assert item["input_ids"][start : start + min(len(ids), room)] == ids[:room]


@given(st.lists(st.tuples(LONG, LONG, LONG), min_size=1, max_size=4))
def test_a_prompt_loses_its_target_first_then_the_translation_then_the_query(
    tokenizer: Any, rows: list[tuple[str, str, str]]
) -> None:
    limit, template = 60, "Q: {query} E: {english} T: {target} ?"
    texts = pd.DataFrame(rows, columns=["query", "english", "target"], dtype="str")
    items = items_of(encode_prompts(tokenizer, texts, template=template, max_length=limit))
    for values, item in zip(texts.to_dict("records"), items, strict=True):
        whole = tokenizer(render(template, values)[0])  # type: ignore[arg-type]
        assert len(item["input_ids"]) <= limit
        if len(whole["input_ids"]) <= limit:
            assert item["input_ids"] == whole["input_ids"]
            continue
        text = tokenizer.decode(item["input_ids"], skip_special_tokens=True)
        assert "T:" in text, "the template is never cut"
        assert text.rstrip().endswith("?")
        shortest = tokenizer(render(template, {**values, "target": ""})[0])  # type: ignore[dict-item]
        if len(shortest["input_ids"]) <= limit:
            assert f"Q: {values['query']} E: {values['english']} T:" in text
            assert len(item["input_ids"]) > limit - 9, "no more is cut than must be"


def test_a_template_longer_than_the_limit_is_refused() -> None:
    texts = pd.DataFrame({"query": ["shoes"], "target": ["shoes"]})
    with pytest.raises(CompetitionError, match="template alone has more than 8 tokens"):
        encode_prompts(make_tokenizer("bert"), texts, template="A long question {query} {target}", max_length=8)


def test_a_prompt_asks_for_the_fields_of_its_template_only() -> None:
    rows = rows_of([("zapatos", "")]).assign(language="es", target="pets,dogs")
    prompt = PromptSection(template="{language} {english} {target}?", target="leaf")
    assert prompt_texts(rows, QC, prompt).to_dict("records") == [
        {"language": "es", "english": "zapatos", "target": "dogs"}
    ]


def test_braces_in_a_text_are_only_text() -> None:
    assert render("{query}|{target}", {"query": "{target}", "target": "{x}"})[0] == "{target}|{x}"
