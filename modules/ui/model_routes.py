"""How a page hears of the models: a WebSocket that tells of each load, unload and step of a load's progress."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..engine import Engine
from .requests import Body, endpoint, send_until_left, session_of

STEP_SECONDS = 0.3  # at least so long between two messages


def model_routes(engine: Engine) -> list[BaseRoute]:
    """To stand before Gradio's. A WebSocket, because a browser opens only six other connections to a host."""

    async def follow(socket: WebSocket) -> None:
        await socket.accept()
        await send_until_left(socket, _tell(socket, engine))

    async def cancel(request: Request) -> Body:
        session_of(request)
        return {"cancelled": engine.cancel_load()}

    return [WebSocketRoute("/ui-api/models", follow), Route("/ui-api/cancel-load", endpoint(cancel), methods=["POST"])]


async def _tell(socket: WebSocket, engine: Engine) -> None:
    """Send what is held and loading, then again at each change; `load` is how far a load is, null where none goes on."""
    while True:
        version, state = engine.watch.version, engine.watch.state
        held = [[model.name, model.loaded_at] for model in engine.models]
        load = {"name": state.name, "fraction": state.fraction, "what": state.what} if state.status == "loading" else None
        await socket.send_text(json.dumps({"what": [held, state.status, state.name], "load": load}))
        await asyncio.sleep(STEP_SECONDS)
        await engine.watch.changed(version)
