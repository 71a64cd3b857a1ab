"""What the scoring service is asked and answers, as pydantic models: they check requests and make the OpenAPI page."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

if TYPE_CHECKING:
    from pipelines.serving import Limits

LONGEST_NAME = 100
SHOWN = r"\S"  # something besides spaces
EXAMPLE = {
    "pairs": [
        {"id": 1, "query": "zapatos rojos", "target": "red leather shoes", "language": "es"},
        {"id": 2, "query": "dog toy", "target": "blue running shoes"},
    ]
}


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


def request_type(limits: "Limits", tasks: tuple[str, ...]) -> Any:
    """The model of a request within these limits; `task` may be left out where there is one."""
    text = Annotated[str, Field(max_length=limits.max_text)]
    word = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    strict = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE["pairs"][0]})
    pair = create_model(
        "Pair",
        __config__=strict,
        query=(Annotated[str, Field(max_length=limits.max_text, pattern=SHOWN)], ...),
        target=(text, ...),
        language=(word | None, Field(None, description="Guessed where it is missing.")),
        query_en=(text | None, Field(None, description="The query in English, if you have it.")),
        id=(Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)] | word | None, None),
    )
    task: Any = Literal[tasks]  # type: ignore[valid-type]  # known when the service starts
    return create_model(
        "ScoreRequest",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE}),
        task=(task, ...) if len(tasks) > 1 else (task, tasks[0]),
        pairs=(Annotated[list[pair], Field(min_length=1, max_length=limits.max_pairs)], ...),  # type: ignore[valid-type]
    )
