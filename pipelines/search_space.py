"""The space of a study: which recipe keys vary and between which values, read from the texts of ``--vary``."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from competition.errors import CompetitionError, Fault
from competition.json_files import misfit
from pipelines.config import Recipe, learner_name, load_recipe, parse_override, shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^,\[\]\"']*?)\.\.(?P<high>[^,\[\]\"']*)")
LONGEST = 2_000
GRAMMAR = "KEY=a,b,c or KEY=lo..hi or KEY=log:lo..hi"
OPENING, CLOSING = "[{", "]}"
GOLDEN = (3 - math.sqrt(5)) / 2  # a share of the range that is no whole number of anything


@dataclass(frozen=True)
class Choices:
    """One of several values, each as it was typed: TOML, else text."""

    key: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.texts)

    def distribution(self) -> "BaseDistribution":
        """What optuna draws from."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    def probes(self) -> tuple[str, ...]:
        """Every choice."""
        return self.texts

    def own(self, recipe: Recipe, name: str, overrides: Sequence[str]) -> str | None:
        """The choice that leaves the recipe as it is, if there is one."""
        same = (text for text in self.texts if load_recipe(name, (*overrides, f"{self.key}={text}")) == recipe)
        return next(same, None)


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included; whole numbers if both ends are."""

    key: str
    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{'log:' if self.log else ''}{self.low}..{self.high}"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> "BaseDistribution":
        """What optuna draws from."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def probes(self) -> tuple[float, ...]:
        """Both ends, and a number between them that is not whole unless all are."""
        inner = () if self.whole else (self.low + (self.high - self.low) * GOLDEN,)
        return (self.low, *inner, self.high)

    def own(self, recipe: Recipe, name: str, overrides: Sequence[str]) -> float | None:
        """The recipe's own value, if it lies in the range."""
        value: Any = recipe
        for part in self.key.split("."):
            value = getattr(value, part, None)
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if self.whole:
            return int(value) if value == int(value) else None
        return float(value)


@dataclass(frozen=True)
class Space:
    """The recipe keys that vary, sorted by key: the order in which they are given changes nothing."""

    dimensions: tuple[Choices | Range, ...]

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """What optuna draws from, by key."""
        return {each.key: each.distribution() for each in self.dimensions}

    def texts(self) -> dict[str, str]:
        """What is recorded of the space: key -> the text that describes its values."""
        return {each.key: str(each) for each in self.dimensions}

    def own_values(self, recipe: Recipe, name: str, overrides: Sequence[str]) -> dict[str, Any]:
        """The values by which the recipe stays as it is; keys whose own value is not in the space are left out."""
        values = {each.key: each.own(recipe, name, overrides) for each in self.dimensions}
        return {key: value for key, value in values.items() if value is not None}


def overrides_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The drawn values as ``key=value``.

    Examples
    --------
    >>> overrides_of({"text.view": "both", "training.learning_rate": 1e-05})
    ('text.view=both', 'training.learning_rate=1e-05')
    """
    return tuple(f"{key}={value}" for key, value in params.items())


def read_space(texts: Sequence[str], name: str, *, given: Sequence[str] = (), recorded: Sequence[str] = ()) -> Space:
    """The space that the texts describe, for the recipe `name` with its overrides: `recorded` ones, then `given` ones.

    Raises
    ------
    CompetitionError
        The recipe itself is not usable; or the space is not: bad grammar, keys named twice, keys that an override
        sets as well, values that the recipe refuses. All of them are named.
    """
    overrides = (*recorded, *given)
    load_recipe(name, overrides)
    faults: list[Fault] = [] if texts else [Fault("--vary", "nothing varies", GRAMMAR)]
    dimensions: dict[str, Choices | Range] = {}
    for text in texts:
        read = read_dimension(text)
        if isinstance(read, Fault):
            faults.append(read)
        elif read.key in dimensions:
            faults.append(Fault(f"--vary {text}", f"{read.key} varies already", "each key once"))
        else:
            dimensions[read.key] = read
            faults += _set_elsewhere(read.key, name, given=given, recorded=recorded)
            faults += _refused(read, name, overrides)
    if faults:
        raise CompetitionError("this space cannot be searched", faults=faults, advice="mend all that is named")
    return Space(tuple(dimensions[key] for key in sorted(dimensions)))


def read_dimension(text: str) -> Choices | Range | Fault:
    """One ``KEY=...``; a fault if it is none.

    Examples
    --------
    >>> read_dimension("training.learning_rate=log:1e-5..1e-4")
    Range(key='training.learning_rate', low=1e-05, high=0.0001, log=True)
    >>> read_dimension('head.kinds=["mlp"], ["mlp", "logistic"]')
    Choices(key='head.kinds', texts=('["mlp"]', '["mlp", "logistic"]'))
    >>> print(read_dimension("training.epochs=3..1"))
    --vary training.epochs=3..1: 3 is not below 1; expected KEY=a,b,c or KEY=lo..hi or KEY=log:lo..hi
    """
    if len(text) > LONGEST or misfit([text]):
        found = f"{len(text):,} characters" if len(text) > LONGEST else misfit([text])
        return Fault(f"--vary {shown(text)}", found, f"at most {LONGEST:,}, in UTF-8")
    key, equals, right = (part.strip() for part in text.partition("="))
    if not equals or not KEY.fullmatch(key):
        return Fault(f"--vary {text}", "no recipe key before an equals sign", GRAMMAR)
    if match := RANGE.fullmatch(right):
        ends = [_number(match[name]) for name in ("low", "high")]
        fault = _range_fault(match, ends)
        low, high = (0.0 if end is None else end for end in ends)
        return Fault(f"--vary {text}", fault, GRAMMAR) if fault else Range(key, low, high, match["log"] is not None)
    choices = split_choices(right)
    if "" in choices:
        return Fault(f"--vary {text}", "an empty value", GRAMMAR)
    if len(set(choices)) < max(2, len(choices)):
        return Fault(f"--vary {text}", "a repeated value, or a single one", "different values; --set sets one value")
    return Choices(key, choices)


def split_choices(text: str) -> tuple[str, ...]:
    """The values between commas; commas inside brackets and quotes belong to a value.

    Examples
    --------
    >>> split_choices('all-linear, ["q_proj", "v_proj"], "a, b"')
    ('all-linear', '["q_proj", "v_proj"]', '"a, b"')
    """
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and depth == 0 and not quote:
            pieces.append("")
            continue
        pieces[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in OPENING) - (letter in CLOSING)
    return tuple(piece.strip() for piece in pieces)


def _range_fault(match: re.Match[str], ends: Sequence[float | None]) -> str:
    low, high = ends
    if low is None or high is None:
        wrong = [match[name] for name, end in zip(("low", "high"), ends, strict=True) if end is None]
        return f"no number: {', '.join(map(repr, wrong))}"
    if low >= high:
        return f"{low} is not below {high}"
    if match["log"] and low <= 0:
        return f"log of {low}"
    return ""


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return None


def _set_elsewhere(key: str, name: str, *, given: Sequence[str], recorded: Sequence[str]) -> list[Fault]:
    """What sets the key too: on the command line, or in the run for all base learners, the tuned one among them."""
    here = [text for text in given if parse_override(text)[0] in (None, learner_name(name))]
    everywhere = [text for text in recorded if parse_override(text)[0] is None]
    words = {"--set sets it too": here, "this run sets it for every base learner": everywhere}
    return [
        Fault(f"--vary {key}", f"{how} ({text})", "one of the two")
        for how, texts in words.items()
        for text in texts
        if parse_override(text)[1] == key
    ]


def _refused(dimension: Choices | Range, name: str, overrides: Sequence[str]) -> list[Fault]:
    """Ends and choices that the recipe refuses, whatever the other keys are; a key that it does not know, too."""
    faults = []
    for probe in dimension.probes():
        try:
            load_recipe(name, (*overrides, f"{dimension.key}={probe}"))
        except CompetitionError as error:
            faults += [Fault(f"--vary {dimension.key}={probe}", words) for words in _reasons(error, dimension.key)]
    return faults


def _reasons(error: CompetitionError, key: str) -> list[str]:
    """Why the value itself is refused. A rule between several keys, which stands at their table, is no reason yet."""
    if not isinstance(error.__cause__, ValidationError):
        return [error.summary]
    depth = len(key.split("."))
    items = zip(error.faults, error.__cause__.errors(), strict=True)
    return [str(fault) for fault, item in items if item["type"] != "value_error" or len(item["loc"]) > depth]
