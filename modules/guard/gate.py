"""The guard: an ASGI application in front of every other, which refuses what a hostile page or network may send."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.errors import AppError, BadRequest, Forbidden, TooLarge, Unauthorized

from .hosts import HostRules, OriginRules, is_same_origin
from .login import LOGIN_PATH, Login, TooManyAttempts

BODY_LIMIT = 64 * 2**20  # bytes: a long chat's import or a character's picture, not a model
# Answered in JSON, and never shown as a page.
API_PATHS = ("/v1", "/api", "/ui-api", "/gradio_api", "/health", "/metrics")
# Which of them other origins' pages may call, where cors_origins names them.
CORS_PATHS = ("/v1",)
OPEN_PATHS = ("/health",)
READS = ("GET", "HEAD")
KEY_NEEDED = 4401  # the WebSocket close code by which the page knows to ask for the key
WRONG_KEY = "This server needs its API key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")

logger = logging.getLogger("colloquy.guard")


@dataclass(frozen=True)
class Call:
    """One request or WebSocket as the rules see it; `path` is without the proxy's prefix, `host` checked and lower case."""

    connection: HTTPConnection
    path: str
    host: str
    method: str
    cors_origin: str
    """The foreign origin that may make this call and read its answer, or empty."""

    @property
    def is_api(self) -> bool:
        return _is_below(self.path, API_PATHS)


class Guard:
    """Refuses wrong hosts, other sites' requests, large bodies and callers without the key, and sets security headers.

    A client that sends neither Origin nor Sec-Fetch-Site is no browser and passes the origin check, never the key's.
    `allowed_hosts` are all names to answer to (`local_hosts(listen)` and the person's own). `api_key` None or empty asks
    for none. `body_limit` is in bytes. `root_path` is the prefix under which a proxy serves this, such as /colloquy.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str], cors_origins: Iterable[str] = (),
                 api_key: str | None = None, body_limit: int = BODY_LIMIT, root_path: str = "",
                 clock: Callable[[], float] = time.monotonic) -> None:
        if root_path and not _ROOT_PATH.fullmatch(root_path):
            raise BadRequest(f"root_path must be a path such as /colloquy, without a final /; got {root_path!r}.",
                             param="root_path")
        self._app = app
        self._hosts = HostRules(allowed_hosts, has_key=bool(api_key))
        self._origins = OriginRules(cors_origins, has_key=bool(api_key))
        self._login = Login(api_key, root_path=root_path, clock=clock) if api_key else None
        self._body_limit = body_limit
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = self._without_prefix(scope)
        connection = HTTPConnection(scope)
        call = Call(connection, scope["path"], "", scope.get("method", ""), "")
        try:
            arrived_at = (scope.get("server") or ("",))[0]
            host = self._hosts.check(connection.headers.getlist("host"), arrived_at)
            call = Call(connection, call.path, host, call.method, self._foreign_origin(connection, call.path))
            answer = self._preflight(call)
            if answer is None:
                _check_site(call)
                self._check_length(connection)
                answer = await self._ask_key(call, receive)
        except AppError as error:
            answer = self._refusal(call, error)
        if answer is None:
            await self._pass_on(call, receive, send)
        elif scope["type"] == "websocket":
            await _close_socket(answer, receive, send)
        else:
            await answer(scope, receive, _dressed(call, send))

    def _without_prefix(self, scope: Scope) -> Scope:
        """The scope less the proxy's prefix, which some proxies leave on: the application routes by the path judged here."""
        if not self._root_path or not _is_below(scope["path"], (self._root_path,)):
            return scope
        raw = scope.get("raw_path") or b""
        n_characters = len(self._root_path)
        return {**scope, "path": scope["path"][n_characters:] or "/", "raw_path": raw[n_characters:] or b"/"}

    def _foreign_origin(self, connection: HTTPConnection, path: str) -> str:
        origin = connection.headers.get("origin", "")
        is_allowed = bool(origin) and connection.scope["type"] == "http" and self._origins.allows(origin)
        return origin if is_allowed and _is_below(path, CORS_PATHS) else ""

    def _preflight(self, call: Call) -> Response | None:
        """The answer to a browser that asks whether an allowed page may send its request; it bears no key yet."""
        headers = call.connection.headers
        if call.method != "OPTIONS" or not call.cors_origin or "access-control-request-method" not in headers:
            return None
        allow = {"access-control-allow-methods": "GET, POST, DELETE, OPTIONS", "access-control-max-age": "600",
                 "access-control-allow-headers": headers.get("access-control-request-headers", "")}
        if headers.get("access-control-request-private-network") == "true":
            allow["access-control-allow-private-network"] = "true"
        return Response(status_code=204, headers=allow)

    def _check_length(self, connection: HTTPConnection) -> None:
        text = connection.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()):
            raise BadRequest(f"The Content-Length header must be a whole number; got {text[:40]!r}.")
        if int(text) > self._body_limit:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request's body is over the limit of {self._body_limit:,} bytes; send it in smaller parts.")

    async def _ask_key(self, call: Call, receive: Receive) -> Response | None:
        """None when the caller may go on; else the login page's answer, or Unauthorized or TooManyAttempts raised."""
        if self._login is None or call.path in OPEN_PATHS:
            return None
        if call.method and call.path == LOGIN_PATH:
            return await self._login.answer(call.connection, receive)
        is_page = call.method in READS and not call.is_api
        if is_page and "key" in call.connection.query_params:
            return self._login.answer_link(call.connection, call.path)
        if self._login.has_cookie(call.connection) or self._login.has_key(call.connection):
            return None
        if is_page:
            return self._login.wall(call.connection, call.path)
        raise Unauthorized(WRONG_KEY)

    def _refusal(self, call: Call, error: AppError) -> Response:
        connection = call.connection
        address = connection.client.host if connection.client else "?"
        logger.info("Refused %s %.200r from %s: %s", call.method or "WebSocket", call.path, address, error.message)
        if call.is_api:
            response: Response = Response(openai_error(error), status_code=error.status, media_type="application/json")
        else:
            response = PlainTextResponse(error.message + "\n", status_code=error.status)
        if isinstance(error, TooManyAttempts) and self._login is not None:
            response.headers["retry-after"] = str(self._login.retry_after(connection))
        if isinstance(error, Unauthorized):
            response.headers["www-authenticate"] = "Bearer"
        # What is left of a refused body would be read as the next request.
        response.headers["connection"] = "close"
        return response

    async def _pass_on(self, call: Call, receive: Receive, send: Send) -> None:
        """Run the application, counting the body's bytes as they come: a chunked body states no length beforehand."""
        n_bytes, is_begun, is_refused = 0, False, False
        dressed = _dressed(call, send)
        scope = call.connection.scope

        async def counted() -> Message:
            nonlocal n_bytes, is_refused
            if is_refused:
                return {"type": "http.disconnect"}
            message = await receive()
            n_bytes += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if n_bytes <= self._body_limit:
                return message
            is_refused = True
            if not is_begun:
                await self._refusal(call, self._too_large())(scope, receive, dressed)
            return {"type": "http.disconnect"}

        async def unless_refused(message: Message) -> None:
            nonlocal is_begun
            if not is_refused:
                is_begun = True
                await dressed(_without_cors(message))

        try:
            await self._app(scope, counted, unless_refused)
        except Exception:
            if not is_refused:
                raise
            logger.debug("The application ended with an error after its request was refused as too large", exc_info=True)


def openai_error(error: AppError) -> bytes:
    """The error as the OpenAI clients read it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return json.dumps({"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}).encode()


def _is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def _check_site(call: Call) -> None:
    """Forbidden for what another site's page sends, but for a link to one of our pages and the origins that were named.

    Browsers say whose page asks: Sec-Fetch-Site (only to https and localhost), Origin (with every request that could
    change something, and every WebSocket). Pages cannot set either. `null` is a page that hides its origin.
    """
    headers = call.connection.headers
    if call.cors_origin:
        return
    site = headers.get("sec-fetch-site", "")
    if site not in ("", "same-origin", "none"):
        is_link = call.method in READS and not call.is_api
        if not (is_link and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"):
            raise Forbidden("This request comes from another site's page. " + _advice(headers.get("origin", "")))
    for origin in headers.getlist("origin"):
        if not is_same_origin(origin, call.host) and not (origin == "null" and site == "same-origin"):
            raise Forbidden(f"Pages of {origin[:100]!r} may not call this server. " + _advice(origin))


def _advice(origin: str) -> str:
    return ("For the API, start Colloquy with --cors-origins " + (origin[:100] if origin else "and that page's origin")
            + "; a reverse proxy must pass the Host header on unchanged.")


def _policy(host: str) -> str:
    """The Content-Security-Policy. Gradio's `js=` and gr.HTML need inline and eval; nothing may come from another host.

    Images only from here keep a model's reply from sending text away in a picture's address. The WebSocket's host is
    named because older browsers do not count it as 'self'.
    """
    sockets = f" ws://{host} wss://{host}" if host else ""
    return ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
            f"connect-src 'self'{sockets}; worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; "
            "base-uri 'self'; form-action 'self'")


def _without_cors(message: Message) -> Message:
    """The application's message less its CORS headers: Gradio's let every origin read, with credentials, off localhost."""
    if message["type"] == "http.response.start":
        kept = [(name, value) for name, value in message.get("headers", ()) if not name.lower().startswith(b"access-control-")]
        return {**message, "headers": kept}
    return message


def _dressed(call: Call, send: Send) -> Send:
    """`send` with the security headers on the response's start, and the CORS headers where the call may have them."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("content-security-policy", _policy(call.host))
            headers.setdefault("referrer-policy", "same-origin")  # no-referrer would make our own forms' Origin null
            headers["x-content-type-options"] = "nosniff"
            headers["x-frame-options"] = "DENY"
            headers["cross-origin-opener-policy"] = "same-origin"
            if call.cors_origin:
                headers["access-control-allow-origin"] = call.cors_origin
                headers["access-control-expose-headers"] = "retry-after, x-request-id"
                headers.add_vary_header("Origin")
            else:
                headers["cross-origin-resource-policy"] = "same-origin"
        await send(message)

    return dressed


async def _close_socket(answer: Response, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket: without the key it is accepted and closed with KEY_NEEDED, which the page's script can read."""
    await receive()
    if answer.status_code in (401, 429):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": KEY_NEEDED, "reason": "the API key is needed"})
    else:
        await send({"type": "websocket.close", "code": 1008})
