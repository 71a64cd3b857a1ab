"""From row to model input: the query as written, its English translation, or both; targets; prompts."""

from string import Formatter

import pandas as pd

from competition.categories import leaf, levels
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


def target_kind(task: Task) -> str:
    """What a target of the task is, in one word."""
    return "category" if task.target_is_category else "title"


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
        "kind": pd.Series(target_kind(task), index=rows.index, dtype="str"),
    }
    return pd.DataFrame({name: texts for name, texts in columns.items() if name in fields})
