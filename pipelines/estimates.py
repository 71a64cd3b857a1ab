"""What a part of a base learner will take: seconds, memory and disk, and what the figure rests on.

Best first: finished parts of this run, finished parts of runs that the user names, the table that comes with relstack,
and for transformers without any of these a computation from their shape (`pipelines.networks`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from competition.errors import CompetitionError
from pipelines.config import (
    TRANSFORMERS,
    BiEncoderRecipe,
    CategoryTreeRecipe,
    LexicalRecipe,
    Recipe,
    TransformerRecipe,
    learner_name,
    load_recipe,
    recipe_values,
)
from pipelines.footprint import GIB, base_bytes, checkpoint_bytes, frozen_bytes, gpus_of, part_bytes, training_memory
from pipelines.networks import Network, network_of
from pipelines.rates import Line, Observation, Rate, Table, observed, observed_stages, rate_of, shipped
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.workload import Workload

HERE, ELSEWHERE, SHIPPED, COMPUTED = "measured here", "measured elsewhere", "shipped table", "computed"
LIKE = {
    ("lexical", "lightgbm"): "lexical",
    ("lexical", "linear"): "lexical-linear",
    ("category_tree", "lightgbm"): "e5-tree",
    ("category_tree", "mlp"): "e5-tree-mlp",
}  # recipes of a kind and head -> the built-in one whose rates they get; bi-encoders get those of e5-bi
READ_BYTES = 1e9  # of weights a second from disk: assumed
SCORE_BYTES = (
    11.0  # of Parquet a scored row, id and score: by what parts grow between made-up runs of 3,000 and 6,000 rows
)
ROW_BYTES = 1000.0  # of main memory a row of texts and features: assumed
RUNTIME_GIB = 2.5  # of main memory of a process with torch and CUDA: assumed


@dataclass(frozen=True)
class Cost:
    """What each part of one base learner takes.

    Attributes
    ----------
    seconds, first_seconds
        Of every part, and what the first one takes besides (texts embedded).
    gpus
        GPUs that a part takes; 0 works on CPUs.
    memory_gib, gpu_gib
        Main memory, and that of each GPU.
    kept_bytes, passing_bytes
        Disk that a finished part keeps, and that its checkpoints take until then.
    basis
        What the seconds rest on.
    """

    seconds: float
    first_seconds: float
    gpus: int
    memory_gib: float
    gpu_gib: float | None
    kept_bytes: float
    passing_bytes: float
    basis: str


@dataclass(frozen=True)
class Rates:
    """All that was measured and counts for a run, and the machine that it is for.

    Attributes
    ----------
    learners
        (Base learner, task, device kind) -> rate and basis.
    stages
        Stage -> seconds over its size, and basis.
    card
        Operations a second at the peak of each GPU; None where there is none.
    """

    learners: Mapping[tuple[str, str, str], tuple[Rate, str]] = field(default_factory=dict)
    stages: Mapping[str, tuple[Line, str]] = field(default_factory=dict)
    card: float | None = None


def known_peak(card: str) -> float | None:
    """Operations a second at the peak of a GPU whose name has that of a card in the table as words of its own.

    Examples
    --------
    >>> known_peak("NVIDIA A100-SXM4-80GB"), known_peak("NVIDIA RTX A1000")
    (312000000000000.0, None)
    """
    cards = shipped().cards
    found = [name for name in cards if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", card, re.IGNORECASE)]
    return cards[max(found, key=len)] if found else None


def peak_of(card: str) -> float:
    """The peak of a GPU that the table has, as `known_peak` gives it.

    Raises
    ------
    CompetitionError
        The table has no such card.
    """
    peak = known_peak(card)
    if peak is None:
        raise CompetitionError(f"no GPU is known as {card!r}", advice=f"name one of {', '.join(shipped().cards)}")
    return peak


def gather_rates(
    run: RunFolder, settings: RunSettings, others: Sequence[RunFolder] = (), *, card: float | None = None
) -> Rates:
    """The rates for a run, from its finished parts and those of `others` that the same recipes made."""
    own = observed(run) if run.settings_file.is_file() else []
    named = [part for other in others for part in observed(other)]
    recipes = {learner_name(name): load_recipe(name, settings.overrides) for name in settings.recipes}
    learners: dict[tuple[str, str, str], tuple[Rate, str]] = {}
    for parts, basis in ((named, ELSEWHERE), (own, HERE)):  # the better one last
        for place, found in _by_place(parts, recipes).items():
            learners[place] = rate_of(found, shipped().learners.get(place[:2])), basis
    points: dict[str, list[tuple[float, float]]] = {}
    for other in others:
        for stage, point in observed_stages(other).items():
            points.setdefault(stage, []).append(point)
    stages = {name: (Line.through(found, _stage_line(shipped(), name)), ELSEWHERE) for name, found in points.items()}
    return Rates(learners, stages, card)


def _by_place(
    parts: Iterable[Observation], recipes: Mapping[str, Recipe]
) -> dict[tuple[str, str, str], list[Observation]]:
    found: dict[tuple[str, str, str], list[Observation]] = {}
    for part in parts:
        recipe = recipes.get(part.key.learner)
        if recipe is not None and part.made_by(recipe_values(recipe)):
            found.setdefault((part.key.learner, part.key.task, part.device), []).append(part)
    return found


def cost_of(learner: str, recipe: Recipe, work: Workload, rates: Rates) -> Cost:
    """What every part of a base learner takes on one task.

    Raises
    ------
    CompetitionError
        Nothing is known of a transformer's shape, and nothing was measured.
    """
    gpus = 0 if rates.card is None else gpus_of(recipe)
    if isinstance(recipe, TRANSFORMERS):
        known = rates.learners.get((learner, work.task, "gpu" if gpus else "cpu"))
        return _network_cost(recipe, work, rates, known=known, gpus=gpus)
    known = rates.learners.get((learner, work.task, "cpu")) or _like(recipe, work)
    return replace(_measured_cost(*known, work), gpus=gpus, gpu_gib=_frozen_gib(recipe) if gpus else None)


def stage_seconds(stage: str, size: float, rates: Rates) -> tuple[float, str]:
    """Seconds of a stage besides training, and what that rests on; sizes are those of `pipelines.rates.Table`."""
    if stage in rates.stages:
        line, basis = rates.stages[stage]
        return line.at(size), basis
    return _stage_line(shipped(), stage).at(size), SHIPPED


def _stage_line(table: Table, stage: str) -> Line:
    """The line of a stage; that of an ensemble on a task which the table has not is the dearest of the others."""
    if stage in table.stages:
        return table.stages[stage]
    name = stage.partition(" ")[0]
    return max(
        (line for key, line in table.stages.items() if key.startswith(f"{name} ")), key=lambda line: line.per_row
    )


def _measured_cost(rate: Rate, basis: str, work: Workload) -> Cost:
    return Cost(
        seconds=rate.fit.at(work.n_fitted) + rate.predict.at(work.n_scored),
        first_seconds=rate.first.at(work.n_rows),
        gpus=0,
        memory_gib=rate.memory.at(work.n_rows) / 1024,
        gpu_gib=None,
        kept_bytes=rate.kept.at(work.n_scored),
        passing_bytes=0.0,
        basis=basis,
    )


def _like(recipe: LexicalRecipe | BiEncoderRecipe | CategoryTreeRecipe, work: Workload) -> tuple[Rate, str]:
    """The shipped rate of the same recipe or of the nearest built-in one, larger where its encoder is larger."""
    name = "e5-bi" if isinstance(recipe, BiEncoderRecipe) else LIKE[recipe.kind, recipe.head.kind]
    table = shipped().learners
    tasks = [task for learner, task in table if learner == name]
    task = work.task if work.task in tasks else max(tasks, key=lambda other: table[name, other].fit.at(work.n_fitted))
    rate, built_in = table[name, task], load_recipe(name)
    if task == work.task and recipe_values(recipe) == recipe_values(built_in):
        return rate, SHIPPED
    if isinstance(recipe, LexicalRecipe) or isinstance(built_in, LexicalRecipe):
        return rate, COMPUTED
    larger = _encoder(recipe).n_linear / _encoder(built_in).n_linear
    return Rate(rate.fit, rate.predict, rate.first.times(larger), rate.kept, rate.memory), COMPUTED


def _encoder(recipe: Recipe) -> Network:
    assert not isinstance(recipe, LexicalRecipe), "it has no weights"
    network = network_of(recipe.weights.name)
    if network is None:
        raise CompetitionError(
            f"the shape of {recipe.weights.name} is not known, so its work cannot be estimated",
            advice="name a local folder with a config.json, or a run that has trained it with --rates-from",
        )
    return network


def _frozen_gib(recipe: Recipe) -> float | None:
    """GiB on a GPU of the encoder whose embeddings a recipe takes, None if nobody knows its shape."""
    network = None if isinstance(recipe, LexicalRecipe) else network_of(recipe.weights.name)
    return None if network is None else frozen_bytes(network) / GIB


def _network_cost(
    recipe: TransformerRecipe, work: Workload, rates: Rates, *, known: tuple[Rate, str] | None, gpus: int
) -> Cost:
    network = _encoder(recipe)
    seconds, basis = _network_seconds(recipe, network, work, rates, gpus=gpus), COMPUTED
    if known is not None:
        rate, basis = known
        seconds = rate.fit.at(work.n_fitted) + rate.predict.at(work.n_scored) + rate.first.at(work.n_rows) / work.folds
    memory = training_memory(recipe, network)
    host = base_bytes(recipe, network) + (0.0 if gpus else memory.states + memory.activations)
    return Cost(
        seconds=seconds,
        first_seconds=0.0,
        gpus=gpus,
        memory_gib=RUNTIME_GIB + (host + ROW_BYTES * work.n_rows) / GIB,
        gpu_gib=memory.total / GIB if gpus else None,
        kept_bytes=part_bytes(recipe, network) + SCORE_BYTES * work.n_scored,
        passing_bytes=checkpoint_bytes(recipe, network),
        basis=basis,
    )


def _network_seconds(recipe: TransformerRecipe, network: Network, work: Workload, rates: Rates, *, gpus: int) -> float:
    """Operations over what the device reaches, and reading the weights."""
    table, training = shipped(), recipe.training
    train_flops, score_flops = table.cpu_flops
    if gpus and rates.card is not None:
        train_flops = score_flops = gpus * rates.card * table.gpu_share
    n_fitted = min(work.n_fitted, training.max_rows or work.n_fitted) * (2 if recipe.joint else 1)
    tokens = work.tokens(recipe)
    above = 1 - training.freeze_layers / network.n_layers
    trained = training.epochs * n_fitted * tokens * network.trained_flop(training.lora) * above
    scored = work.n_scored * tokens * network.scored_flop(training.lora)
    return trained / train_flops + scored / score_flops + base_bytes(recipe, network) / READ_BYTES
