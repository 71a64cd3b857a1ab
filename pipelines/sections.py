"""Tables that recipes share: text, weights, adapters, training. The recipes themselves are in `pipelines.config`."""

from string import Formatter
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

View = Literal["original", "english", "both"]
TargetView = Literal["path", "leaf", "tagged"]

PROMPT_FIELDS = ("query", "english", "target", "language")
COMPETITION_LIMIT = 15e9  # parameters, CIKM 2025 AnalytiCup


class Section(BaseModel):
    """A table of a recipe; refuses keys it does not know.

    `later` names keys that came after the first parts were made. They are left out of the plain values where they
    stand at their default, so that what was made before keeps its digest; such a default must never change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields, values = type(self).model_fields, handler(self)
        return {
            key: value
            for key, value in values.items()
            if not (key in self.later and getattr(self, key) == fields[key].default)
        }


class TextSection(Section):
    """How a row becomes model input.

    `view` is ``original`` (the query as written), ``english`` (its translation, the query itself where there is
    none) or ``both`` (``query - translation``, as the CIKM 2025 AnalytiCup winner joined them).
    """

    view: View = "both"


class PairTextSection(TextSection):
    """How a row becomes the two texts that a cross-encoder reads.

    `language_tag` puts the row's language before the query (``[es] zapatos``). `target` shows a category as its
    ``path``, its ``leaf`` alone, or ``tagged`` with depths (``<1> home & garden <2> cookware``); titles stay as
    they are.
    """

    later: ClassVar[frozenset[str]] = frozenset({"language_tag", "target"})

    language_tag: bool = False
    target: TargetView = "path"


class PromptSection(Section):
    """The question that a language model is asked about a row, and the two answers that count.

    `template` has the fields ``{query}`` (as written), ``{english}`` (its translation, the query where there is
    none), ``{target}`` (shown as in `PairTextSection`) and ``{language}``. `answers` are the words for label 1 and
    label 0; after the prompt and a blank each must be one token.
    """

    template: str = "Query: {english}\nProduct: {target}\nDoes the product match the query? Answer:"
    answers: tuple[str, str] = ("yes", "no")
    target: TargetView = "path"

    @field_validator("template")
    @classmethod
    def _usable(cls, template: str) -> str:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        plain = [f"{{{field}}}" for field in fields]
        if unknown := [name for field, name in zip(fields, plain, strict=True) if field not in PROMPT_FIELDS]:
            raise ValueError(f"unknown fields {', '.join(unknown)}; there are {', '.join(PROMPT_FIELDS)}")
        if len(set(fields)) < len(fields) or any(template.count(name) != 1 for name in plain):
            raise ValueError("each field may stand once, without a format of its own")
        if "target" not in fields or not {"query", "english"} & set(fields):
            raise ValueError("{target} and one of {query}, {english} must be asked about")
        if template != template.rstrip():
            raise ValueError("it must not end with a blank: the answer's token brings its own")
        return template

    @field_validator("answers")
    @classmethod
    def _two(cls, answers: tuple[str, str]) -> tuple[str, str]:
        if any(answer != answer.strip() or not answer for answer in answers) or answers[0] == answers[1]:
            raise ValueError("two different words without blanks around them")
        return answers


class WeightsSection(Section):
    """Where pretrained weights come from: a hub name or a local folder, see `pipelines.weights`."""

    name: str
    source: Literal["auto", "folder", "hub", "package"] = "auto"
    revision: str | None = None


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021) instead of full fine-tuning.

    `target_modules` is ``all-linear`` (every linear layer but the head) or names of layers; attention alone is
    ``["q_proj", "k_proj", "v_proj", "o_proj"]`` in decoders and ``["query", "key", "value"]`` in encoders.
    """

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.01, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class TrainingSection(Section):
    """How a transformer is trained, in the words of the transformers Trainer; the switches below are off by default.

    Parameters
    ----------
    schedule
        What the learning rate does after the warm-up.
    label_smoothing
        Share of the label's weight that is spread over both labels (Szegedy et al. 2016).
    multi_sample_dropout
        Number of dropout masks on the pooled vector whose losses are averaged (Inoue 2019).
    r_drop
        Weight of the divergence between two passes with different dropout (R-Drop, Liang et al. 2021).
    fgm
        Norm of the adversarial step on the input embeddings of every row (FGM, Miyato et al. 2017).
    awp
        Size of the adversarial step on the trained weights, relative to each (AWP, Wu et al. 2020).
    ema
        Decay of the moving average of the trained weights that scores in the end (Polyak and Juditsky 1992).
    max_parameters
        A network with more is refused before it is loaded; the default is the competition's limit.
    quantize
        ``nf4`` keeps the frozen weights in 4 bits under the adapters (QLoRA, Dettmers et al. 2023).
    tokens_per_batch
        Cuts a batch before its padded tokens exceed this: long rows train in smaller batches, memory stays bounded.
    attention
        Which attention computes: ``auto`` is ``eager`` on CPUs (faster at these lengths) and ``sdpa`` on GPUs.
    trim_vocabulary
        Trains only the embeddings of tokens that occur (the others keep their values): less memory, fewer seconds.
        It has no effect behind adapters, where embeddings are frozen.
    scoring
        What computes the scores on CPUs: ``torch``, or ``openvino`` (the extra `openvino`), which is faster in bf16.
    evaluate
        How often per epoch the network is evaluated, on rows of train that are left out of training for it and share
        no query with it; the weights of the best evaluation score in the end.
    evaluate_rows
        About how many rows that takes.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {
            "schedule", "label_smoothing", "multi_sample_dropout", "r_drop", "fgm", "awp", "ema", "max_parameters",
            "quantize", "tokens_per_batch", "attention", "trim_vocabulary", "evaluate", "evaluate_rows", "scoring",
        }
    )  # fmt: skip

    epochs: float = Field(2.0, gt=0)
    learning_rate: float = Field(2e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    warmup: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_rows: int | None = Field(None, ge=2)
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    lora: LoraSection | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    multi_sample_dropout: int = Field(1, ge=1)
    r_drop: float = Field(0.0, ge=0)
    fgm: float = Field(0.0, ge=0)
    awp: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    max_parameters: float = Field(COMPETITION_LIMIT, gt=0)
    quantize: Literal["nf4"] | None = None
    tokens_per_batch: int | None = Field(None, ge=16)
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    trim_vocabulary: bool = True
    scoring: Literal["torch", "openvino"] = "torch"
    evaluate: int = Field(0, ge=0, le=10)
    evaluate_rows: int = Field(2000, ge=10)

    @model_validator(mode="after")
    def _adapters_on_quantised_weights(self) -> "TrainingSection":
        if self.quantize and self.lora is None:
            raise ValueError("quantize needs training.lora: weights in 4 bits cannot be trained themselves")
        return self


class CausalTrainingSection(TrainingSection):
    """Training behind adapters; without epochs the pretrained model answers as it is."""

    epochs: float = Field(2.0, ge=0)
    lora: LoraSection | None = LoraSection()
