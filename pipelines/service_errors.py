"""What the scoring service says of a request that it does not understand: where, what, and nothing of its content."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

MOST_FAULTS = 100
LONGEST_WORDS = 300
UNREADABLE = "the body is not JSON in UTF-8, or is compressed, or nested too deep"
BAD_REQUEST, REFUSED = 400, 422


def add_error_answers(app: "FastAPI") -> None:
    """Have the service answer 422 with `loc`, `msg` and `type` of every fault, whatever is wrong with a body."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    async def refuse_fields(request: "Request", error: Exception) -> "JSONResponse":
        assert isinstance(error, RequestValidationError), "it is called with nothing else"
        return JSONResponse({"detail": told(error.errors())}, REFUSED)

    async def refuse_body(request: "Request", error: Exception) -> "JSONResponse":
        """FastAPI says 400, without a place, of a body that cannot be parsed; we never say 400."""
        assert isinstance(error, HTTPException), "it is called with nothing else"
        if error.status_code == BAD_REQUEST:
            return JSONResponse({"detail": [{"loc": ["body"], "msg": UNREADABLE, "type": "json_invalid"}]}, REFUSED)
        return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)

    app.add_exception_handler(RequestValidationError, refuse_fields)
    app.add_exception_handler(HTTPException, refuse_body)


def told(faults: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first faults without what was sent.

    Examples
    --------
    >>> told([{"loc": ("body", 7), "msg": "JSON decode error", "type": "json_invalid", "input": {}, "ctx": {}}])
    [{'loc': ['body'], 'msg': 'JSON decode error', 'type': 'json_invalid'}]
    """
    return [
        {
            "loc": ["body"] if fault["type"] == "json_invalid" else [_shown(part) for part in fault["loc"]],
            "msg": _shown(str(fault["msg"])),
            "type": fault["type"],
        }
        for fault, _ in zip(faults, range(MOST_FAULTS), strict=False)
    ]


def _shown(part: int | str) -> int | str:
    """A part of a place as it can be written: a field's name is the client's, and may hold half a character."""
    return part if isinstance(part, int) else part.encode("utf-8", "replace").decode("utf-8")[:LONGEST_WORDS]
