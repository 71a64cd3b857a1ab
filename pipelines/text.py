"""From row to model input: the query as written, its English translation, or both; targets; prompts."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

import pandas as pd

from competition.categories import leaf, levels
from competition.errors import CompetitionError
from competition.tasks import Task
from pipelines.sections import PairTextSection, PromptSection, TargetView, View


def english(rows: pd.DataFrame) -> pd.Series:
    """The query's English translation, ``(n_rows,)`` text; the query itself where there is none."""
    if "query_en" not in rows:
        return rows["query"]
    return rows["query_en"].where(rows["query_en"] != "", rows["query"])


def query_text(rows: pd.DataFrame, view: View) -> pd.Series:
    """The query side of the model input, ``(n_rows,)`` text.

    ``both`` joins as the CIKM 2025 AnalytiCup winner did, ``query - translation``, unless they are the same.

    Examples
    --------
    >>> rows = pd.DataFrame({"query": ["zapatos", "shoes"], "query_en": ["shoes", ""]})
    >>> query_text(rows, "both").tolist()
    ['zapatos - shoes', 'shoes']
    >>> query_text(rows, "english").tolist()
    ['shoes', 'shoes']
    """
    if view == "original":
        return rows["query"]
    translated = english(rows)
    if view == "english":
        return translated
    joined = rows["query"] + " - " + translated
    return rows["query"].where(rows["query"] == translated, joined)


def tagged(path: str) -> str:
    """A category path with the depth before every name.

    Examples
    --------
    >>> tagged("home & garden,kitchen, dining & bar,cookware")
    '<1> home & garden <2> kitchen, dining & bar <3> cookware'
    """
    return " ".join(f"<{depth}> {name}" for depth, name in enumerate(levels(path), start=1))


def target_text(rows: pd.DataFrame, task: Task, view: TargetView) -> pd.Series:
    """The target side of the model input, ``(n_rows,)`` text; titles and empty targets stay as they are."""
    if view == "path" or not task.target_is_category:
        return rows["target"]
    show = {"leaf": leaf, "tagged": tagged}[view]
    return rows["target"].where(rows["target"] == "", rows["target"].map(show))


def pair_texts(rows: pd.DataFrame, task: Task, text: PairTextSection) -> pd.DataFrame:
    """The two sides of the model input, columns ``query, target``, aligned with `rows`."""
    queries = query_text(rows, text.view)
    if text.language_tag:
        queries = "[" + rows["language"] + "] " + queries
    return pd.DataFrame({"query": queries, "target": target_text(rows, task, text.target)})


def prompt_texts(rows: pd.DataFrame, task: Task, prompt: PromptSection) -> pd.DataFrame:
    """What the prompt's template asks for, one column per field, aligned with `rows`."""
    fields = {name for _, name, _, _ in Formatter().parse(prompt.template) if name}
    columns = {
        "language": rows["language"],
        "query": rows["query"],
        "english": english(rows),
        "target": target_text(rows, task, prompt.target),
    }
    return pd.DataFrame({name: texts for name, texts in columns.items() if name in fields})


def encode_pairs(tokenizer: Any, texts: pd.DataFrame, *, max_length: int) -> list[dict[str, list[int]]]:
    """Model inputs of every pair, unpadded, at most `max_length` tokens.

    The target is cut first, if need be to nothing. Only a query that is too long by itself is cut, at its end.
    """
    queries, targets = texts["query"].tolist(), texts["target"].tolist()
    if not queries:
        return []
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [len(ids) for ids in tokenizer(queries, add_special_tokens=False, verbose=False)["input_ids"]]
    inputs: list[dict[str, list[int]]] = [{} for _ in queries]
    for fits, cut in ((True, "only_second"), (False, "only_first")):
        places = [i for i, length in enumerate(lengths) if (length < room) == fits]
        if not places:
            continue
        seconds = [targets[i] if fits else "" for i in places]
        encoded = tokenizer([queries[i] for i in places], seconds, truncation=cut, max_length=max_length)
        for j, i in enumerate(places):
            inputs[i] = {name: values[j] for name, values in encoded.items()}
    return inputs


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


def encode_prompts(
    tokenizer: Any, texts: pd.DataFrame, *, template: str, max_length: int
) -> list[dict[str, list[int]]]:
    """Model inputs of every prompt, unpadded, at most `max_length` tokens; the template itself is never cut.

    The target is cut first, then the translation, then the query, each at its end.

    Raises
    ------
    CompetitionError
        The template alone is longer than `max_length`.
    """
    rows = [{str(name): text for name, text in row.items()} for row in texts.to_dict("records")]
    if not rows:
        return []
    encoded = tokenizer([render(template, row)[0] for row in rows], verbose=False)
    inputs = [{name: values[i] for name, values in encoded.items()} for i in range(len(rows))]
    return [
        item if len(item["input_ids"]) <= max_length else _shortened(tokenizer, row, template, max_length)
        for item, row in zip(inputs, rows, strict=True)
    ]


def _shortened(tokenizer: Any, row: Mapping[str, str], template: str, max_length: int) -> dict[str, list[int]]:
    values = dict(row)
    while True:
        prompt, places = render(template, values)
        encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        offsets = encoded.pop("offset_mapping")
        surplus = len(offsets) - max_length
        if surplus <= 0:
            return dict(encoded)
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
