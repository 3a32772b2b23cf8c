"""How a page hears of the models: a WebSocket that tells of each load, unload and step of a load's progress."""

from __future__ import annotations

import asyncio
import json
import logging

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..engine import Engine
from .requests import wait_until_left

log = logging.getLogger(__name__)
STEP_SECONDS = 0.3  # at least so long between two messages


def model_routes(engine: Engine) -> list[BaseRoute]:
    """To stand before Gradio's. A WebSocket, because a browser opens only six other connections to a host."""

    async def follow(socket: WebSocket) -> None:
        await socket.accept()
        telling, leaving = asyncio.create_task(_tell(socket, engine)), asyncio.create_task(wait_until_left(socket))
        await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in (telling, leaving):
            task.cancel()
        for result in await asyncio.gather(telling, leaving, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("Telling a page of the models failed", exc_info=result)

    return [WebSocketRoute("/ui-api/models", follow)]


async def _tell(socket: WebSocket, engine: Engine) -> None:
    """Send what is held and loading, then again at each change. What it says is compared, never shown."""
    try:
        while True:
            version, state = engine.watch.version, engine.watch.state
            held = [[model.name, model.loaded_at] for model in engine.models]
            await socket.send_text(json.dumps({"what": [held, state.status, state.name]}))
            await asyncio.sleep(STEP_SECONDS)
            await engine.watch.changed(version)
    except WebSocketDisconnect:
        return  # the page left
