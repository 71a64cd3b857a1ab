"""What the scoring service is asked and answers, as pydantic models: they check requests and make the OpenAPI page."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from pipelines.pair_columns import PairColumns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from competition.tasks import Task
    from pipelines.serving import Limits

LONGEST_NAME = 100
DESCRIPTIONS = {
    "id": "The pair's own; its place, from 1, where it is missing.",
    "language": "Guessed where it is missing.",
    "query": "What was searched for: not empty.",
    "target": "What it may be relevant to; null if that is not known.",
    "query_en": "The query in English, if you have it.",
}
EXAMPLES: list[Any] = [
    {"id": 1, "query": "zapatos rojos", "target": "red leather shoes", "language": "es"},
    {"id": 2, "query": "dog toy", "target": "blue running shoes"},
]


class Scored(BaseModel):
    """One pair's answer."""

    id: int | str = Field(description="The pair's own, or its place, from 1.")
    score: float = Field(ge=0, le=1, description="Probability that the query is relevant to the target.")
    decision: Literal[0, 1]


class ScoreResponse(BaseModel):
    """The answers to a request, in the order of its pairs."""

    task: str
    model: str = Field(description="The ensemble, base learner or student that scored.")
    scores: list[Scored]


class Health(BaseModel):
    """How the service does."""

    live: bool
    ready: bool
    models: dict[str, str]
    waiting: int = Field(description="Pairs that wait to be scored.")
    requests: int = Field(description="Requests that were scored, of the last 1,000; the rest of this is about them.")
    p50_ms: float | None = Field(description="Half of them were answered within so many milliseconds.")
    p95_ms: float | None = Field(description="95 % of them were.")
    pairs_per_second: float | None = Field(description="From the first of them to the last, pauses included.")


class Front(BaseModel):
    """What the service is, and what it can be asked."""

    name: str
    version: str
    paths: dict[str, str]


def request_type(limits: "Limits", tasks: "Sequence[Task]") -> Any:
    """The model of a request within these limits; `task` may be left out where there is one.

    A pair's fields may be called as in the contest's files too. Which of them must be there is `given_pairs`' business,
    as it is for files of pairs.
    """
    names: Any = Literal[tuple(task.name for task in tasks)]
    pair: Any = _pair_type(limits, tasks)
    return create_model(
        "ScoreRequest",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": {"pairs": EXAMPLES}}),
        task=(names, ...) if len(tasks) > 1 else (names, tasks[0].name),
        pairs=(Annotated[list[pair], Field(min_length=1, max_length=limits.max_pairs)], ...),
    )


def _pair_type(limits: "Limits", tasks: "Sequence[Task]") -> Any:
    kinds: dict[str, Any] = {
        "id": Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)]
        | Annotated[str, Field(max_length=LONGEST_NAME)],
        "language": Annotated[str, Field(max_length=LONGEST_NAME)],
    }
    text = Annotated[str, Field(max_length=limits.max_text)]
    fields: dict[str, Any] = {}
    for task in tasks:
        columns = PairColumns(task)
        for column, ways in columns.ways.items():
            for name in (each for way in ways for each in way):
                told = DESCRIPTIONS[column] if (name,) == ways[0] else f"As in the contest's files: {column}."
                fields.setdefault(name, (kinds.get(column, text) | None, Field(None, alias=name, description=told)))
    return create_model(
        "Pair",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLES[0]}),
        **{f"field_{place}": fields[name] for place, name in enumerate(sorted(fields))},  # any name can be an alias
    )
