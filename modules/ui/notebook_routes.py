"""The notebook's own addresses: /ui-api/notebook for its documents, and a WebSocket that sends the text of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..core.errors import BadRequest, NotFound
from ..core.events import Delta, Event, Failed, Finished, Loading, Prefill, Queued, Started
from ..engine import Engine
from ..notebook import Notebook
from ..store.documents import Document
from .requests import endpoint, read_body, send_until_left, session_of, text_of, whole_number

RUN_UNKNOWN = 4404  # WebSocket close code: look at the saved document instead
PAGE_DOCUMENTS = 40
SHORTEN = ("this page is too long to be saved and stays unsaved here. A letter of English is one byte, one of Chinese three. "
           "Cut a part out, and put it on a new page once this one is saved.")
SEND_SECONDS = 1 / 20  # between two sends: more than the eye needs, and a slow reader gets fewer, larger ones

Body = dict[str, Any]


def notebook_routes(notebook: Notebook, engine: Engine) -> list[BaseRoute]:
    """All routes of the notebook, to stand before Gradio's."""
    api = _NotebookApi(notebook, engine)
    posts: dict[str, Callable[[Request], Awaitable[Body]]] = {
        "save": api.save, "generate": api.generate, "undo": api.undo, "redo": api.redo, "new": api.new, "open": api.open,
        "rename": api.rename, "trash": api.trash, "restore": api.restore, "purge": api.purge, "bring_back": api.bring_back}
    return [
        Route("/ui-api/notebook/shown", endpoint(api.shown), methods=["GET"]),
        Route("/ui-api/notebook/unsaved", endpoint(api.unsaved), methods=["GET"]),
        Route("/ui-api/notebook/documents", endpoint(api.documents), methods=["GET"]),
        Route("/ui-api/notebook/versions", endpoint(api.versions), methods=["GET"]),
        *(Route(f"/ui-api/notebook/{name}", endpoint(handler), methods=["POST"]) for name, handler in posts.items()),
        WebSocketRoute("/ui-api/notebook/runs/{run}", api.follow),
    ]


class _NotebookApi:
    """Each handler reads the request, calls the notebook and returns JSON."""

    def __init__(self, notebook: Notebook, engine: Engine) -> None:
        self._notebook = notebook
        self._engine = engine

    async def shown(self, request: Request) -> Body:
        document = await self._notebook.shown(session_of(request))
        return self._body(document) if document else {"document": None}

    async def unsaved(self, request: Request) -> Body:
        """Whether the last run's text is on disk: the page asks while it is not."""
        session_of(request)
        return {"reason": self._notebook.unsaved(request.query_params.get("document", ""))}

    async def documents(self, request: Request) -> Body:
        session_of(request)
        offset = whole_number(request.query_params.get("offset", "0"), "offset")
        trashed = request.query_params.get("trashed") == "1"
        found, total = await self._notebook.listing(trashed=trashed, offset=offset, limit=PAGE_DOCUMENTS)
        return {"documents": [{"id": d.id, "title": d.title, "updated": d.updated} for d in found],
                "more": offset + len(found) < total}

    async def new(self, request: Request) -> Body:
        session, body = session_of(request), await read_body(request, advice=SHORTEN)
        return self._body(await self._notebook.create(session, text_of(body, "text")))

    async def open(self, request: Request) -> Body:
        body = await read_body(request)
        return self._body(await self._notebook.open(session_of(request), text_of(body, "document")))

    async def save(self, request: Request) -> Body:
        session_of(request)
        body = await read_body(request, advice=SHORTEN)
        saved = await self._notebook.save(text_of(body, "document"), text_of(body, "text"),
                                          base=whole_number(body.get("base"), "base"))
        return self._body(saved)

    async def generate(self, request: Request) -> Body:
        body = await read_body(request, advice=SHORTEN)
        going = await self._notebook.generate(session_of(request), text_of(body, "document"), text_of(body, "text"),
                                              base=whole_number(body.get("base"), "base"))
        return self._body(going.document)

    async def undo(self, request: Request) -> Body:
        session_of(request)
        return self._body(await self._notebook.undo(text_of(await read_body(request), "document")))

    async def redo(self, request: Request) -> Body:
        session_of(request)
        return self._body(await self._notebook.redo(text_of(await read_body(request), "document")))

    async def rename(self, request: Request) -> Body:
        session_of(request)
        body = await read_body(request)
        await self._notebook.rename(text_of(body, "document"), text_of(body, "title"))
        return {}

    async def trash(self, request: Request) -> Body:
        session_of(request)
        await self._notebook.trash(text_of(await read_body(request), "document"))
        return {}

    async def restore(self, request: Request) -> Body:
        session_of(request)
        await self._notebook.restore(text_of(await read_body(request), "document"))
        return {}

    async def purge(self, request: Request) -> Body:
        """One of the trash, or with `"all": true` whatever is in it."""
        session_of(request)
        body = await read_body(request)
        document = text_of(body, "document")
        if not document and body.get("all") is not True:
            raise BadRequest("Name the `document` to delete for good, or say `all`.", param="document")
        return {"purged": await self._notebook.purge(document or None)}

    async def versions(self, request: Request) -> Body:
        session_of(request)
        found = await self._notebook.versions(request.query_params.get("document", ""))
        return {"versions": [asdict(version) for version in found]}

    async def bring_back(self, request: Request) -> Body:
        session_of(request)
        body = await read_body(request)
        version = whole_number(body.get("version"), "version")
        return self._body(await self._notebook.bring_back(text_of(body, "document"), version))

    def _body(self, document: Document) -> Body:
        return {"document": {"id": document.id, "title": document.title, "text": document.text, "version": document.version,
                             "can_undo": document.can_undo, "can_redo": document.can_redo,
                             "run": self._notebook.live_run(document.id), "unsaved": self._notebook.unsaved(document.id)}}

    async def follow(self, socket: WebSocket) -> None:
        """Sends the run's text from event `offset` on, as `{"offset", "text", ...}`, until it has ended and is saved."""
        await socket.accept()
        try:
            run = self._engine.run(socket.path_params["run"])
        except NotFound as error:
            await socket.close(RUN_UNKNOWN, error.message[:100])
            return
        offset = whole_number(socket.query_params.get("offset", "0"), "offset")
        await send_until_left(socket, self._send(socket, run.id, offset))

    async def _send(self, socket: WebSocket, run_id: str, offset: int) -> None:
        risk = ""
        async with aclosing(self._engine.run(run_id).follow(offset)) as batches:
            async for batch in batches:
                offset += len(batch)
                frame = {"offset": offset, **_frame(batch)}
                if risk != (risk := self._notebook.at_risk(run_id)):
                    frame["at_risk"] = risk
                await socket.send_json(frame)
                if not isinstance(batch[-1], (Finished, Failed)):
                    await asyncio.sleep(SEND_SECONDS)
        await self._notebook.settle()
        await socket.send_json({"offset": offset, "saved": True})
        await socket.close()


def _frame(batch: list[Event]) -> Body:
    """What a batch of events says: new text, and the newest state."""
    frame: Body = {"text": "".join(event.text for event in batch if isinstance(event, Delta))}
    for event in batch:
        if isinstance(event, Loading):
            frame["state"] = f"Loading {event.model}, which was idle: {event.fraction:.0%}"
        elif isinstance(event, Queued):
            frame["state"] = f"Waiting, place {event.position} in the queue"
        elif isinstance(event, Started):
            frame["notes"] = _notes(event)
        elif isinstance(event, Prefill):
            frame["state"] = f"Reading the text: {event.done:,} of {event.total:,} tokens"
        elif isinstance(event, Delta):
            frame["state"] = ""
        elif isinstance(event, Finished):
            speed = event.timings.tokens_per_second(event.usage.completion_tokens)
            tokens = f"{'≈ ' if event.usage.is_estimate else ''}{event.usage.completion_tokens:,} tokens"
            frame |= {"end": event.reason, "state": f"{tokens}, {speed:.1f} a second" if speed else tokens}
        elif isinstance(event, Failed):
            frame |= {"end": "error", "error": event.error.message, "state": ""}
    return frame


def _notes(started: Started) -> list[str]:
    """What the person is to know of this run: whatever was not taken as they wrote or set it."""
    notes = []
    if started.left_out:
        notes.append(f"The text is longer than the context: its first {started.left_out:,} tokens were left out.")
    if started.ignored:
        notes.append(f"This model's loader does not know: {', '.join(started.ignored)}.")
    return notes
