"""From row to model input: the query as written, its English translation, or both; targets; prompts."""

from collections.abc import Callable
from functools import partial
from string import Formatter

import pandas as pd

from competition.augmentation import SHOWN
from competition.categories import CategoryTree, leaf, levels
from competition.cleaning import map_distinct
from competition.tasks import Task
from pipelines.sections import PairTextSection, PromptSection, TargetView, View

N_ANCESTORS = 3
N_SIBLINGS = 5
SIBLINGS_LENGTH = 120  # characters


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


def with_ancestors(path: str) -> str:
    """The last level of a category path, then at most `N_ANCESTORS` above it, the nearest first.

    Examples
    --------
    >>> with_ancestors("home & garden,kitchen, dining & bar,cookware")
    'cookware < kitchen, dining & bar < home & garden'
    """
    return " < ".join(levels(path)[::-1][: N_ANCESTORS + 1])


def with_siblings(path: str, tree: CategoryTree) -> str:
    """A category path and the first of its siblings in the tree, at most `N_SIBLINGS` in `SIBLINGS_LENGTH` characters.

    Examples
    --------
    >>> with_siblings("pets,dogs", CategoryTree.of(["pets,dogs", "pets,cats,toys", "pets,birds"]))
    'pets,dogs (beside: birds, cats)'
    """
    *above, own = levels(path)
    others = [name for name in tree.names_below.get(",".join(above), ()) if name != own][:N_SIBLINGS]
    while others and len(", ".join(others)) > SIBLINGS_LENGTH:
        others.pop()
    return f"{path} (beside: {', '.join(others)})" if others else path


def target_kind(task: Task) -> str:
    """What a target of the task is, in one word."""
    return "category" if task.target_is_category else "title"


def target_text(rows: pd.DataFrame, task: Task, view: TargetView, tree: CategoryTree | None = None) -> pd.Series:
    """The target side of the model input, ``(n_rows,)`` text; titles and empty targets stay as they are.

    A row that brings a text for its target (`competition.augmentation.SHOWN`) is shown with that; `tree` is what
    ``siblings`` are looked for in.
    """
    targets = rows["target"]
    if SHOWN in rows:
        shown = rows[SHOWN].fillna("")
        targets = shown.where(shown != "", targets)
    if view == "path" or not task.target_is_category:
        return targets
    views: dict[str, Callable[[str], str]] = {
        "leaf": leaf,
        "tagged": tagged,
        "ancestors": with_ancestors,
        "siblings": partial(with_siblings, tree=tree or CategoryTree.of(())),
    }
    return targets.where(targets == "", map_distinct(targets, views[view]))


def pair_texts(rows: pd.DataFrame, task: Task, text: PairTextSection, tree: CategoryTree | None = None) -> pd.DataFrame:
    """The two sides of the model input, columns ``query, target``, aligned with `rows`; `tree` as in `target_text`."""
    queries = query_text(rows, text.view)
    if text.language_tag:
        queries = "[" + rows["language"] + "] " + queries
    return pd.DataFrame({"query": queries, "target": target_text(rows, task, text.target, tree)})


def prompt_texts(
    rows: pd.DataFrame, task: Task, prompt: PromptSection, tree: CategoryTree | None = None
) -> pd.DataFrame:
    """What the prompt's template asks for, one column per field, aligned with `rows`; `tree` as in `target_text`."""
    fields = {name for _, name, _, _ in Formatter().parse(prompt.template) if name}
    columns = {
        "language": rows["language"],
        "query": rows["query"],
        "english": english(rows),
        "target": target_text(rows, task, prompt.target, tree),
        "kind": pd.Series(target_kind(task), index=rows.index, dtype="str"),
    }
    return pd.DataFrame({name: texts for name, texts in columns.items() if name in fields})
