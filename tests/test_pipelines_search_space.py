"""Spaces: every fault is named before anything starts, and the recipe's own values are found in them."""

import re

import pytest

from competition.errors import CompetitionError
from pipelines.config import load_recipe
from pipelines.search_space import Choices, Range, overrides_of, read_space

CE = (
    "training.learning_rate=log:1e-5..1e-4",
    "training.epochs=1..3",
    "training.warmup=0.0..0.2",
    "text.view=original,english,both",
)


def faults_of(*texts: str, name: str = "e5-ce", given: tuple[str, ...] = (), recorded: tuple[str, ...] = ()) -> str:
    with pytest.raises(CompetitionError) as caught:
        read_space(texts, name, given=given, recorded=recorded)
    return "\n".join(map(str, caught.value.faults))


def test_all_grammar_faults_are_named_at_once() -> None:
    wrong = {
        "training.epochs": "no recipe key",
        "=1,2": "no recipe key",
        "training..epochs=1,2": "no recipe key",
        "training.epochs=3..1": "3 is not below 1",
        "training.epochs=2..2": "2 is not below 2",
        "training.warmup=0..much": "no number: 'much'",
        "training.weight_decay=0..inf": "no number: 'inf'",
        "training.learning_rate=log:0..1": "log of 0",
        "text.view=both": "a single one",
        "text.view=both,both": "a repeated value",
        "text.view=both,,english": "an empty value",
    }
    found = faults_of(*wrong)
    assert len(found.splitlines()) == len(wrong)
    for text, words in wrong.items():
        assert any(line.startswith(f"--vary {text}: ") and words in line for line in found.splitlines()), text


def test_an_empty_space_is_refused() -> None:
    assert "nothing varies" in faults_of()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("training.learning_rat=0.1..0.2", "learning_rat=0.1: .*Extra inputs"),
        ("trainig.epochs=1,2", "trainig.epochs=1: .*trainig: Extra inputs"),
        ("training.batch_size=0..8", "batch_size=0: .*greater than or equal to 1"),
        ("training.warmup=0.5..1.5", "warmup=1.5: .*less than 1"),
        ("training.batch_size=1.0..9.0", "batch_size=4.05.*valid integer"),
        ("text.view=both,englisch", "view=englisch: .*found 'englisch'"),
        ("kind.of=1,2", "'kind' is not a table"),
    ],
)
def test_keys_and_values_that_the_recipe_refuses_are_named(text: str, found: str) -> None:
    assert re.search(found, faults_of(text))


def test_a_rule_on_one_key_refuses_and_a_rule_between_keys_waits_for_the_trial() -> None:
    answers = 'text.answers=["yes","no"],["yes","yes"]'
    assert "two different words" in faults_of(answers, name="gemma-3-270m-yesno")
    space = read_space(["ngrams.longest=1,4", "ngrams.shortest=1,2"], "lexical")
    assert [str(each) for each in space.dimensions] == ["1,4", "1,2"]


def test_a_key_varies_once_and_is_set_nowhere_else() -> None:
    assert "each key once" in faults_of("training.epochs=1..2", "training.epochs=1..3")
    assert "--set sets it too" in faults_of("training.epochs=1..3", given=["training.epochs=2"])
    assert "--set sets it too" in faults_of("training.epochs=1..3", given=["e5-ce:training.epochs=2"])
    assert "for every base learner" in faults_of("training.epochs=1..3", recorded=["training.epochs=2"])
    read_space(["training.epochs=1..3"], "e5-ce", recorded=["e5-ce:training.epochs=2", "training.warmup=0.1"])


def test_a_recipe_that_is_not_usable_is_refused_as_such() -> None:
    with pytest.raises(CompetitionError, match="no recipe is called"):
        read_space(CE, "e5-cee")


def test_ends_decide_between_whole_and_real_numbers() -> None:
    space = {each.key: each for each in read_space(CE, "e5-ce").dimensions}
    assert space["training.epochs"] == Range("training.epochs", 1, 3)
    assert space["training.epochs"].distribution().to_external_repr(2.0) == 2
    assert space["training.learning_rate"] == Range("training.learning_rate", 1e-5, 1e-4, log=True)
    assert space["text.view"] == Choices("text.view", ("original", "english", "both"))


def test_the_order_of_the_keys_changes_nothing() -> None:
    assert read_space(CE, "e5-ce") == read_space(CE[::-1], "e5-ce")


@pytest.mark.parametrize("name", ["e5-ce", "qwen3-4b"])
def test_own_values_leave_the_recipe_as_it_is(name: str) -> None:
    texts = [*CE, "training.max_rows=100,200", 'training.lora.target_modules=all-linear,["q_proj"]']
    own = read_space(texts, name).own_values(load_recipe(name), name, ())
    assert {"training.epochs", "training.learning_rate", "training.warmup", "text.view"} <= own.keys()
    assert "training.max_rows" not in own
    assert ("training.lora.target_modules" in own) == (name == "qwen3-4b")
    assert load_recipe(name, overrides_of(own)) == load_recipe(name)


def test_own_values_outside_of_the_space_are_left_out() -> None:
    texts = ["training.epochs=3..5", "text.view=original,english", "training.warmup=0.1..0.2"]
    assert read_space(texts, "e5-ce").own_values(load_recipe("e5-ce"), "e5-ce", ()) == {}


def test_own_values_that_are_not_whole_are_in_no_whole_range() -> None:
    overrides = ["training.epochs=1.5"]
    space = read_space(["training.epochs=1..3"], "e5-ce", recorded=["e5-ce:training.epochs=1.5"])
    assert space.own_values(load_recipe("e5-ce", overrides), "e5-ce", overrides) == {}
