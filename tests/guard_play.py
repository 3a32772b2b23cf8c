"""A careless application to put behind the guard, and ways to call it: a client, and single hand-made requests."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from modules.guard import Guard, local_hosts

EVIL = "https://evil.example"
HERE = "http://127.0.0.1:7860"
GRADIOS = {"access-control-allow-origin": EVIL, "access-control-allow-credentials": "true"}


async def gradio_like(scope: Scope, receive: Receive, send: Send) -> None:
    """An application as careless as the one behind the guard: it reads everything and lets every origin read."""
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()
    else:
        n_bytes = len(await Request(scope, receive).body())
        await PlainTextResponse(f"read {n_bytes}", headers=GRADIOS)(scope, receive, send)


def client_of(app: ASGIApp = gradio_like, *, base_url: str = HERE, **options: Any) -> TestClient:
    return TestClient(Guard(app, **{"allowed_hosts": local_hosts(False), **options}), base_url=base_url, follow_redirects=False)


def scope_of(headers: list[tuple[bytes, bytes]], *, server: tuple[str, int] = ("127.0.0.1", 7860)) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/v1/x", "raw_path": b"/v1/x", "query_string": b"", "headers": headers,
            "server": server, "client": ("127.0.0.1", 5), "scheme": "http", "http_version": "1.1"}


async def call(app: ASGIApp, headers: list[tuple[bytes, bytes]], *, pieces: list[bytes] | None = None,
               server: tuple[str, int] = ("127.0.0.1", 7860)) -> tuple[int, bytes]:
    """One request straight to the application, its body in these pieces and without a stated length: status and body."""
    waiting = iter(pieces or [b""])
    left = len(pieces or [b""])
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(waiting), "more_body": left > 0}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(headers, server=server), receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def nothing() -> Message:
    return {"type": "http.request", "body": b""}


async def nowhere(message: Message) -> None:
    raise AssertionError(message)
