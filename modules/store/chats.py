"""Chats as trees of messages: a message is a new row and is never written over; deleting hides; a trash that can be emptied."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, Row, bindparam, exists, false, func, insert, literal, or_, select, update

from ..core.character import Character
from ..core.conversation import GREETING, Conversation, Node, Status
from ..core.errors import BadRequest, Conflict, NotFound
from ..core.messages import Message
from . import search
from .cards import character_from_json, character_to_json
from .connection import Database
from .nodes import NodeFields, field_values, message_values, node_of
from .schema import LOCAL, conversations, nodes
from .trash import Trash

MAX_PAGE = 500
MAX_TITLE = 500


@dataclass(frozen=True)
class ChatSummary:
    """One line of the list of chats. snippet: text around what a search found, "" without one; snippet_node: its message."""

    id: str
    title: str
    character: str
    created: float
    updated: float
    trashed_at: float | None = None
    snippet: str = ""
    snippet_node: int | None = None

    @property
    def trashed(self) -> bool:
        return self.trashed_at is not None


@dataclass(frozen=True)
class Chat(ChatSummary):
    """All about a chat but its messages. card: the character as it was when the chat began, None where there is none."""

    owner: str = LOCAL
    system_prompt: str = ""
    card: Character | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Page:
    """Some of the chats, newest first. total: how many there are; is_complete: False where a search met more messages than it
    looks at, so that chats whose only matches are older may be missing."""

    chats: tuple[ChatSummary, ...]
    total: int
    is_complete: bool = True


class Chats:
    """The chats of a database. Any thread may call; every method is one transaction.

    Methods that take an id and an owner raise NotFound where that owner has no such thing, whoever else may have it.
    """

    def __init__(self, database: Database, trash: Trash, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._trash = trash
        self._now = clock

    # ---- chats

    def create(self, owner: str = LOCAL, *, title: str = "", character: Character | str = "", system_prompt: str = "",
               settings: Mapping[str, Any] | None = None) -> Chat:
        """A new empty chat. A Character is kept as a copy, so that a later edit of the card does not change old chats."""
        card = character if isinstance(character, Character) else None
        name = card.name if card else str(character)
        now = self._now()
        chat = Chat(uuid.uuid4().hex, title[:MAX_TITLE], name, now, now, owner=owner, system_prompt=system_prompt, card=card,
                    settings=dict(settings or {}))
        with self._database.write() as connection:
            connection.execute(insert(conversations).values(
                id=chat.id, owner=owner, title=chat.title, character=name, card=character_to_json(card) if card else None,
                system_prompt=system_prompt, settings=chat.settings, created=now, updated=now))
        return chat

    def summary(self, id: str, owner: str = LOCAL) -> Chat:
        """All about the chat but its messages."""
        with self._database.read() as connection:
            return _chat(_find(connection, id, owner))

    def change(self, id: str, owner: str = LOCAL, *, title: str | None = None, system_prompt: str | None = None,
               character: Character | str | None = None, settings: Mapping[str, Any] | None = None) -> Chat:
        """Set what is given; None leaves it as it is. Its place in the list stays."""
        values: dict[str, Any] = {}
        if title is not None:
            values["title"] = title[:MAX_TITLE]
        if system_prompt is not None:
            values["system_prompt"] = system_prompt
        if isinstance(character, Character):
            values |= {"character": character.name, "card": character_to_json(character)}
        elif character is not None:
            values |= {"character": character, "card": None}
        if settings is not None:
            values["settings"] = dict(settings)
        with self._database.write() as connection:
            _find(connection, id, owner)
            if values:
                connection.execute(update(conversations).where(conversations.c.id == id).values(**values))
            return _chat(_find(connection, id, owner))

    def rename(self, id: str, title: str, owner: str = LOCAL) -> Chat:
        return self.change(id, owner, title=title)

    def trash(self, id: str, owner: str = LOCAL) -> None:
        """Move to the trash; once there, it stays as it is."""
        self._set_trashed(id, owner, self._now())

    def restore(self, id: str, owner: str = LOCAL) -> None:
        self._set_trashed(id, owner, None)

    def purge(self, id: str = "", owner: str = LOCAL) -> int:
        """Delete a trashed chat for good, or all of them (""), leaving no trace; returns how many. Others are left alone."""
        return self._trash.purge_chats(owner, [id] if id else None)

    def _set_trashed(self, id: str, owner: str, when: float | None) -> None:
        with self._database.write() as connection:
            row = _find(connection, id, owner)
            if (row.trashed_at is None) != (when is None):
                connection.execute(update(conversations).where(conversations.c.id == id).values(trashed_at=when))

    def listing(self, owner: str = LOCAL, query: str = "", *, trashed: bool = False, offset: int = 0, limit: int = 50,
                drafts: Sequence[str] = ()) -> Page:
        """Chats, the last written to (in the trash: put there) first; outside the trash only those somebody has written in.

        With a query, those whose title, or one message of which, holds all its words. drafts: ids of chats that hold words not
        sent yet; they are listed too.
        """
        if not 0 < limit <= MAX_PAGE or offset < 0:
            raise BadRequest(f"limit must be from 1 to {MAX_PAGE} and offset 0 or more; got {limit} and {offset}.", param="limit")
        table = conversations.c
        kept = ((table.owner == owner, table.trashed_at.is_not(None)) if trashed else
                (table.owner == owner, table.trashed_at.is_(None), _is_written_in(drafts)))
        newest = ((table.trashed_at.desc(),) if trashed else ()) + (table.updated.desc(), table.id.desc())
        with self._database.read() as connection:
            words = search.terms(query)
            if words:
                titles = connection.execute(select(table.id, table.title).where(*kept).order_by(*newest)).all()
                return self._search(connection, titles, words, owner, trashed=trashed, part=slice(offset, offset + limit))
            total = connection.execute(select(func.count()).select_from(conversations).where(*kept)).scalar_one()
            rows = connection.execute(select(*_SUMMARY).where(*kept).order_by(*newest).offset(offset).limit(limit)).all()
        return Page(tuple(_summary(row) for row in rows), total)

    def _search(self, connection: Connection, titles: Iterable[Any], words: Sequence[str], owner: str, *, trashed: bool,
                part: slice) -> Page:
        """titles: (id, title) of all chats to search, newest first."""
        hits, is_complete = search.hits(connection, words, owner, trashed=trashed)
        folded = [word.casefold() for word in words]
        found = [row.id for row in titles if row.id in hits or all(word in row.title.casefold() for word in folded)]
        shown = found[part]
        rows = {row.id: row for row in connection.execute(select(*_SUMMARY).where(conversations.c.id.in_(shown)))}
        ids = [hits[id] for id in shown if id in hits]
        texts = {row.id: row.text for row in connection.execute(select(nodes.c.id, nodes.c.text).where(nodes.c.id.in_(ids)))}
        lines = {id: search.snippet(texts[hits[id]], words) for id in shown if id in hits}
        chats = tuple(_summary(rows[id], snippet=lines.get(id, ""), snippet_node=hits.get(id)) for id in shown)
        return Page(chats, len(found), is_complete)

    # ---- messages

    def conversation(self, id: str, owner: str = LOCAL) -> Conversation:
        """The visible messages of a chat, which may be in the trash."""
        with self._database.read() as connection:
            _find(connection, id, owner)
            visible = select(nodes).where(nodes.c.conversation == id, nodes.c.hidden == false()).order_by(nodes.c.id)
            rows = connection.execute(visible)
            return Conversation(id, [node_of(row) for row in rows])

    def node(self, id: int, owner: str = LOCAL) -> Node:
        """One message, hidden or not."""
        with self._database.read() as connection:
            return node_of(_find_node(connection, id, owner))

    def add(self, conversation: str, parent: int | None, message: Message, *, owner: str = LOCAL, status: Status = "complete",
            **fields: Unpack[NodeFields]) -> Node:
        """A new message under `parent` (None: as a root). A streaming one is completed with `finish`, once.

        Raises Conflict where the chat is in the trash or the parent was deleted, BadRequest where it is another chat's.
        """
        now = self._now()
        heartbeat = now if status == "streaming" else None
        with self._database.write() as connection:
            if _find(connection, conversation, owner, lock=True).trashed_at is not None:
                raise Conflict("This chat is in the trash. Restore it, then send the message again.")
            if parent is not None:
                above = _find_node(connection, parent, owner)
                if above.conversation != conversation:
                    raise BadRequest(f"Message {parent} belongs to another chat; reload the page.", param="parent")
                if above.hidden:
                    raise Conflict("The message this would stand under was deleted. Undo that, or answer another message.")
            id = connection.execute(insert(nodes).values(
                conversation=conversation, parent=parent, owner=owner, status=status, created=now, heartbeat=heartbeat,
                **message_values(message), **field_values(fields)).returning(nodes.c.id)).scalar_one()
            self._settle(connection, id, conversation, message.text, status)
            return node_of(_find_node(connection, id, owner))

    def finish(self, node: int, message: Message, *, status: Status, owner: str = LOCAL, **fields: Unpack[NodeFields]) -> Node:
        """Complete a streaming message with its whole content. Works in the trash and on a hidden message too.

        The first call wins: raises Conflict where it is not streaming any more, and changes nothing.
        """
        if status == "streaming":
            raise BadRequest("A message ends as complete, stopped, interrupted or failed; got 'streaming'.", param="status")
        with self._database.write() as connection:
            row = _find_node(connection, node, owner)
            done = connection.execute(update(nodes).where(nodes.c.id == node, nodes.c.status == "streaming").values(
                status=status, heartbeat=None, **message_values(message), **field_values(fields)))
            if not done.rowcount:
                raise Conflict(f"Message {node} is already {row.status}; a finished message is never changed.")
            self._settle(connection, node, row.conversation, message.text, status)
            return node_of(_find_node(connection, node, owner))

    def _settle(self, connection: Connection, node: int, conversation: str, words: str, status: Status) -> None:
        """Move the chat to the top of the list and index the text once it is final."""
        connection.execute(update(conversations).where(conversations.c.id == conversation).values(updated=self._now()))
        if status != "streaming":
            search.put(connection, node, words)

    def beat(self, instance: str) -> None:
        """Note that the process lives, on each message that it is streaming."""
        is_its = (nodes.c.status == literal("streaming", literal_execute=True), nodes.c.instance == instance)
        with self._database.write() as connection:
            connection.execute(update(nodes).where(*is_its).values(heartbeat=self._now()))

    def hide(self, conversation: str, node: int, owner: str = LOCAL) -> list[int]:
        """Delete a message and all below it from view; returns the ids that this hid, for `unhide`."""
        with self._database.write() as connection:
            _find(connection, conversation, owner, lock=True)
            if _find_node(connection, node, owner).conversation != conversation:
                raise BadRequest(f"Message {node} belongs to another chat; reload the page.", param="node")
            below = select(nodes.c.id).where(nodes.c.id == node).cte("below", recursive=True)
            below = below.union_all(select(nodes.c.id).join(below, nodes.c.parent == below.c.id))
            hidden = update(nodes).where(nodes.c.id.in_(select(below.c.id)), nodes.c.hidden == false()).values(hidden=True)
            return sorted(connection.execute(hidden.returning(nodes.c.id)).scalars())

    def unhide(self, conversation: str, ids: Sequence[int], owner: str = LOCAL) -> None:
        """Show hidden messages again; raises Conflict, and shows none, where one would stand under a message still hidden."""
        shown = update(nodes).where(nodes.c.id == bindparam("node"), nodes.c.conversation == conversation).values(hidden=False)
        above = nodes.alias()
        with self._database.write() as connection:
            _find(connection, conversation, owner, lock=True)
            if ids:
                connection.execute(shown, [{"node": node} for node in ids])
            orphan = select(nodes.c.id).join(above, above.c.id == nodes.c.parent).where(
                nodes.c.conversation == conversation, nodes.c.hidden == false(), above.c.hidden)
            if connection.execute(orphan.limit(1)).first():
                raise Conflict("The message above is deleted too; restore that one first.")


def _is_written_in(drafts: Sequence[str]) -> ColumnElement[bool]:
    """Whether a chat holds more than its character's greetings: a title or system prompt of its own, or any other message, be
    it deleted. Titles are looked at first, because nearly every chat has one of its own."""
    table = conversations.c
    other = exists().where(nodes.c.conversation == table.id, nodes.c.finish != GREETING)
    drafted = [table.id.in_(drafts)] if drafts else []
    return or_(table.title != table.character, table.system_prompt != "", *drafted, other)


_SUMMARY = tuple(conversations.c[name] for name in ("id", "title", "character", "created", "updated", "trashed_at"))


def _summary(row: Row[Any], *, snippet: str = "", snippet_node: int | None = None) -> ChatSummary:
    return ChatSummary(row.id, row.title, row.character, row.created, row.updated, row.trashed_at, snippet, snippet_node)


def _chat(row: Row[Any]) -> Chat:
    return Chat(row.id, row.title, row.character, row.created, row.updated, row.trashed_at, owner=row.owner,
                system_prompt=row.system_prompt, card=character_from_json(row.card) if row.card else None, settings=row.settings)


def _find(connection: Connection, id: str, owner: str, *, lock: bool = False) -> Row[Any]:
    """The chat's row; lock=True keeps others from changing the chat until the transaction ends."""
    query = select(conversations).where(conversations.c.id == id, conversations.c.owner == owner)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no chat {id!r}; it may have been deleted for good. Choose one from the list.")
    return row


def _find_node(connection: Connection, id: int, owner: str) -> Row[Any]:
    row = connection.execute(select(nodes).where(nodes.c.id == id, nodes.c.owner == owner)).one_or_none()
    if row is None:
        raise NotFound(f"There is no message {id}; it may have been deleted for good. Reload the page.")
    return row
