"""How a page hears of the models: a WebSocket that tells of each load, unload and step of a load's progress."""

from __future__ import annotations

import asyncio
import json

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from ..engine import Engine
from .requests import send_until_left

STEP_SECONDS = 0.3  # at least so long between two messages


def model_routes(engine: Engine) -> list[BaseRoute]:
    """To stand before Gradio's. A WebSocket, because a browser opens only six other connections to a host."""

    async def follow(socket: WebSocket) -> None:
        await socket.accept()
        await send_until_left(socket, _tell(socket, engine))

    return [WebSocketRoute("/ui-api/models", follow)]


async def _tell(socket: WebSocket, engine: Engine) -> None:
    """Send what is held and loading, then again at each change. What it says is compared, never shown."""
    while True:
        version, state = engine.watch.version, engine.watch.state
        held = [[model.name, model.loaded_at] for model in engine.models]
        await socket.send_text(json.dumps({"what": [held, state.status, state.name]}))
        await asyncio.sleep(STEP_SECONDS)
        await engine.watch.changed(version)
