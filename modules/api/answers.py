"""How an AppError and a JSON body travel: OpenAI's error shape, retry headers, bounded reading."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from ..core.errors import AppError, BadRequest, Busy, Cancelled

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
         409: "conflict_error", 413: "invalid_request_error", 503: "service_unavailable_error"}


def error_body(error: AppError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, which the official SDKs show to their users."""
    code = "model_not_found" if error.code == "not_found" and error.param == "model" else error.code
    kind = TYPES.get(error.status, "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}


class JsonAnswer(JSONResponse):
    """JSON in ASCII alone: a lone surrogate, which a body may hold, and U+2028, which breaks lines for some, do no harm."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_response(error: AppError) -> JSONResponse:
    """The error with its status; only a full queue is worth a retry, so SDKs are told not to repeat anything else."""
    headers = {"Retry-After": "1"} if isinstance(error, Busy) else {"x-should-retry": "false"}
    return JsonAnswer(error_body(error), status_code=error.status, headers=headers)


async def read_body(request: Request) -> dict[str, Any]:
    """The request's JSON object; its size is bounded by the guard. Raises BadRequest saying where it is broken."""
    raw = await _bytes(request)
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest(f"The body must be a JSON object; got {type(body).__name__}.")
    return body


def field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """A field of the body, or the default where it is absent or null; raises BadRequest naming it and its kind."""
    value = body.get(name)
    if value is None:
        return default
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join({"str": "a string", "int": "a whole number", "bool": "true or false", "list": "a list",
                             "dict": "an object", "float": "a number"}[k.__name__] for k in kinds)
        raise BadRequest(f"{name} must be {names}; got {_shown(value)}.", param=name)
    return value


def refuse_unknown(body: dict[str, Any], *known: str) -> None:
    """Raises BadRequest for a field that the route does not take."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadRequest(f"Unknown field {', '.join(unknown)[:200]}; this takes {', '.join(known)}.", param=unknown[0][:80])


async def _bytes(request: Request) -> bytes:
    pieces = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("The client left before its request was read.")
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)[:80]
