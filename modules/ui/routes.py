"""The chat page's own addresses: /ui-api for what it shows and does, a WebSocket to follow a run, /ui-static for its scripts."""

from __future__ import annotations

import json
import logging
import re
from contextlib import aclosing

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..core.errors import BadRequest, NotFound
from ..core.events import Delta
from .history import RenderedTexts, page_before, view_json
from .live import LiveRun, LiveRuns
from .requests import Body, Handler, endpoint, read_body, send_until_left, session_of, text_of, whole_number
from .services import Chats, Runs, Services, Turn
from .static_files import serve_asset

log = logging.getLogger(__name__)

MAX_QUERY = 500
PAGE_CHATS = 40
MAX_DRAFTS = 100
RUN_UNKNOWN = 4404  # WebSocket close code: look at the saved chat instead


def ui_routes(services: Services) -> list[BaseRoute]:
    """All routes of the chat page, to stand before Gradio's."""
    api = _ChatApi(services.chats, services.runs)
    posts: dict[str, Handler] = {
        "duplicate": api.duplicate,
        "send": api.send, "regenerate": api.regenerate, "continue": api.go_on, "edit": api.edit, "choose": api.choose,
        "delete": api.delete, "undelete": api.undelete, "stop": api.stop, "new": api.new, "open": api.open,
        "rename": api.rename, "trash": api.trash, "restore": api.restore, "purge": api.purge}
    gets: dict[str, Handler] = {"view": api.view, "text": api.text, "unsaved": api.unsaved, "chats": api.chats}
    return [
        *(Route(f"/ui-api/{name}", endpoint(handler), methods=["GET"]) for name, handler in gets.items()),
        *(Route(f"/ui-api/{name}", endpoint(handler), methods=["POST"]) for name, handler in posts.items()),
        WebSocketRoute("/ui-api/runs/{run}", api.follow),
        Route("/ui-static/{version}/{name}", serve_asset, methods=["GET"]),
    ]


class _ChatApi:
    """Each handler reads the request, calls the chat service and returns JSON."""

    def __init__(self, chats: Chats, runs: Runs) -> None:
        self._chats = chats
        self._runs = runs
        self._texts = RenderedTexts()
        self._live = LiveRuns(runs, chats)

    # What is shown

    async def view(self, request: Request) -> Body:
        before = request.query_params.get("before")
        view = await self._chats.view(session_of(request))
        nodes = page_before(view.path, whole_number(before, "before") if before else None)
        return await view_json(view, nodes, self._texts)

    async def duplicate(self, request: Request) -> Body:
        """The first request of a duplicated tab, whose `session` still is the first tab's."""
        await self._chats.duplicate(session_of(request), text_of(await read_body(request), "session"))
        return {}

    async def text(self, request: Request) -> Body:
        """A message as it was written, for copying and editing."""
        wanted = whole_number(request.query_params.get("node"), "node")
        view = await self._chats.view(session_of(request))
        node = next((node for node in view.path if node.id == wanted), None)
        if node is None:
            raise NotFound("This message is no longer shown; reload the page.")
        text = node.message.text
        if node.status == "streaming":
            run = self._runs.run(node.run)
            text += "".join(e.text for e in run.events if isinstance(e, Delta) and e.channel == "text")
        return {"text": text}

    async def unsaved(self, request: Request) -> Body:
        """Whether an ended reply is on disk: the page asks once after each, and goes on asking while it is not."""
        session_of(request)
        return {"reason": await self._chats.unsaved(whole_number(request.query_params.get("node"), "node"))}

    async def chats(self, request: Request) -> Body:
        session_of(request)
        query = request.query_params.get("query", "")[:MAX_QUERY].strip()
        offset = whole_number(request.query_params.get("offset", "0"), "offset")
        drafts = request.query_params.get("drafts", "").split(",")[:MAX_DRAFTS]
        found = await self._chats.listing(query, offset=offset, limit=PAGE_CHATS, drafts=drafts,
                                          trashed=request.query_params.get("trashed") == "1")
        rows = [{key: getattr(chat, key) for key in ("id", "title", "character", "updated", "snippet")} for chat in found]
        return {"chats": rows, "more": len(rows) == PAGE_CHATS}

    # What is done to the open chat; each answers with the path from the place that changed on

    async def send(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        under = body.get("under")
        under = None if under is None else whole_number(under, "under")
        turn = await self._chats.send(session, text_of(body, "text"), conversation=text_of(body, "conversation"), under=under)
        return await self._tail(session, turn, after=under)

    async def regenerate(self, request: Request) -> Body:
        session, node = session_of(request), whole_number((await read_body(request)).get("node"), "node")
        return await self._tail(session, await self._chats.regenerate(session, node))

    async def go_on(self, request: Request) -> Body:
        session, node = session_of(request), whole_number((await read_body(request)).get("node"), "node")
        return await self._tail(session, await self._chats.continue_reply(session, node))

    async def edit(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        turn = await self._chats.edit(session, whole_number(body.get("node"), "node"), text_of(body, "text"),
                                      resend=body.get("resend") is True)
        return await self._tail(session, turn)

    async def choose(self, request: Request) -> Body:
        session, node = session_of(request), whole_number((await read_body(request)).get("node"), "node")
        await self._chats.choose(session, node)
        return await self._from(session, node)

    async def delete(self, request: Request) -> Body:
        session, node = session_of(request), whole_number((await read_body(request)).get("node"), "node")
        before = await self._chats.view(session)
        hidden = await self._chats.delete(session, node)
        place = next((index for index, one in enumerate(before.path) if one.id == node), 0)
        after = before.path[place - 1].id if place else None
        return {"hidden": list(hidden), "head_before": before.head, **await self._below(session, after)}

    async def undelete(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        nodes = body.get("nodes")
        if not isinstance(nodes, list) or len(nodes) > 100_000:
            raise BadRequest("`nodes` must be a list of at most 100,000 message ids.", param="nodes")
        head = body.get("head")
        await self._chats.undelete(session, [whole_number(node, "nodes") for node in nodes],
                                   head=None if head is None else whole_number(head, "head"))
        view = await self._chats.view(session)
        shown = set(nodes)
        return await self._from(session, next((node.id for node in view.path if node.id in shown), None))

    async def stop(self, request: Request) -> Body:
        session_of(request)
        await self._chats.stop(text_of(await read_body(request), "run"))
        return {}

    async def new(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        await self._chats.new_chat(session, character=text_of(body, "character") if "character" in body else None)
        return await self._newest(session)

    async def open(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request)
        await self._chats.open_chat(session, text_of(body, "conversation"))
        return await self._newest(session)

    # What is done to the list of chats

    async def rename(self, request: Request) -> Body:
        session_of(request)
        body = await read_body(request)
        await self._chats.rename(text_of(body, "conversation"), text_of(body, "title"))
        return {}

    async def trash(self, request: Request) -> Body:
        session_of(request)
        await self._chats.trash(text_of(await read_body(request), "conversation"))
        return {}

    async def restore(self, request: Request) -> Body:
        session_of(request)
        await self._chats.restore(text_of(await read_body(request), "conversation"))
        return {}

    async def purge(self, request: Request) -> Body:
        session_of(request)
        await self._chats.purge(text_of(await read_body(request), "conversation"))
        return {}

    # Answers

    async def _newest(self, session: str) -> Body:
        view = await self._chats.view(session)
        return await view_json(view, page_before(view.path, None), self._texts)

    async def _tail(self, session: str, turn: Turn, *, after: int | None = None) -> Body:
        """The path from what the turn wrote on."""
        first = turn.user or turn.reply
        return await self._from(session, first.id if first else after)

    async def _from(self, session: str, first: int | None) -> Body:
        """The path from the node `first` on."""
        path = (await self._chats.view(session)).path
        place = next((index for index, node in enumerate(path) if node.id == first), 0)
        return await self._below(session, path[place - 1].id if place else None)

    async def _below(self, session: str, after: int | None) -> Body:
        """The path below the node `after`, if that is among the newest; else the newest page, which replaces what is shown."""
        view = await self._chats.view(session)
        page = page_before(view.path, None)
        start = next((index + 1 for index, node in enumerate(page) if node.id == after), 0)
        answer = await view_json(view, page[start:], self._texts)
        return answer | {"after": after} if start else answer

    # Following a run

    async def follow(self, socket: WebSocket) -> None:
        """Sends the run's frames until it has ended; closes with RUN_UNKNOWN where there is no such run."""
        await socket.accept()
        try:
            live = self._live.get(socket.path_params["run"])
        except NotFound as error:
            await socket.close(RUN_UNKNOWN, error.message[:100])
            return
        await send_until_left(socket, _send_frames(socket, live))


async def _send_frames(socket: WebSocket, live: LiveRun) -> None:
    version = socket.query_params.get("version", "")
    frames = live.follow(socket.query_params.get("epoch", ""), int(version) if re.fullmatch(r"\d{1,9}", version) else 0)
    async with aclosing(frames):
        async for frame in frames:
            await socket.send_text(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
    await socket.close()
