"""After a crash: replies that were being written get the text of their journals and are marked interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import literal, select

from ..core.errors import AppError, NotFound
from ..core.messages import Message, Part, ReasoningPart, TextPart
from .chats import Chats
from .connection import Database
from .documents import Documents
from .journal import Journal, JournalEntry
from .nodes import node_of
from .schema import LOCAL, nodes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """What was brought back: ids of messages, ids of documents."""

    nodes: tuple[int, ...] = ()
    documents: tuple[str, ...] = ()


class Recovery:
    """Brings back what dead processes were writing. Run it at start, before anything streams."""

    def __init__(self, database: Database, chats: Chats, documents: Documents, journal: Journal) -> None:
        self._database = database
        self._chats = chats
        self._documents = documents
        self._journal = journal

    def run(self, is_alive: Callable[[str], bool]) -> Recovered:
        """Recover everything whose process (`is_alive(instance)`) is gone.

        A journal is deleted only after its text is saved; one that fails is left for the next start, and the others go on.
        """
        entries = {entry.run: entry for entry in self._journal.recover()}
        done_nodes, living = self._finish_nodes(entries, is_alive)
        done_documents = []
        for entry in entries.values():
            if entry.run in living or is_alive(str(entry.header.get("instance", ""))):
                continue
            try:
                if "document" in entry.header and self._save_document(entry):
                    done_documents.append(str(entry.header["document"]))
                if entry.header or entry.run in done_nodes:
                    entry.path.unlink(missing_ok=True)
                else:
                    self._journal.set_aside(entry)
            except (AppError, OSError) as error:
                logger.error("The journal %s is kept for the next start: %s", entry.path, error)
        return Recovered(tuple(done_nodes.values()), tuple(done_documents))

    def _finish_nodes(self, entries: dict[str, JournalEntry],
                      is_alive: Callable[[str], bool]) -> tuple[dict[str, int], set[str]]:
        """Ids of the messages marked interrupted, by run, and the runs that must be left alone."""
        done: dict[str, int] = {}
        living: set[str] = set()
        with self._database.read() as connection:
            rows = connection.execute(select(nodes).where(nodes.c.status == literal("streaming", literal_execute=True))).all()
        for row in rows:
            if is_alive(row.instance):
                living.add(row.run)
                continue
            entry = entries.get(row.run)
            node = node_of(row)
            stats = {**node.stats, "completion_tokens": len(entry.ids)} if entry and entry.ids else node.stats
            try:
                # No sampled ids: those of text still held back by the splitter are not in the journal.
                self._chats.finish(node.id, continued(node.message, entry), status="interrupted", owner=row.owner,
                                   sampled_ids=(), stats=stats)
                done[row.run] = node.id
            except AppError as error:
                living.add(row.run)
                logger.error("Message %d could not be recovered and is tried again at the next start: %s", node.id, error)
        return done, living

    def _save_document(self, entry: JournalEntry) -> bool:
        """Add the journal's text to the version it was written on; False where that is saved already or the document is gone."""
        id, base = str(entry.header["document"]), entry.header.get("base")
        owner = str(entry.header.get("owner", LOCAL))
        try:
            shown = self._documents.get(id, owner)
        except NotFound:
            return False
        if not entry.channels["text"] or self._documents.has_run(id, entry.run):
            return False
        if shown.trashed_at is not None:
            self._documents.restore(id, owner)      # text that was never shown must not be lost in the trash
        version = base if isinstance(base, int) else shown.version
        text = self._documents.version(id, version, owner) + entry.channels["text"]
        self._documents.save(id, text, base=version, owner=owner, run=entry.run)
        return True


def continued(message: Message, entry: JournalEntry | None) -> Message:
    """The message the run began with, followed by what its journal holds; None leaves it as it is.

    Text goes on in the last text part and reasoning stands before it. A tool call that was cut off is kept as text.
    """
    if entry is None:
        return message
    parts: list[Part] = list(message.content)
    text = entry.channels["text"] + entry.channels["tool"]
    if reasoning := entry.channels["reasoning"]:
        place = next((n for n, part in enumerate(parts) if isinstance(part, ReasoningPart)), None)
        if place is None:
            parts.insert(0, ReasoningPart(reasoning))
        else:
            before = parts[place]
            assert isinstance(before, ReasoningPart), "the place was found by its type"
            parts[place] = ReasoningPart(before.text + reasoning, before.seconds)
    if text:
        last = parts[-1] if parts else None
        parts[-1:] = [TextPart(last.text + text)] if isinstance(last, TextPart) else [*parts[-1:], TextPart(text)]
    return Message(message.role, tuple(parts), message.name)
