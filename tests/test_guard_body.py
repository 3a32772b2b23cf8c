"""The guard's limit on bodies, however they are cut, and that it holds no stream back."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from modules.guard import Guard

from .guard_play import call, client_of, gradio_like, nothing, scope_of


def test_a_body_is_refused_by_its_stated_length_before_a_byte_is_read() -> None:
    client = client_of(body_limit=1000)
    answer = client.post("/v1/completions", content=b"x" * 1001)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
    assert answer.headers["connection"] == "close"
    assert client.post("/v1/completions", content=b"x" * 1000).text == "read 1000"
    for text in ("-1", "1e3", "1_0"):
        assert client.post("/", headers={"content-length": text}).status_code == 400


@pytest.mark.parametrize("limit", range(0, 13))
async def test_a_body_without_a_length_is_refused_once_it_is_too_long_however_it_is_cut(limit: int) -> None:
    """12 bytes in every cut of up to three pieces: the answer depends on the sum alone."""
    guard = Guard(gradio_like, allowed_hosts=["localhost"], body_limit=limit)
    for first in range(13):
        pieces = [b"x" * first, b"x" * (12 - first), b""]
        status, body = await call(guard, [(b"host", b"localhost")], pieces=pieces)
        assert (status, body) == (200, b"read 12") if limit >= 12 else status == 413


async def test_an_application_that_answered_already_is_cut_off_and_one_that_fails_does_not_hide_the_413() -> None:
    async def answers_first(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        await send({"type": "http.response.body", "body": b"late"})

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise RuntimeError("broken")

    async def answers_500(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await PlainTextResponse("broken", status_code=500)(scope, receive, send)

    host = [(b"host", b"localhost")]
    assert await call(Guard(answers_first, allowed_hosts=["localhost"], body_limit=1), host, pieces=[b"xx"]) == (200, b"")
    for app in (fails, answers_500):
        assert (await call(Guard(app, allowed_hosts=["localhost"], body_limit=1), host, pieces=[b"xx"]))[0] == 413
    with pytest.raises(RuntimeError):
        await call(Guard(fails, allowed_hosts=["localhost"], body_limit=1), host, pieces=[b"x"])


async def test_a_stream_is_passed_on_piece_by_piece() -> None:
    """The guard must hold nothing back: the first piece is out while the application still waits for the second."""
    sent: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            assert sent[-1] == piece

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    await Guard(app, allowed_hosts=["localhost"])(scope_of([(b"host", b"localhost")]), nothing, send)
    assert sent == [b"", b"one", b"two"]
