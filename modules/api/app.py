"""The FastAPI app: its error answers, its dialects, and a 404 in JSON for every unknown API path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ..core.errors import AppError, BadRequest, NotFound
from ..engine import Engine
from . import internal, openai
from .answers import error_response

log = logging.getLogger(__name__)
DIALECTS = (openai, internal)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_api(engine: Engine, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The app with every dialect's routes; the page is mounted on it last, by app.py."""
    app = FastAPI(title="Colloquy", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.engine = engine

    @app.exception_handler(AppError)
    async def told(_: Request, error: AppError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0] if error.errors() else {"msg": "invalid request", "loc": ()}
        return error_response(BadRequest(f"{first['msg']}: {'.'.join(map(str, first['loc']))}"))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.exception("A request failed unexpectedly", exc_info=error)
        return error_response(AppError(f"The server failed unexpectedly ({type(error).__name__}); the log has the details."))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, and the loaded models; needs no key."""
        return {"status": "ok", "models": [held.name for held in engine.models]}

    for dialect in DIALECTS:
        app.include_router(dialect.routes(engine))

    @app.api_route("/v1", methods=METHODS, include_in_schema=False)
    @app.api_route("/v1/{path:path}", methods=METHODS, include_in_schema=False)
    async def unknown(http: Request, path: str = "") -> JSONResponse:
        # openai's SDK makes an object of any 200, so an unknown route must never fall through to the page.
        return error_response(NotFound(f"There is no {http.method} /v1/{path[:200]}; docs/api.md lists what there is."))

    return app

