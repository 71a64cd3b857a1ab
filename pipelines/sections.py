"""Tables that recipes share: text, weights, adapters, training. The recipes themselves are in `pipelines.config`."""

from functools import cache
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
TargetView = Literal["path", "leaf", "tagged", "ancestors", "siblings"]

PROMPT_FIELDS = ("query", "english", "target", "language", "kind")
COMPETITION_LIMIT = 15e9  # parameters, CIKM 2025 AnalytiCup


class Section(BaseModel):
    """A table of a recipe; refuses keys it does not know.

    `later` names keys that came after the first parts were made. They are left out of the plain values where they
    stand at their default, so that what was made before keeps its digest; such a default must never change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields, values = type(self).model_fields, handler(self)
        return {
            key: value
            for key, value in values.items()
            if not (key in self.later and getattr(self, key) == fields[key].default)
        }


@cache
def has_bf16() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware: its GPU, or else its processor."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell: fp32
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class TextSection(Section):
    """How a row becomes model input.

    `view` is ``original`` (the query as written), ``english`` (its translation, the query itself where there is
    none) or ``both`` (``query - translation``, as the CIKM 2025 AnalytiCup winner joined them).
    """

    view: View = "both"


class PairTextSection(TextSection):
    """How a row becomes the two texts that a cross-encoder reads.

    `language_tag` puts the row's language before the query (``[es] zapatos``). `target` shows a category as its
    ``path``, its ``leaf`` alone, ``tagged`` with depths (``<1> home & garden <2> cookware``), the leaf and its nearest
    ``ancestors`` (``cookware < home & garden``), or the path with some of its ``siblings`` in the tree that the run's
    files span (``home & garden,cookware (beside: bedding, lamps)``); titles stay as they are.
    """

    later: ClassVar[frozenset[str]] = frozenset({"language_tag", "target"})

    language_tag: bool = False
    target: TargetView = "path"


class PromptSection(Section):
    """The question that a language model is asked about a row, and the two answers that count.

    `template` has the fields ``{query}`` (as written), ``{english}`` (its translation, the query where there is
    none), ``{target}`` (shown as in `PairTextSection`), ``{language}`` and ``{kind}``, what a target is ("category"
    or "title"). `answers` are the words for label 1 and
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
    """Where pretrained weights come from: a hub name or a local folder, see `pipelines.weights`.

    `trust_remote_code` asks that Python files which come with the weights may run; the user of the machine has to agree
    too, see `pipelines.trust`.
    """

    later: ClassVar[frozenset[str]] = frozenset({"trust_remote_code"})

    name: str
    source: Literal["auto", "folder", "hub", "package"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False


class ExtraSection(Section):
    """Rows to learn from besides a fold's own, by the names that they were made under.

    `pseudo`: rows of dev and test that ``relstack pseudo`` labelled. `augmented`: rows of train that ``relstack
    augment`` translated. `weight` is that of such a row beside a labelled one.
    """

    pseudo: str = ""
    augmented: str = ""
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _names_some(self) -> "ExtraSection":
        if not (self.pseudo or self.augmented):
            raise ValueError("name rows: pseudo, or augmented, or both")
        return self


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
    precision
        ``bf16`` multiplies matrices in half precision; ``auto`` does so where the processor or GPU has it built in.
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
        ``varlen`` reads rows without padding, see `pipelines.backbones.packing`; it has no dropout inside attention.
    trim_vocabulary
        Trains only the embeddings of tokens that occur (the others keep their values): less memory, fewer seconds.
        It has no effect behind adapters, where embeddings are frozen.
    freeze_layers
        The embeddings and so many layers from below keep their pretrained weights and have no dropout. What they make
        of every input is computed once and kept on disk, for all epochs and folds: only the layers above run. For
        encoders of the BERT and XLM-R families.
    scoring
        What computes the scores on CPUs: ``torch``, or ``openvino`` (the extra `openvino`), which is faster in bf16.
    evaluate
        How often per epoch the network is evaluated, on groups of train (as the fold plan groups rows) that are left
        out of training for it; the weights of the best evaluation score in the end.
    evaluate_rows
        About how many rows that takes.
    gpus
        Processes that train and score one fold together, one per GPU (see `pipelines.launch`). `batch_size` stays the
        rows of one step over all of them, `tokens_per_batch` is the budget of each.
    sharding
        ``ddp`` keeps the whole network on every GPU, ``fsdp`` (FSDP2) shares weights, gradients and optimiser out
        among them: for networks that do not fit.
    checkpoint_minutes
        A checkpoint is written so often, and after every epoch: what a kill can cost. Two are kept.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {
            "schedule", "label_smoothing", "multi_sample_dropout", "r_drop", "fgm", "awp", "ema", "max_parameters",
            "quantize", "tokens_per_batch", "attention", "trim_vocabulary", "evaluate", "evaluate_rows",
            "gpus", "sharding", "freeze_layers", "scoring", "checkpoint_minutes",
        }
    )  # fmt: skip

    epochs: float = Field(2.0, gt=0)
    learning_rate: float = Field(2e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    warmup: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_rows: int | None = Field(None, ge=2)
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
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
    attention: Literal["auto", "eager", "sdpa", "varlen"] = "auto"
    trim_vocabulary: bool = True
    freeze_layers: int = Field(0, ge=0)
    scoring: Literal["torch", "openvino"] = "torch"
    evaluate: int = Field(0, ge=0, le=10)
    evaluate_rows: int = Field(2000, ge=10)
    gpus: int = Field(1, ge=1)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    checkpoint_minutes: float = Field(15.0, gt=0)

    @property
    def half(self) -> bool:
        """Whether matrices are multiplied in bf16 on this machine."""
        return self.precision == "bf16" or (self.precision == "auto" and has_bf16())

    @model_validator(mode="after")
    def _one_choice_of_weights(self) -> "TrainingSection":
        if self.evaluate and self.ema:
            raise ValueError("evaluate and ema both say which weights score in the end: use one of them")
        return self

    @model_validator(mode="after")
    def _adapters_on_quantised_weights(self) -> "TrainingSection":
        if self.quantize and self.lora is None:
            raise ValueError("quantize needs training.lora: weights in 4 bits cannot be trained themselves")
        return self

    @model_validator(mode="after")
    def _frozen_or_changed(self) -> "TrainingSection":
        if self.freeze_layers and self.lora is not None:
            raise ValueError("freeze_layers and training.lora exclude each other: adapters go into all layers")
        if self.freeze_layers and self.fgm:
            raise ValueError("freeze_layers and fgm exclude each other: embeddings are not read while it trains")
        if self.freeze_layers and (self.attention == "varlen" or self.sharding == "fsdp"):
            raise ValueError('freeze_layers works neither with attention = "varlen" nor with sharding = "fsdp"')
        return self

    @model_validator(mode="after")
    def _converted_from_padded_tokens(self) -> "TrainingSection":
        if self.scoring == "openvino" and (self.freeze_layers or self.attention == "varlen" or self.quantize):
            raise ValueError('scoring = "openvino" goes with none of freeze_layers, attention = "varlen" and quantize')
        return self

    @model_validator(mode="after")
    def _a_sequence_per_row(self) -> "TrainingSection":
        if self.fgm and self.attention == "varlen":
            raise ValueError('fgm moves every row by itself; attention = "varlen" puts all rows in one sequence')
        return self

    @model_validator(mode="after")
    def _equal_shares(self) -> "TrainingSection":
        if self.batch_size % self.gpus:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared equally among gpus = {self.gpus}")
        return self

    @model_validator(mode="after")
    def _switches_of_sharded_networks(self) -> "TrainingSection":
        if self.sharding == "ddp":
            return self
        if self.gpus == 1:
            raise ValueError('sharding = "fsdp" needs gpus of 2 or more: there is nothing to share out')
        if used := [name for name in ("ema", "awp", "evaluate", "quantize") if getattr(self, name)]:
            raise ValueError(f'{", ".join(used)} cannot be with sharding = "fsdp": no process has the whole weights')
        return self


class CausalTrainingSection(TrainingSection):
    """Training behind adapters; without epochs the pretrained model answers as it is."""

    epochs: float = Field(2.0, ge=0)
    lora: LoraSection | None = LoraSection()
