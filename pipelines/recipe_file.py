"""Recipes as files: a complete recipe written as TOML that reads back as the same recipe."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import Recipe, load_recipe


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """The recipe's file, written in one step, every value spelled out; it reads back as the same recipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.toml")
    try:
        temporary.write_text(recipe_toml(recipe), encoding="utf-8")
        assert load_recipe(str(temporary)) == recipe, "a recipe reads back as it was written"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML. Keys without a value (TOML has none for that) are left out: it is their default."""
    return "\n".join(_lines(recipe.model_dump(mode="json"), ""))


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """The table's own values first, then the tables in it: TOML would take later values for theirs."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    yield from (
        f"{key} = {toml_value(value)}" for key, value in table.items() if key not in inner and value is not None
    )
    yield ""
    for key, value in inner.items():
        yield f"[{path}{key}]"
        yield from _lines(value, f"{path}{key}.")


def toml_value(value: Any) -> str:
    r"""A text, number, truth value or list of them as TOML.

    Examples
    --------
    >>> print(toml_value(['say "no"', "a\nb"]), toml_value(True), toml_value(5e-05))
    ["say \"no\"", "a\nb"] true 5e-05
    """
    if isinstance(value, str):
        # JSON's escapes are TOML's too, but for the one control character that JSON lets stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return f"[{', '.join(map(toml_value, value))}]"
