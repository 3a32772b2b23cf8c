"""Errors a person can act on: what happened, the value, and what to do next.

    AppError
    ├── BadRequest         400  a value is wrong: names it and its range
    │   └── ContextTooLong 400  the prompt does not fit the context
    ├── Unauthorized       401  an API key is missing or wrong
    ├── Forbidden          403  the guard refused the request
    ├── NotFound           404  no such model, chat, file
    ├── Conflict           409  somebody else changed or holds it
    ├── TooLarge           413  a body or file is over its limit
    ├── NoModel            503  no model is loaded
    ├── Busy               503  the queue is full
    ├── LoadFailed         500  a model could not be loaded
    ├── OutOfMemory        507  memory ran out
    ├── WorkerDied         502  the model's process ended
    └── Cancelled          499  the person or client stopped it

Foreign exceptions are translated at the seam, `raise LoadFailed(...) from error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AppError(Exception):
    """An error whose message is a sentence for the person, with the next step in it.

    `param` names the request field or knob at fault, or is None; `log` is the end of a log that explains more.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.log = log

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `error_from_json` makes an equal error in another process."""
        return {"code": self.code, "message": self.message, "param": self.param, "log": self.log}


class BadRequest(AppError):
    status = 400
    code = "invalid_request"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class Unauthorized(AppError):
    status = 401
    code = "invalid_api_key"


class Forbidden(AppError):
    status = 403
    code = "forbidden"


class NotFound(AppError):
    status = 404
    code = "not_found"


class Conflict(AppError):
    status = 409
    code = "conflict"


class TooLarge(AppError):
    status = 413
    code = "too_large"


class Cancelled(AppError):
    status = 499
    code = "cancelled"


class NoModel(AppError):
    status = 503
    code = "no_model"


class Busy(AppError):
    status = 503
    code = "busy"


class LoadFailed(AppError):
    code = "load_failed"


class OutOfMemory(AppError):
    status = 507
    code = "out_of_memory"


class WorkerDied(AppError):
    status = 502
    code = "worker_died"


def _all_kinds(kind: type[AppError]) -> list[type[AppError]]:
    return [kind, *(k for sub in kind.__subclasses__() for k in _all_kinds(sub))]


def error_from_json(body: Mapping[str, Any]) -> AppError:
    """The error that `AppError.to_json` described; an unknown code becomes a plain AppError."""
    # A kind that has no code of its own shares its parent's: the parent, which says no more than is known, stands for both.
    kinds = {kind.code: kind for kind in _all_kinds(AppError) if "code" in vars(kind)}
    kind = kinds.get(str(body.get("code", "")), AppError)
    return kind(str(body.get("message", "")), param=body.get("param"), log=str(body.get("log", "")))
