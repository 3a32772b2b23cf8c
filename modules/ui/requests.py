"""How a request of the page is read and answered: its session, its JSON body, and errors as sentences."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..core.errors import AppError, BadRequest, TooLarge

log = logging.getLogger(__name__)

MAX_BODY = 4_500_000  # bytes; a message may have a million characters
_SESSION = re.compile(r"[A-Za-z0-9_-]{16,64}")

Body = dict[str, Any]
Handler = Callable[[Request], Awaitable[Body]]


async def send_until_left(socket: WebSocket, work: Coroutine[Any, Any, None]) -> None:
    """Run what sends to an accepted socket, until it is done or the page has left; a fault of ours goes to the log."""
    sending, leaving = asyncio.create_task(work), asyncio.create_task(_wait_until_left(socket))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        leaving.cancel()
    for result in await asyncio.gather(sending, leaving, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            log.error("Sending to a page by %s failed", socket.url.path, exc_info=result)


async def _wait_until_left(socket: WebSocket) -> None:
    """A page says nothing here; what it sends is not read."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request), headers={"Cache-Control": "no-store"})
        except AppError as error:
            body = {"message": error.message, "code": error.code, "param": error.param}
            return JSONResponse({"error": body}, status_code=error.status)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            message = "Colloquy made a mistake here; nothing was lost. The server's log says more."
            return JSONResponse({"error": {"message": message, "code": "internal_error", "param": None}}, status_code=500)

    return endpoint


def session_of(request: Request) -> str:
    """The tab's session id, which the page makes at random and sends with every request."""
    session = request.headers.get("x-session", "")
    if not _SESSION.fullmatch(session):
        raise BadRequest("The X-Session header must be 16 to 64 letters, digits, - or _; reload the page.", param="X-Session")
    return session


async def read_body(request: Request, *, advice: str = "send a shorter message.") -> Body:
    """The body's JSON object. Raises TooLarge with the advice, once all of it has come: browsers hear no answer before."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
    if size > MAX_BODY:
        raise TooLarge(f"The request has {size:,} bytes and may have {MAX_BODY:,}; {advice}")
    try:
        body = json.loads(b"".join(chunks))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The request's body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest("The request's body must be a JSON object.")
    return body


def text_of(body: Body, name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` must be a string.", param=name)
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole_number(value: Any, name: str) -> int:
    """A number from 0 to 2**53, as an int or digits."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,16}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise BadRequest(f"`{name}` must be a whole number; it is {str(value)[:50]!r}.", param=name)
    return value
