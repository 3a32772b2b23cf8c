"""The notebook: free text that the model continues, saved as versions, with the same journal as the chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from .core.errors import AppError, BadRequest, NotFound
from .core.events import Delta, Event, Failed, Finished, Request
from .engine import Engine, Run
from .sessions import Sessions
from .store.database import Store
from .store.documents import Document, DocumentSummary
from .store.journal import JournalWriter
from .store.schema import LOCAL

log = logging.getLogger(__name__)
TITLE_CHARACTERS = 60


@dataclass(frozen=True)
class Continuation:
    """A run that continues a document: its text stands after the document's version `document.version`."""

    document: Document
    run: str


class Notebook:
    """The documents of this machine's owner. On the event loop; the database works in threads.

    Every save is a version made from the one the page names, so a stale tab makes a branch and never overwrites.
    """

    def __init__(self, engine: Engine, store: Store, sessions: Sessions, instance: str) -> None:
        self._engine = engine
        self._store = store
        self._documents = store.documents
        self._sessions = sessions
        self._instance = instance
        self._live: dict[str, str] = {}
        self._savings: set[asyncio.Task[None]] = set()

    async def shown(self, session: str) -> Document | None:
        """The document this session has open, None where it has none or it is gone."""
        state = await self._sessions.get(session)
        if not state.document:
            return None
        try:
            return await asyncio.to_thread(self._documents.get, state.document, state.owner)
        except NotFound:
            await self._sessions.update(session, document="")
            return None

    def live_run(self, document: str) -> str:
        """The run that is writing to this document now, or ""."""
        return self._live.get(document, "")

    async def create(self, session: str, text: str = "") -> Document:
        made = await asyncio.to_thread(self._documents.create, title=_title(text), text=text)
        await self._sessions.update(session, document=made.id)
        return made

    async def open(self, session: str, document: str) -> Document:
        found = await asyncio.to_thread(self._documents.get, document)
        await self._sessions.update(session, document=found.id)
        return found

    async def save(self, document: str, text: str, *, base: int) -> Document:
        """A new version made from version `base`; equal text makes none."""
        saved = await asyncio.to_thread(self._documents.save, document, text, base=base)
        return await self._titled(saved)

    async def generate(self, session: str, document: str, text: str, *, base: int) -> Continuation:
        """Save the text, then continue it at its end. Raises Conflict-like BadRequest while the document is being written."""
        if self.live_run(document):
            raise BadRequest("This document is being written to; stop that first.")
        if not text:
            raise BadRequest("The page is empty; write a few words to continue from.", param="text")
        state = await self._sessions.get(session)
        self._engine.held(state.model if any(m.name == state.model for m in self._engine.models) else "")
        saved = await self.save(document, text, base=base)
        run_id = secrets.token_hex(12)
        header = {"document": document, "base": saved.version, "owner": LOCAL, "instance": self._instance}
        writer = await asyncio.to_thread(self._store.journal.open, run_id, header)

        def listener(run: Run, events: Sequence[Event]) -> None:
            for event in events:
                if isinstance(event, Delta):
                    writer.append(event.text, "text", [token.id for token in event.tokens])
            if isinstance(events[-1], (Finished, Failed)):
                self._keep(saved, run, writer)

        request = Request(state.generation_params(), text=text, owner=LOCAL, cache_key=f"document {document}", truncate=True,
                          control=True)
        self._live[document] = run_id
        try:
            self._engine.start(request, listener=listener, run_id=run_id)
        except AppError:
            self._live.pop(document, None)
            await asyncio.to_thread(writer.close, delete=True)
            raise
        return Continuation(saved, run_id)

    async def undo(self, document: str) -> Document:
        return await asyncio.to_thread(self._documents.undo, document)

    async def redo(self, document: str) -> Document:
        return await asyncio.to_thread(self._documents.redo, document)

    async def listing(self, *, trashed: bool = False, offset: int = 0, limit: int = 50) -> tuple[list[DocumentSummary], int]:
        """Documents, the last saved first, and how many there are."""
        return await asyncio.to_thread(self._documents.listing, trashed=trashed, offset=offset, limit=limit)

    async def rename(self, document: str, title: str) -> None:
        if not title.strip():
            raise BadRequest("A title has at least one character.", param="title")
        await asyncio.to_thread(self._documents.rename, document, title.strip())

    async def trash(self, document: str) -> None:
        if run := self.live_run(document):
            self._engine.run(run).cancel()
        await asyncio.to_thread(self._documents.trash, document)

    async def restore(self, document: str) -> None:
        await asyncio.to_thread(self._documents.restore, document)

    async def settle(self) -> None:
        """Wait until every ended run is saved; at shutdown."""
        while self._savings:
            await asyncio.gather(*self._savings, return_exceptions=True)

    def _keep(self, base: Document, run: Run, writer: JournalWriter) -> None:
        task = asyncio.create_task(self._save_run(base, run, writer), name=f"save {run.id}")
        self._savings.add(task)
        task.add_done_callback(self._savings.discard)

    async def _save_run(self, base: Document, run: Run, writer: JournalWriter) -> None:
        """The version first, then the journal goes; a write that fails leaves the journal for the next start."""
        new = "".join(event.text for event in run.events if isinstance(event, Delta))
        try:
            if new:
                await asyncio.to_thread(self._documents.save, base.id, base.text + new, base=base.version, run=run.id)
        except AppError:
            log.exception("Saving document %s failed; its text stays in the journal and is recovered at the next start", base.id)
            await asyncio.to_thread(writer.close, delete=False)
            return
        finally:
            self._live.pop(base.id, None)
        await asyncio.to_thread(writer.close, delete=True)

    async def _titled(self, document: Document) -> Document:
        """An untitled document takes its first line as its title."""
        title = _title(document.text)
        if document.title or not title:
            return document
        await asyncio.to_thread(self._documents.rename, document.id, title)
        return await asyncio.to_thread(self._documents.get, document.id)


def _title(text: str) -> str:
    """The first line that has words, cut at a word."""
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARACTERS else line[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + "…"
