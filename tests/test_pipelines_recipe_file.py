"""A recipe that is written reads back as the same recipe."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import load_recipe, recipe_names
from pipelines.recipe_file import toml_value, write_recipe

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "new" / "mine.toml", load_recipe(name))
    assert load_recipe(str(path)) == load_recipe(name)
    assert [file.name for file in path.parent.iterdir()] == ["mine.toml"]


def test_tables_inside_tables_and_odd_texts_survive(tmp_path: Path) -> None:
    recipe = load_recipe("qwen3-4b", ['training.lora.target_modules=["q_proj", "v_proj"]', "training.max_rows=7"])
    recipe = recipe.model_copy(update={"description": 'a "quoted"\nline \\ with \x7f and 掃除機'})
    assert load_recipe(str(write_recipe(tmp_path / "mine.toml", recipe))) == recipe


@given(st.one_of(PLAIN, st.lists(PLAIN)))
def test_values_survive_toml(value: Any) -> None:
    read = tomllib.loads(f"value = {toml_value(value)}")["value"]
    assert read == value
    assert type(read) is type(value)
