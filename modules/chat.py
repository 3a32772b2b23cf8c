"""A turn, saved: send, regenerate, continue, edit, choose, delete; the only place where runs meet conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .answer_again import AnswerAgain, Asked, answered
from .core.conversation import GREETING, Conversation, Node
from .core.errors import BadRequest, Conflict, NotFound
from .core.messages import Message, message
from .engine import Engine
from .replies import Replies, Reply
from .sessions import Session, Sessions
from .store.cards import Cards
from .store.chats import Chat
from .store.database import Store
from .store.schema import LOCAL
from .text.character_text import character_messages, greetings

MAX_MESSAGE_CHARACTERS = 1_000_000
MAX_NAME_CHARACTERS = 200
TITLE_CHARACTERS = 60
MAX_BEGUN = 1000  # sessions; it is needed for the moment between a first message and the filling of the tab's form


@dataclass(frozen=True)
class ChatView:
    """What a session shows; see ui/services.py, whose protocol this satisfies by shape."""

    conversation: str
    title: str
    head: int | None
    path: Sequence[Node]
    siblings: Mapping[int, Sequence[int]]
    names: Mapping[str, str]
    character: str = ""
    elsewhere: Sequence[Node] = ()
    again: Sequence[Asked] = ()
    loaders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """What an action wrote; reply and run are None and "" where nothing was asked of the model."""

    user: Node | None = None
    reply: Node | None = None
    run: str = ""


class ChatService:
    """The chats of this machine's owner. On the event loop; the database works in threads.

    Nothing is ever overwritten: each action adds a node under the node that the page named, and moves the session's head to it.
    """

    def __init__(self, engine: Engine, store: Store, sessions: Sessions, cards: Cards, replies: Replies) -> None:
        self._engine = engine
        self._store = store
        self._sessions = sessions
        self._cards = cards
        self._replies = replies
        self.again = AnswerAgain(engine, sessions, replies, self)
        self._titles = {name: spec.title for name, spec in engine.loaders.items()}
        self._begun: dict[str, str] = {}  # by session, the chat that its first message made of an empty one

    # What the page shows

    async def duplicate(self, session: str, of: str) -> None:
        await self._sessions.copy(session, of)

    async def view(self, session: str) -> ChatView:
        state = await self._sessions.get(session)
        names = {"user": state.speaker, "assistant": state.character or "Assistant"}
        if not state.conversation:
            return ChatView("", "", None, (), {}, names, state.character)
        try:
            summary = await asyncio.to_thread(self._store.chats.summary, state.conversation, state.owner)
            tree = await self._tree(state.conversation, state.owner)
        except NotFound:
            await self._sessions.update(session, conversation="", head=None)
            return ChatView("", "", None, (), {}, names, state.character)
        head = state.head if state.head in tree.nodes else tree.newest_leaf(None)
        path = tree.path(head)
        names["assistant"] = summary.character or "Assistant"
        shown = {node.id for node in path}
        elsewhere = [node for node in self._replies.live(state.conversation) if node.id in tree.nodes and node.id not in shown]
        return ChatView(state.conversation, summary.title, head, path, {n.id: tree.siblings(n.id) for n in path}, names,
                        summary.character, elsewhere, self.again.of(state.conversation), self._titles)

    def origin(self, run: str) -> Node | None:
        return self._replies.origin(run)

    def at_risk(self, run: str) -> str:
        return self._replies.at_risk(run)

    async def unsaved(self, node: int) -> str:
        return await self._replies.unsaved(node)

    # Actions

    async def send(self, session: str, text: str, *, conversation: str, under: int | None) -> Turn:
        state = await self._sessions.get(session)
        _check_text(text)
        place: dict[str, Any] = {}
        if conversation:
            tree = await self._tree(conversation, state.owner)
            tree.path(under)
            chat = await asyncio.to_thread(self._store.chats.summary, conversation, state.owner)
            if chat.title == chat.character and not any(node.message.role == "user" for node in tree.nodes.values()):
                # Until then the chat bears its character's name, as all chats with that character would.
                await asyncio.to_thread(self._store.chats.rename, conversation, _title(text), state.owner)
            if conversation != state.conversation:  # the page shows another chat than its session, as a duplicated tab may
                place = _place(chat)
            parent = under
        else:
            conversation = await self._begin(state, title=_title(text))
            self._begun.pop(session, None)  # so that the one begun longest ago is first
            self._begun[session] = conversation
            if len(self._begun) > MAX_BEGUN:
                del self._begun[next(iter(self._begun))]
            parent = (await self._sessions.get(session)).head
        said = message("user", text, name=state.user_name or None)
        user = await asyncio.to_thread(self._store.chats.add, conversation, parent, said, owner=state.owner)
        state = await self._sessions.update(session, **place, conversation=conversation, head=user.id)
        reply = await self._reply(state, under=user.id)
        return Turn(user, reply.node, reply.run)

    async def regenerate(self, session: str, node: int, *, conversation: str = "", by: str = "", is_shown: bool = True) -> Turn:
        state, tree = await self.reading(session, conversation)
        under = answered(tree, node)
        self._replies.replace(tree, node)
        reply = await self._reply(state, under=under, by=by, is_shown=is_shown)
        return Turn(None, reply.node, reply.run)

    async def continue_reply(self, session: str, node: int) -> Turn:
        state = await self._sessions.get(session)
        tree = await self._tree(state.conversation, state.owner)
        place = tree.path(node)[-1]
        if place.message.role != "assistant":
            raise BadRequest("Only a reply can be continued; choose one of the model's messages.")
        if place.status == "streaming":
            raise BadRequest("This reply is still being written; stop it first.")
        self._replies.replace(tree, node)
        # What broke off while it still thought has no text to go on from: it is written anew, beside the old one.
        reply = await self._reply(state, under=place.parent, going_on=place if place.message.text else None)
        return Turn(None, reply.node, reply.run)

    async def edit(self, session: str, node: int, text: str, *, resend: bool) -> Turn:
        state = await self._sessions.get(session)
        _check_text(text)
        tree = await self._tree(state.conversation, state.owner)
        old = tree.path(node)[-1]
        edited = message(old.message.role, text, name=old.message.name)
        new = await asyncio.to_thread(self._store.chats.add, state.conversation, old.parent, edited, owner=state.owner,
                                      keep_from=old.keep_from)
        state = await self._show(state, new.id)
        if resend and old.message.role == "user":
            self._replies.replace(tree, node)
            reply = await self._reply(state, under=new.id)
            return Turn(new, reply.node, reply.run)
        return Turn(new if old.message.role == "user" else None, new if old.message.role != "user" else None)

    async def choose(self, session: str, node: int) -> None:
        state = await self._sessions.get(session)
        tree = await self._tree(state.conversation, state.owner)
        tree.path(node)
        await self._show(state, tree.newest_leaf(node))

    async def delete(self, session: str, node: int) -> Sequence[int]:
        state = await self._sessions.get(session)
        tree = await self._tree(state.conversation, state.owner)
        place = tree.path(node)[-1]
        beside = [i for i in tree.siblings(node) if i != node]
        hidden = await asyncio.to_thread(self._store.chats.hide, state.conversation, node, state.owner)
        self._replies.cancel(lambda writing: writing.id in hidden)
        await self._show(state, tree.newest_leaf(beside[-1]) if beside else place.parent)
        return hidden

    async def undelete(self, session: str, nodes: Sequence[int], *, head: int | None) -> None:
        state = await self._sessions.get(session)
        await asyncio.to_thread(self._store.chats.unhide, state.conversation, list(nodes), state.owner)
        tree = await self._tree(state.conversation, state.owner)
        await self._show(state, head if head in tree.nodes else tree.newest_leaf(None))

    async def stop(self, run: str) -> None:
        try:
            self._engine.run(run).cancel()
        except NotFound:
            return  # it ended while the person reached for Stop

    # Chats

    async def new_chat(self, session: str, *, character: str | None = None) -> None:
        """An empty chat, saved with its first message; a character's greeting is that message. None keeps the character.

        It is listed once somebody has written in it.
        """
        if character is None:
            character = (await self._sessions.get(session)).character
            known = await asyncio.to_thread(self._cards.names)
            character = character if character in known else ""
        # Read first: a character that is not there must not stay with the session, whose every message it would refuse.
        card = await asyncio.to_thread(self._cards.load, character) if character else None
        state = await self._sessions.update(session, conversation="", head=None, character=character)
        if card is not None and card.greeting:
            await self._begin(state, title=card.name)

    async def describe(self, session: str, *, conversation: str | None = None, system_prompt: str | None = None,
                       user_name: str | None = None, persona: str | None = None) -> None:
        """Set what the model is told of the chat and of the person, from the next message on.

        conversation: the chat that the system prompt was written for, None for the open one, "" for one not begun. Where another
        is open by now, its own keeps the text and the open one's stays; raises Conflict where that was left empty.
        """
        given = {"system_prompt": system_prompt, "user_name": user_name, "persona": persona}
        changes = {name: text for name, text in given.items() if text is not None}
        for name, text in changes.items():
            limit = MAX_NAME_CHARACTERS if name == "user_name" else MAX_MESSAGE_CHARACTERS
            if len(text) > limit:
                raise BadRequest(f"{name} has {len(text):,} characters; the limit is {limit:,}.", param=name)
        now = (await self._sessions.get(session)).conversation
        written_for = now if conversation is None else conversation
        if not written_for and self._begun.get(session) == now:
            written_for = now
        if system_prompt is not None and written_for != now:
            if not written_for:
                raise Conflict("The system prompt was not kept: it was written for a chat that was left empty.")
            del changes["system_prompt"]
        state = await self._sessions.update(session, **changes)
        if system_prompt is not None and written_for:
            await asyncio.to_thread(self._store.chats.change, written_for, state.owner, system_prompt=system_prompt)

    async def open_chat(self, session: str, conversation: str) -> None:
        state = await self._sessions.get(session)
        chat = await asyncio.to_thread(self._store.chats.summary, conversation, state.owner)
        tree = await self._tree(conversation, state.owner)
        await self._sessions.update(session, **_place(chat), conversation=conversation, head=tree.newest_leaf(None))

    async def listing(self, query: str, *, offset: int, limit: int, trashed: bool, drafts: Sequence[str] = ()) -> Sequence[Any]:
        page = await asyncio.to_thread(self._store.chats.listing, LOCAL, query, trashed=trashed, offset=offset, limit=limit,
                                       drafts=drafts)
        return page.chats

    async def rename(self, conversation: str, title: str) -> None:
        if not title.strip() or len(title) > 500:
            raise BadRequest(f"A title has 1 to 500 characters; this one has {len(title.strip())}.", param="title")
        await asyncio.to_thread(self._store.chats.rename, conversation, title.strip())

    async def trash(self, conversation: str) -> None:
        self._replies.cancel(lambda writing: writing.conversation == conversation)
        await asyncio.to_thread(self._store.chats.trash, conversation)

    async def restore(self, conversation: str) -> None:
        await asyncio.to_thread(self._store.chats.restore, conversation)

    async def purge(self, conversation: str) -> None:
        await asyncio.to_thread(self._store.chats.purge, conversation)

    # Below

    async def reading(self, session: str, conversation: str = "") -> tuple[Session, Conversation]:
        """The session as if it had this chat open, and the chat; "" is the one that it has open."""
        state = await self._sessions.get(session)
        state = replace(state, conversation=conversation or state.conversation)
        return state, await self._tree(state.conversation, state.owner)

    async def _tree(self, conversation: str, owner: str) -> Conversation:
        """Raises NotFound where the chat is gone, or has no message yet."""
        if not conversation:
            raise NotFound("This chat is empty; send a message first.")
        return self._replies.as_written(await asyncio.to_thread(self._store.chats.conversation, conversation, owner))

    async def _show(self, state: Session, head: int | None) -> Session:
        """Move the session's head, unless the person has gone to another chat meanwhile."""
        now = await self._sessions.get(state.id)
        return await self._sessions.update(state.id, head=head) if now.conversation == state.conversation else state

    async def _begin(self, state: Session, *, title: str) -> str:
        """A new conversation with its character's greetings, the first of them shown; returns its id."""
        card = await asyncio.to_thread(self._cards.load, state.character) if state.character else None
        chat = await asyncio.to_thread(self._store.chats.create, state.owner, title=title, character=card or "",
                                       system_prompt=state.system_prompt)
        head = None
        for text in reversed(greetings(card, user=state.speaker, persona=state.persona) if card else []):
            greeting = message("assistant", text, name=card.name if card else None)
            head = (await asyncio.to_thread(self._store.chats.add, chat.id, None, greeting, owner=state.owner,
                                            finish=GREETING)).id
        await self._sessions.update(state.id, conversation=chat.id, head=head)
        return chat.id

    async def _reply(self, state: Session, *, under: int | None, going_on: Node | None = None, by: str = "",
                     is_shown: bool = True) -> Reply:
        """Start a reply below a node and, where it is to be shown, move the head to it."""
        path = (await self._tree(state.conversation, state.owner)).path(under)
        reply = await self._replies.begin(state, path, await self.opening(state), going_on=going_on, by=by)
        if is_shown:
            await self._show(state, reply.node.id)
        return reply

    async def opening(self, state: Session) -> list[Message]:
        """What stands before the chat: system prompt, character, example talk; the chat's own copies of them speak.

        Time and dice are those of the chat's beginning, so that the prompt's start stays the same from turn to turn.
        """
        chat = await asyncio.to_thread(self._store.chats.summary, state.conversation, state.owner)
        if chat.card is None:
            return [message("system", chat.system_prompt)] if chat.system_prompt.strip() else []
        return character_messages(chat.card, user=state.speaker, persona=state.persona, system_prompt=chat.system_prompt,
                                  now=datetime.fromtimestamp(chat.created), seed=int(chat.id[:8], 16))


def _check_text(text: str) -> None:
    if not text.strip():
        raise BadRequest("The message is empty; write something first.", param="text")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise BadRequest(f"The message has {len(text)} characters; the limit is {MAX_MESSAGE_CHARACTERS}.", param="text")


def _place(chat: Chat) -> dict[str, Any]:
    """What a session takes over from a chat that it opens."""
    return {"character": chat.character, "system_prompt": chat.system_prompt}


def _title(text: str) -> str:
    """The first line, cut at a word."""
    line = " ".join(text.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    return line[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + "…"
