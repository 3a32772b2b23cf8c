"""The addresses of "Answer again with…": /ui-api/again for the choice, what it changes, and how the chosen model's load goes."""

from __future__ import annotations

import json
from dataclasses import asdict

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..chat import ChatService
from ..core.errors import NotFound
from .requests import Body, endpoint, read_body, send_until_left, session_of, text_of, whole_number

ASKED_UNKNOWN = 4404  # WebSocket close code: it is being written, or was sent away; look at the chat instead


def again_routes(chat: ChatService) -> list[BaseRoute]:
    """To stand before Gradio's. What the chat then shows is asked for at /ui-api/view."""
    again = chat.again

    async def models(request: Request) -> Body:
        """The models that could answer, the loaded ones first. Their names are whatever their files are called."""
        session_of(request)
        return {"models": [asdict(choice) for choice in await again.choices()]}

    async def forecast(request: Request) -> Body:
        query = request.query_params
        return asdict(await again.forecast(
            session_of(request), whole_number(query.get("node"), "node"), conversation=query.get("conversation", ""),
            model=query.get("model", ""), quantization=query.get("quantization", "")))

    async def start(request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        turn = await again.start(session, whole_number(body.get("node"), "node"), conversation=text_of(body, "conversation"),
                                 model=text_of(body, "model"), quantization=text_of(body, "quantization"))
        return {"is_written": turn is not None}

    async def cancel(request: Request) -> Body:
        session_of(request)
        again.cancel(text_of(await read_body(request), "asked"))
        return {}

    async def dismiss(request: Request) -> Body:
        session_of(request)
        again.dismiss(text_of(await read_body(request), "asked"))
        return {}

    async def follow(socket: WebSocket) -> None:
        """Sends how the load goes; closes with ASKED_UNKNOWN where there is nothing (more) to tell."""
        await socket.accept()
        await send_until_left(socket, _tell(socket))

    async def _tell(socket: WebSocket) -> None:
        try:
            async for step in again.follow(socket.path_params["asked"]):
                await socket.send_text(json.dumps(step))
        except NotFound as error:
            await socket.close(ASKED_UNKNOWN, error.message[:100])
            return
        await socket.close()

    gets = {"models": models, "forecast": forecast}
    posts = {"start": start, "cancel": cancel, "dismiss": dismiss}
    return [
        *(Route(f"/ui-api/again/{name}", endpoint(handler), methods=["GET"]) for name, handler in gets.items()),
        *(Route(f"/ui-api/again/{name}", endpoint(handler), methods=["POST"]) for name, handler in posts.items()),
        WebSocketRoute("/ui-api/again/{asked}", follow),
    ]
