"""The notebook: free text that the model continues, saved as versions, with the same journal as the chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import saving
from .core.errors import AppError, BadRequest, NotFound
from .core.events import Delta, Event, Failed, Finished, Request
from .engine import Engine, Run
from .saving import Savings
from .sessions import Session, Sessions
from .store.database import Store
from .store.documents import Document, DocumentSummary, Version
from .store.journal import JournalWriter
from .store.schema import LOCAL

log = logging.getLogger(__name__)
TITLE_CHARACTERS = 60


@dataclass(frozen=True)
class Continuation:
    """A run that continues a document: its text stands after the document's version `document.version`."""

    document: Document
    run: str


@dataclass(frozen=True)
class _Ending:
    """What a run left: the whole text that is to follow the version `base`."""

    base: Document
    run: str
    text: str
    writer: JournalWriter


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
        self._unsaved: dict[str, _Ending] = {}
        self._reasons: dict[str, str] = {}  # why, for each of the unsaved
        self._writers: dict[str, JournalWriter] = {}  # by live run
        self._savings = Savings()

    async def shown(self, session: str) -> Document | None:
        """The document this session has open, None where it has none, or it is in the trash or gone."""
        state = await self._sessions.get(session)
        if not state.document:
            return None
        try:
            found = await asyncio.to_thread(self._documents.get, state.document, state.owner)
        except NotFound:
            found = None
        if found is None or found.trashed_at is not None:
            await self._sessions.update(session, document="")
            return None
        return self._as_written(found)

    def live_run(self, document: str) -> str:
        """The run that is writing to this document now, or ""."""
        return self._live.get(document, "")

    def at_risk(self, run: str) -> str:
        """Why what a live run has written is not safe on disk, "" where it is or there is no such run."""
        writer = self._writers.get(run)
        return f"Not safe on disk yet, because {writer.error}" if writer is not None and writer.error else ""

    def unsaved(self, document: str) -> str:
        """Why what the last run wrote is not saved yet, "" where it is."""
        return self._reasons.get(document, "") if document in self._unsaved else ""

    async def create(self, session: str, text: str = "") -> Document:
        made = await asyncio.to_thread(self._documents.create, title=_title(text), text=text)
        await self._sessions.update(session, document=made.id)
        return made

    async def open(self, session: str, document: str) -> Document:
        found = await asyncio.to_thread(self._documents.get, document)
        await self._sessions.update(session, document=found.id)
        return self._as_written(found)

    async def save(self, document: str, text: str, *, base: int) -> Document:
        """A new version made from version `base`; equal text makes none."""
        saved = await asyncio.to_thread(self._documents.save, document, text, base=base)
        waiting = self._unsaved.get(document)
        if waiting is not None and text.startswith(waiting.text):
            await self._let_go(waiting)  # the page had its text already and has now saved it
        return await self._titled(saved)

    async def generate(self, session: str, document: str, text: str, *, base: int) -> Continuation:
        """Save the text, then continue it at its end. Raises BadRequest while the document is being written to."""
        if self.live_run(document):
            raise BadRequest("This document is being written to; stop that first.")
        if not text:
            raise BadRequest("The page is empty; write a few words to continue from.", param="text")
        run_id = self._live[document] = secrets.token_hex(12)  # before anything is waited for: two tabs may ask at once
        try:
            state = await self._sessions.get(session)
            saved = await self.save(document, text, base=base)
            return await self._begin(state, saved, run_id)
        except BaseException:
            self._live.pop(document, None)
            raise

    async def _begin(self, state: Session, saved: Document, run_id: str) -> Continuation:
        header = {"document": saved.id, "base": saved.version, "owner": LOCAL, "instance": self._instance}
        writer = self._writers[run_id] = await asyncio.to_thread(self._store.journal.open, run_id, header)

        def listener(run: Run, events: Sequence[Event]) -> None:
            for event in events:
                if isinstance(event, Delta):
                    writer.append(event.text, "text", [token.id for token in event.tokens])
            if isinstance(events[-1], (Finished, Failed)):
                self._writers.pop(run.id, None)
                ending = _Ending(saved, run.id, saved.text + run.text(), writer)
                self._savings.begin(self._save_run(ending), f"save {run.id}")

        def request() -> Request:
            model = state.model if any(held.name == state.model for held in self._engine.models) else ""
            return Request(state.generation_params(), text=saved.text, model=model, owner=LOCAL,
                           cache_key=f"document {saved.id}", truncate=True, control=True)

        try:
            self._engine.start_for(state.model, request, listener=listener, run_id=run_id)
        except BaseException:
            self._writers.pop(run_id, None)
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
        """A live run is stopped first, and what it wrote is saved: in the trash nothing can be."""
        for run in self._engine.live_runs:
            if run.id == self.live_run(document):
                run.cancel()
        await self.settle()
        await asyncio.to_thread(self._documents.trash, document)

    async def restore(self, document: str) -> None:
        await asyncio.to_thread(self._documents.restore, document)

    async def purge(self, document: str | None) -> int:
        """Delete a trashed document with its versions for good, or every one in the trash (None); returns how many."""
        return await asyncio.to_thread(self._store.trash.purge_documents, LOCAL, None if document is None else [document])

    async def versions(self, document: str) -> list[Version]:
        """Every saved text that is kept, newest first, whichever tab saved it."""
        return await asyncio.to_thread(self._documents.versions, document)

    async def bring_back(self, document: str, version: int) -> Document:
        """Show the text of a version as a new one on top. Raises BadRequest while the document is being written to."""
        if self.live_run(document):
            raise BadRequest("This document is being written to; stop that first.")
        return await asyncio.to_thread(self._documents.bring_back, document, version)

    async def settle(self) -> None:
        """Wait until every ended run is saved, or was tried to."""
        await self._savings.settle()

    async def close(self) -> None:
        """Save what is unsaved, at shutdown; what cannot be is left to the next start, in its journal."""
        await self._savings.close()

    async def _save_run(self, ending: _Ending) -> None:
        """Now, or later where it cannot be; a page that asks meanwhile is shown the text all the same."""
        if not await self._write(ending):
            self._unsaved[ending.base.id] = ending
            self._savings.again(lambda: self._is_settled(ending), lambda: asyncio.to_thread(ending.writer.close, delete=False),
                                f"save {ending.run} later")
        self._live.pop(ending.base.id, None)

    async def _is_settled(self, ending: _Ending) -> bool:
        """Saved now, or before by other means."""
        if self._unsaved.get(ending.base.id) is not ending:
            return True
        if not await self._write(ending):
            return False
        self._unsaved.pop(ending.base.id, None)
        return True

    async def _write(self, ending: _Ending) -> bool:
        """The version first, then the journal goes. False where it could not be written: the journal then stays."""
        base = ending.base
        try:
            if ending.text != base.text:
                await asyncio.to_thread(self._documents.save, base.id, ending.text, base=base.version, run=ending.run)
        except NotFound:
            log.info("The document %s was deleted for good while it was written", base.id)
        except Exception as error:
            log.error("The document %s could not be saved (%s); its text is in the journal, and saving is tried again", base.id,
                      error, exc_info=base.id not in self._unsaved)
            reason = error.message if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
            words = f"What was written is not saved yet: {reason} {saving.every()}"
            self._reasons[base.id] = words
            return False
        self._reasons.pop(base.id, None)
        await asyncio.to_thread(ending.writer.close, delete=True)
        return True

    async def _let_go(self, waiting: _Ending) -> None:
        """Its text is saved by other means."""
        if self._unsaved.get(waiting.base.id) is waiting:
            del self._unsaved[waiting.base.id]
            await asyncio.to_thread(waiting.writer.close, delete=True)

    def _as_written(self, document: Document) -> Document:
        """The document with the text that could not be saved yet, where it is still at the version that this continues."""
        waiting = self._unsaved.get(document.id)
        return replace(document, text=waiting.text) if waiting and waiting.base.version == document.version else document

    async def _titled(self, document: Document) -> Document:
        """An untitled document takes its first line as its title."""
        title = _title(document.text)
        if document.title or not title:
            return document
        await asyncio.to_thread(self._documents.rename, document.id, title)
        return replace(document, title=title)


def _title(text: str) -> str:
    """The first line that has words, cut at a word."""
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARACTERS else line[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + "…"
