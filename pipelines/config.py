"""Recipes: one TOML file per base learner, complete; unknown keys are refused with file and key named.

Every kind may have a table ``[extra]``: pseudo-labelled or translated rows to train on besides a fold's own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from competition.errors import CompetitionError, Fault
from competition.json_files import misfit
from competition.regular_files import is_file
from competition.toml_files import parse_toml as parse_toml
from competition.toml_files import read_toml as read_toml
from pipelines.augment_section import AugmentSection, TextAugmentSection
from pipelines.secrets import refuse_secrets
from pipelines.sections import CausalTrainingSection, PairTextSection, PromptSection, TextSection, TrainingSection
from pipelines.sections import ExtraSection as ExtraSection
from pipelines.sections import Section as Section
from pipelines.sections import View as View
from pipelines.sections import WeightsSection as WeightsSection

RECIPES = Path(__file__).parent / "recipes"

LONGEST_OVERRIDE = 10_000
MOST_SHOWN = 80

Head = Literal["logistic", "lightgbm", "mlp"]


class LexicalHead(Section):
    """What turns lexical features into a score."""

    kind: Literal["linear", "lightgbm"] = "lightgbm"
    c: float = Field(1.0, gt=0)
    rounds: int = Field(300, ge=1)
    leaves: int = Field(31, ge=2)
    learning_rate: float = Field(0.05, gt=0)
    min_rows_per_leaf: int = Field(40, ge=1)


class NgramSection(Section):
    """Character n-grams inside word boundaries, TF-IDF weighted."""

    shortest: int = Field(2, ge=1)
    longest: int = Field(4, ge=1)
    max_features: int = Field(200_000, ge=100)

    @model_validator(mode="after")
    def _ordered(self) -> "NgramSection":
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) must not exceed longest ({self.longest})")
        return self


class LexicalRecipe(Section):
    """Character n-gram TF-IDF and overlap features of the query and of its translation.

    With `candidates` a row is also compared with the other targets that its query stands with in the competition's
    files (no labels are looked at).
    """

    later: ClassVar[frozenset[str]] = frozenset({"extra", "augment"})

    kind: Literal["lexical"]
    description: str = ""
    candidates: bool = True
    text: TextSection = TextSection()
    ngrams: NgramSection = NgramSection()
    head: LexicalHead = LexicalHead()
    extra: ExtraSection | None = None
    augment: AugmentSection = AugmentSection()


class EncoderSection(Section):
    """How texts are embedded; the prefixes are those the e5 models were trained with (Wang et al. 2024)."""

    query_prefix: str = "query: "
    target_prefix: str = "passage: "
    max_length: int = Field(128, ge=8, le=8192)
    tokens_per_batch: int = Field(4096, ge=64)


class BiEncoderHead(Section):
    """Heads on the pair features; the score is the mean of their probabilities.

    `rounds`, `leaves`, `learning_rate` and `min_rows_per_leaf` are those of the LightGBM head, the rest those of
    the two networks (``logistic`` has no hidden layer).
    """

    kinds: tuple[Head, ...] = Field(("logistic", "mlp"), min_length=1)
    hidden: int = Field(256, ge=1)
    epochs: int = Field(10, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    network_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    rounds: int = Field(250, ge=1)
    leaves: int = Field(31, ge=2)
    learning_rate: float = Field(0.06, gt=0)
    min_rows_per_leaf: int = Field(60, ge=1)


class BiEncoderRecipe(Section):
    """Frozen sentence-transformers embeddings of query and target, heads on [u, v, |u-v|, u*v, cosine]."""

    later: ClassVar[frozenset[str]] = frozenset({"extra", "augment"})

    kind: Literal["bi_encoder"]
    description: str = ""
    weights: WeightsSection
    text: TextSection = TextSection()
    encoder: EncoderSection = EncoderSection()
    head: BiEncoderHead = BiEncoderHead()
    extra: ExtraSection | None = None
    augment: AugmentSection = AugmentSection()


class TreeHead(Section):
    """What turns tree features into a score: LightGBM (`rounds` and below), or a network (`hidden` and below)."""

    kind: Literal["lightgbm", "mlp"] = "lightgbm"
    rounds: int = Field(300, ge=1)
    leaves: int = Field(15, ge=2)
    learning_rate: float = Field(0.05, gt=0)
    min_rows_per_leaf: int = Field(60, ge=1)
    hidden: int = Field(64, ge=1)
    epochs: int = Field(20, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    network_learning_rate: float = Field(4e-3, gt=0)
    weight_decay: float = Field(0.3, ge=0)


class CategoryTreeRecipe(Section):
    """Frozen embeddings compared with every node of the category tree; for targets that are category paths.

    With `candidates` a row is also compared with the other targets that its query stands with in the competition's
    files (no labels are looked at).
    """

    later: ClassVar[frozenset[str]] = frozenset({"extra", "augment"})

    kind: Literal["category_tree"]
    description: str = ""
    weights: WeightsSection
    text: TextSection = TextSection(view="english")
    encoder: EncoderSection = EncoderSection()
    spaces: tuple[Literal["raw", "centred"], ...] = Field(("raw", "centred"), min_length=1)
    candidates: bool = True
    head: TreeHead = TreeHead()
    extra: ExtraSection | None = None
    augment: AugmentSection = AugmentSection()


class CrossEncoderRecipe(Section):
    """Sequence-pair classification of (query, target) with the transformers Trainer.

    `pooling` is ``mean`` (mean of the last hidden states, then one linear layer) or ``model`` (the head of the
    model's own sequence-classification class: first token for encoders, last non-padding token for decoders).

    `init_from` names weights that ``relstack pretrain`` made for this task (task-adaptive pre-training, Gururangan
    et al. 2020). `joint` trains on the run's other tasks too, whatever shares a query with held-out rows left out:
    ``heads`` gives each task its own head on the shared network (multi-task learning, Caruana 1997), ``tag`` tells
    the network by a word before the query (``[category]``, ``[title]``).
    """

    later: ClassVar[frozenset[str]] = frozenset({"init_from", "joint", "extra", "augment"})

    kind: Literal["cross_encoder"]
    description: str = ""
    weights: WeightsSection
    text: PairTextSection = PairTextSection()
    pooling: Literal["mean", "model"] = "mean"
    query_prefix: str = ""
    target_prefix: str = ""
    max_length: int = Field(96, ge=8, le=8192)
    training: TrainingSection = TrainingSection()
    augment: TextAugmentSection = TextAugmentSection()
    init_from: str | None = None
    joint: Literal["heads", "tag"] | None = None
    extra: ExtraSection | None = None

    @model_validator(mode="after")
    def _states_of_one_task(self) -> "CrossEncoderRecipe":
        if self.joint and self.training.freeze_layers:
            raise ValueError(
                "joint and training.freeze_layers exclude each other: states are kept for one task's texts"
            )
        return self

    @model_validator(mode="after")
    def _heads_of_our_own(self) -> "CrossEncoderRecipe":
        if self.joint == "heads" and self.pooling != "mean":
            raise ValueError('joint = "heads" needs pooling = "mean"; joint = "tag" works with any')
        return self

    @model_validator(mode="after")
    def _dropout_of_our_own(self) -> "CrossEncoderRecipe":
        if self.training.multi_sample_dropout > 1 and self.pooling != "mean":
            raise ValueError('training.multi_sample_dropout needs pooling = "mean"')
        return self


class CausalLoraRecipe(Section):
    """A language model that answers yes or no: the score is the softmax over the two answers' logits after the prompt.

    As in Nogueira et al. (2020, "Document ranking with a pretrained sequence-to-sequence model") and in the
    Qwen3 rerankers. ``training.epochs = 0`` scores without training. `init_from` and `joint` are those of
    `CrossEncoderRecipe`; joint training wants a template with ``{kind}``, which is "category" or "title".
    """

    later: ClassVar[frozenset[str]] = frozenset({"init_from", "joint", "extra", "augment"})

    kind: Literal["causal_lora"]
    description: str = ""
    weights: WeightsSection
    text: PromptSection = PromptSection()
    max_length: int = Field(160, ge=8, le=8192)
    training: CausalTrainingSection = CausalTrainingSection()
    augment: TextAugmentSection = TextAugmentSection()
    init_from: str | None = None
    joint: Literal["tag"] | None = None
    extra: ExtraSection | None = None

    @model_validator(mode="after")
    def _tells_the_task(self) -> "CausalLoraRecipe":
        if self.joint and "{kind}" not in self.text.template:
            raise ValueError("joint needs {kind} in text.template: the network must know which task it answers")
        return self

    @model_validator(mode="after")
    def _no_head(self) -> "CausalLoraRecipe":
        if self.training.multi_sample_dropout > 1:
            raise ValueError("training.multi_sample_dropout needs a head, which answers do not have")
        return self


class TwoTowersRecipe(Section):
    """Embeddings of query and target by one encoder, trained end to end with a head on [u, v, |u-v|, u*v, cosine].

    Every distinct text is embedded once for scoring, however many pairs it stands in. `max_length` is that of either
    text; with `hidden` the head has a hidden layer of that size. `init_from` is that of `CrossEncoderRecipe`.
    """

    later: ClassVar[frozenset[str]] = frozenset({"init_from", "extra", "augment"})

    kind: Literal["two_towers"]
    description: str = ""
    weights: WeightsSection
    text: PairTextSection = PairTextSection()
    query_prefix: str = "query: "
    target_prefix: str = "passage: "
    max_length: int = Field(96, ge=8, le=8192)
    hidden: int = Field(0, ge=0)
    training: TrainingSection = TrainingSection()
    augment: TextAugmentSection = TextAugmentSection()
    init_from: str | None = None
    extra: ExtraSection | None = None

    @property
    def joint(self) -> None:
        """None: this kind is trained on one task."""
        return None

    @model_validator(mode="after")
    def _two_texts_per_row(self) -> "TwoTowersRecipe":
        if self.training.attention == "varlen" or self.training.sharding == "fsdp":
            raise ValueError('two_towers works neither with attention = "varlen" nor with sharding = "fsdp"')
        if self.training.scoring == "openvino":
            raise ValueError('two_towers is scored by torch: leave training.scoring = "openvino" out')
        return self


TransformerRecipe = Annotated[CrossEncoderRecipe | CausalLoraRecipe | TwoTowersRecipe, Field(discriminator="kind")]
Recipe = Annotated[
    LexicalRecipe | BiEncoderRecipe | CategoryTreeRecipe | CrossEncoderRecipe | CausalLoraRecipe | TwoTowersRecipe,
    Field(discriminator="kind"),
]
TRANSFORMERS = (CrossEncoderRecipe, CausalLoraRecipe, TwoTowersRecipe)  # the kinds of `TransformerRecipe`
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe_names() -> list[str]:
    """Names of the recipes that come with relstack, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_path(name: str) -> Path:
    """The file of the recipe `name`: a built-in name, or the path of a TOML file.

    Raises
    ------
    CompetitionError
        There is no such recipe.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not is_file(path):
        raise CompetitionError(
            f"no recipe is called {shown(name)}",
            advice=f"name one of {', '.join(recipe_names())}, or the path of a .toml file",
        )
    return path


def learner_name(name: str) -> str:
    """The base learner's name: the recipe's own, or the stem of its file.

    Examples
    --------
    >>> learner_name("mine/e5-tuned.toml")
    'e5-tuned'
    """
    return Path(name).stem if name.endswith(".toml") else name


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe `name` with `overrides` (``key=value``, or ``learner:key=value`` for one base learner) applied.

    Raises
    ------
    CompetitionError
        No such recipe, not TOML, unknown keys or values out of range: all of them, with file and key.
    """
    path = recipe_path(name)
    values = read_toml(path)
    for override in overrides:
        learner, key, value = parse_override(override)
        if learner in (None, learner_name(name)):
            set_key(values, key.split("."), value)
    refuse_secrets(values, path.name)
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        faults = [section_fault(path.name, item) for item in error.errors()]
        raise CompetitionError(f"recipe {name!r} is not usable", faults=faults, advice="mend the keys named") from error


def for_learner(override: str, learner: str) -> str:
    """The override as one of this base learner, unless it names one.

    Examples
    --------
    >>> for_learner("head.c=0.5", "e5-bi"), for_learner("lexical:head.c=1", "e5-bi")
    ('e5-bi:head.c=0.5', 'lexical:head.c=1')
    """
    return override if parse_override(override)[0] is not None else f"{learner}:{override}"


def parse_override(text: str) -> tuple[str | None, str, Any]:
    """Learner (or None), dotted key and value of ``[learner:]key=value``; the value is TOML, else text.

    Examples
    --------
    >>> parse_override("head.c=0.5")
    (None, 'head.c', 0.5)
    >>> parse_override("e5-bi:text.view=english")
    ('e5-bi', 'text.view', 'english')
    """
    left, equals, right = text.partition("=")
    learner, colon, key = left.rpartition(":")
    if not equals or not key.strip():
        raise CompetitionError(f"--set {shown(text)} is not key=value", advice="write for example --set head.c=0.5")
    if len(text) > LONGEST_OVERRIDE or misfit([text]):
        found = f"{len(text):,} characters" if len(text) > LONGEST_OVERRIDE else misfit([text])
        advice = "write it into a recipe of your own, and name its .toml file"
        raise CompetitionError(f"--set {shown(text)} cannot be used", faults=[Fault("--set", found)], advice=advice)
    try:
        value = parse_toml(f"value = {right}")["value"]
    except ValueError:
        value = right
    return (learner.strip() if colon else None), key.strip(), value


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values, every default spelled out: what manifests keep."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    values.pop("description")
    return values


def digest_values(values: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of plain values, independent of key order."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_key(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Put a value into nested tables of a recipe, in place.

    Raises
    ------
    CompetitionError
        A key on the way is no table.
    """
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise CompetitionError(
                f"--set {shown('.'.join(keys))}: {shown(key)} is not a table of the recipe",
                advice="name the key by its table: --set head.epochs=5",
            )
        values = inner
    values[keys[-1]] = value


def shown(text: str) -> str:
    """A text between quotes, cut where it is long.

    Examples
    --------
    >>> shown("a" * 100) == "'" + "a" * 80 + "'..."
    True
    """
    return repr(text) if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]!r}..."


def section_fault(file: str, item: Any) -> Fault:
    """The fault for what pydantic finds wrong with a recipe of several kinds."""
    key = ".".join(str(part) for part in item["loc"][1:]) or "kind"
    value = item.get("input")
    found = shown(value) if isinstance(value, str) else str(value)[:MOST_SHOWN]
    return Fault(f"{file}: {key[:MOST_SHOWN]}", f"{item['msg'][:300]} (found {found})")
