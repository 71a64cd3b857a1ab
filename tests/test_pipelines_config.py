"""Recipes: complete, checked, with overrides; their digest is that of their values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import CompetitionError
from pipelines.config import (
    digest_values,
    learner_name,
    load_recipe,
    parse_override,
    read_toml,
    recipe_names,
    recipe_path,
    recipe_values,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_loads(name: str) -> None:
    assert load_recipe(name).kind == read_toml(recipe_path(name))["kind"]


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_survives_its_plain_values(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    again = type(recipe).model_validate(recipe_values(recipe))
    assert recipe_values(again) == recipe_values(recipe)


def test_all_unknown_keys_and_bad_values_are_named_at_once_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'kind = "lexical"\ncolour = 1\n[text]\nview = "french"\n[head]\nround = 5\nc = -1\n'
        "[ngrams]\nshortest = 4\nlongest = 2\n"
    )
    with pytest.raises(CompetitionError) as raised:
        load_recipe(str(path))
    places = {fault.where for fault in raised.value.faults}
    assert places == {f"mine.toml: {key}" for key in ("colour", "text.view", "head.round", "head.c", "ngrams")}
    assert "found 'french'" in str(raised.value)


@pytest.mark.parametrize("text", ["", 'kind = "forest"\n'])
def test_a_recipe_of_no_known_kind_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(CompetitionError, match=r"mine\.toml: kind"):
        load_recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("raw", [b"kind = \n", b"kind = '\xff'\n"])
def test_a_file_that_is_not_toml_is_refused_by_name(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(raw)
    with pytest.raises(CompetitionError, match=r"mine\.toml is not a readable TOML file"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_an_unknown_recipe_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(CompetitionError, match=r"no recipe is called 'e6'[\s\S]*lexical-linear"):
        load_recipe("e6")


def test_an_override_counts_for_its_learner_only() -> None:
    overrides = ["head.rounds=7", "e5-bi:head.rounds=9", "e5-tree:text.view=original"]
    assert load_recipe("lexical", overrides).head.rounds == 7
    assert load_recipe("e5-bi", overrides).head.rounds == 9
    assert load_recipe("e5-tree", overrides).text.view == "original"
    assert load_recipe("e5-bi", overrides).text.view == load_recipe("e5-bi").text.view


def test_an_override_reaches_the_learner_of_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "tuned.toml"
    path.write_text('kind = "lexical"\n')
    assert learner_name(str(path)) == "tuned"
    assert load_recipe(str(path), ["tuned:head.c=3", "lexical:head.c=4"]).head.c == 3


def test_overrides_may_open_a_table_and_are_checked_like_the_file() -> None:
    assert load_recipe("e5-ce", ["training.lora.r=4"]).training.lora.alpha == 32
    with pytest.raises(CompetitionError, match=r"e5-ce\.toml: training\.lora\.rank"):
        load_recipe("e5-ce", ["training.lora.rank=4"])
    with pytest.raises(CompetitionError, match="'pooling' is not a table"):
        load_recipe("e5-ce", ["pooling.kind=mean"])


@pytest.mark.parametrize("text", ["head.c", "=1", "e5-bi:=1", ""])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(CompetitionError, match="key=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ('a=["x", "y"]', ["x", "y"]),
        ("a=/models/my gemma:3", "/models/my gemma:3"),
        ("a=x=y", "x=y"),
        ("a=", ""),
    ],
)
def test_an_override_is_a_toml_value_or_else_text(text: str, value: object) -> None:
    assert parse_override(text) == (None, "a", value)


def test_a_changed_value_changes_the_digest_and_a_changed_description_does_not() -> None:
    digest = digest_values(recipe_values(load_recipe("lexical")))
    assert digest != digest_values(recipe_values(load_recipe("lexical", ["head.rounds=301"])))
    assert digest == digest_values(recipe_values(load_recipe("lexical", ["description=another"])))


def test_keys_that_came_later_leave_old_digests_alone() -> None:
    """Parts that were made before a switch existed are still found."""
    digests = {"e5-ce": "2bb894675b51734a", "gemma-3-12b": "ba97f71e28a2ca74"}
    full = ["e5-ce:training.precision=fp32"]  # as the recipe was when these digests were taken
    assert {name: digest_values(recipe_values(load_recipe(name, full))) for name in digests} == digests
    for switch in ("training.r_drop=1", "training.schedule=cosine", "text.target=leaf", "text.language_tag=true"):
        recipe = load_recipe("e5-ce", [switch])
        assert digest_values(recipe_values(recipe)) != digests["e5-ce"]
        assert recipe_values(type(recipe).model_validate(recipe_values(recipe))) == recipe_values(recipe)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{query} {title}? {target}", r"unknown fields \{title\}"),
        ("{query} {}? {target}", "unknown fields"),
        ("{query} {query} {target}?", "may stand once"),
        ("{query!r} {target}?", "without a format"),
        ("{query:>9} {target}?", "without a format"),
        ("Is it {target}?", "must be asked about"),
        ("Is it {query}?", "must be asked about"),
        ("{query} {target}? ", "must not end with a blank"),
    ],
)
def test_a_template_that_cannot_be_asked_is_refused(template: str, fault: str) -> None:
    with pytest.raises(CompetitionError, match=rf"text\.template[\s\S]*{fault}"):
        load_recipe("gemma-3-270m-yesno", [f"text.template='{template}'"])


@pytest.mark.parametrize("answers", ['["yes"]', '["yes", "yes"]', '["", "no"]', '[" yes", "no"]'])
def test_answers_are_two_different_words(answers: str) -> None:
    with pytest.raises(CompetitionError, match=r"text\.answers"):
        load_recipe("gemma-3-270m-yesno", [f"text.answers={answers}"])


@pytest.mark.parametrize(
    ("name", "setting", "fault"),
    [
        ("e5-ce", "training.quantize=nf4", "needs training.lora"),
        ("xlm-roberta-base", "training.multi_sample_dropout=4", 'needs pooling = "mean"'),
        ("gemma-3-1b-yesno", "training.multi_sample_dropout=4", "needs a head"),
        ("e5-ce", "training.epochs=0", "greater than 0"),
    ],
)
def test_switches_that_cannot_work_together_are_refused(name: str, setting: str, fault: str) -> None:
    with pytest.raises(CompetitionError, match=fault):
        load_recipe(name, [setting])


def test_answers_may_be_asked_for_without_training() -> None:
    assert load_recipe("gemma-3-270m-yesno", ["training.epochs=0"]).training.epochs == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def reversed_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_the_digest_does_not_depend_on_key_order(values: dict[str, object]) -> None:
    assert digest_values(values) == digest_values(reversed_keys(values))  # type: ignore[arg-type]
