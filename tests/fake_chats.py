"""The chat service in memory: what the page asks of it, without a database or a model."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modules.answer_again import Asked
from modules.core.conversation import Conversation, Node
from modules.core.errors import BadRequest, NotFound
from modules.core.events import Started
from modules.core.messages import message

from .fake_run import FakeRun, FakeRuns


@dataclass(frozen=True)
class View:
    conversation: str = ""
    title: str = ""
    head: int | None = None
    path: Sequence[Node] = ()
    siblings: Mapping[int, Sequence[int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=lambda: {"user": "You", "assistant": "Ada"})
    elsewhere: Sequence[Node] = ()
    again: Sequence[Asked] = ()
    loaders: Mapping[str, str] = field(default_factory=lambda: {"llama_cpp": "llama.cpp"})


@dataclass(frozen=True)
class TurnDone:
    user: Node | None
    reply: Node | None
    run: str = ""


@dataclass
class Chat:
    id: str
    title: str
    updated: float
    character: str = ""
    snippet: str = ""
    trashed: bool = False


class FakeChats:
    """Every reply is a FakeRun, which the test drives; `finish` saves it."""

    def __init__(self) -> None:
        self.runs = FakeRuns()
        self.nodes: dict[int, Node] = {}
        self.rows: dict[str, Chat] = {}
        self.sessions: dict[str, tuple[str, int | None]] = {}
        self._ids = itertools.count(1)
        self.refuse = ""  # a sentence with which `send` fails
        self.risk = ""  # what `at_risk` answers of every run
        self.reason = ""  # what `unsaved` answers of every reply

    def add(self, chat: str, parent: int | None, role: str, text: str, **facts: object) -> Node:
        node = Node(next(self._ids), chat, parent, message(role, text), created=time.time(), **facts)  # type: ignore[arg-type]
        self.nodes[node.id] = node
        self.rows[chat].updated = node.created
        return node

    def begin(self, title: str = "A chat") -> str:
        chat = f"chat{len(self.rows) + 1}"
        self.rows[chat] = Chat(chat, title, time.time())
        return chat

    def fill(self, session: str, n_messages: int, text: str = "Message {n} with *some* text.") -> str:
        """Give the session a chat of that many messages."""
        chat, head = self.begin(), None
        for n in range(n_messages):
            head = self.add(chat, head, "assistant" if n % 2 else "user", text.format(n=n)).id
        self.sessions[session] = chat, head
        return chat

    def finish(self, run: FakeRun, status: str = "complete") -> None:
        """End the run and save its node."""
        run.finish()
        node = self.origin(run.id)
        assert node is not None
        text = node.message.text + "".join(getattr(event, "text", "") for event in run.events)
        stats: dict[str, object] = {"prompt_tokens": 7, "completion_tokens": 3, "tokens_per_second": 4.0, "context": 4096}
        for event in run.events:
            if isinstance(event, Started):
                stats |= {"dropped": event.dropped, "ignored": list(event.ignored)}
        self.nodes[node.id] = replace(node, message=message("assistant", text), status=status, stats=stats)  # type: ignore[arg-type]

    def tree(self, chat: str) -> Conversation:
        return Conversation(chat, [node for node in self.nodes.values() if node.conversation == chat])

    async def view(self, session: str) -> View:
        chat, head = self.sessions.get(session, ("", None))
        if not chat:
            return View()
        tree = self.tree(chat)
        path = tree.path(head)
        live = {run.id for run in self.runs.values() if not run.done}
        elsewhere = [node for node in tree.nodes.values() if node.run in live and node not in path]
        return View(chat, self.rows[chat].title, head, path, {node.id: tree.siblings(node.id) for node in path},
                    elsewhere=elsewhere)

    async def duplicate(self, session: str, of: str) -> None:
        self.sessions[session] = self.sessions.get(of, ("", None))

    async def send(self, session: str, text: str, *, conversation: str, under: int | None) -> TurnDone:
        if self.refuse:
            raise BadRequest(self.refuse)
        chat = conversation or self.begin(text[:40])
        user = self.add(chat, under, "user", text)
        return self.reply(session, chat, user.id, user=user)

    def reply(self, session: str, chat: str, under: int | None, *, user: Node | None = None, text: str = "") -> TurnDone:
        run = FakeRun(secrets.token_hex(6))
        self.runs[run.id] = run
        node = self.add(chat, under, "assistant", text, status="streaming", run=run.id)
        self.sessions[session] = chat, node.id
        return TurnDone(user, node, run.id)

    async def regenerate(self, session: str, node: int) -> TurnDone:
        return self.reply(session, self.nodes[node].conversation, self.nodes[node].parent)

    async def continue_reply(self, session: str, node: int) -> TurnDone:
        old = self.nodes[node]
        return self.reply(session, old.conversation, old.parent, text=old.message.text)

    async def edit(self, session: str, node: int, text: str, *, resend: bool) -> TurnDone:
        old = self.nodes[node]
        new = self.add(old.conversation, old.parent, old.message.role, text)
        self.sessions[session] = old.conversation, new.id
        return self.reply(session, old.conversation, new.id, user=new) if resend else TurnDone(new, None)

    async def choose(self, session: str, node: int) -> None:
        chat = self.nodes[node].conversation
        self.sessions[session] = chat, self.tree(chat).newest_leaf(node)

    async def delete(self, session: str, node: int) -> Sequence[int]:
        chat = self.nodes[node].conversation
        tree = self.tree(chat)
        hidden, todo = [], [node]
        while todo:
            hidden.append(todo.pop())
            todo += tree.children.get(hidden[-1], [])
        for id in hidden:
            self.nodes[id] = replace(self.nodes[id], hidden=True)
        beside = [id for id in tree.siblings(node) if id != node]
        self.sessions[session] = chat, self.tree(chat).newest_leaf(beside[-1]) if beside else self.nodes[node].parent
        return hidden

    async def undelete(self, session: str, nodes: Sequence[int], *, head: int | None) -> None:
        for id in nodes:
            self.nodes[id] = replace(self.nodes[id], hidden=False)
        self.sessions[session] = self.sessions[session][0], head

    async def stop(self, run: str) -> None:
        if run in self.runs and not self.runs[run].done:
            self.runs[run].finish("cancelled")

    async def new_chat(self, session: str, *, character: str | None = None) -> None:
        self.sessions[session] = "", None

    async def open_chat(self, session: str, conversation: str) -> None:
        if conversation not in self.rows:
            raise NotFound(f"There is no chat {conversation!r}; it may have been deleted.")
        self.sessions[session] = conversation, self.tree(conversation).newest_leaf(None)

    async def listing(self, query: str, *, offset: int, limit: int, trashed: bool, drafts: Sequence[str] = ()) -> Sequence[Chat]:
        rows = [row for row in self.rows.values() if row.trashed == trashed and query.lower() in row.title.lower()]
        return sorted(rows, key=lambda row: -row.updated)[offset:offset + limit]

    async def rename(self, conversation: str, title: str) -> None:
        self.rows[conversation].title = title

    async def trash(self, conversation: str) -> None:
        self.rows[conversation].trashed = True

    async def restore(self, conversation: str) -> None:
        self.rows[conversation].trashed = False

    async def purge(self, conversation: str) -> None:
        for row in [row for row in self.rows.values() if row.trashed and conversation in ("", row.id)]:
            del self.rows[row.id]

    def origin(self, run: str) -> Node | None:
        return next((node for node in self.nodes.values() if node.run == run), None)

    def at_risk(self, run: str) -> str:
        return self.risk

    async def unsaved(self, node: int) -> str:
        return self.reason


@dataclass
class FakeServices:
    chats: FakeChats

    @property
    def runs(self) -> FakeRuns:
        return self.chats.runs
