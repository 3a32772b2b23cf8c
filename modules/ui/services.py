"""What the chat page asks of the services below it, as protocols: chat.py, sessions.py and engine satisfy them by shape.

A session id is one browser tab's, random, checked by the routes; an unknown one begins as a copy of the owner's latest session.
Every method runs on the event loop and raises AppError; nothing is written when one raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from ..core.conversation import Node
from ..core.events import Event


class Asked(Protocol):
    """A reply that another model is to write again, and that waits for it or got none; see answer_again.py."""

    @property
    def id(self) -> str: ...
    @property
    def under(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...


class ChatView(Protocol):
    """What a session shows. path: root to head, in reading order, no hidden node; empty for a new chat.

    siblings: by node id of the path, the ids of all versions at that place, oldest first, the node itself among them.
    again: replies that wait for another model. loaders: what each loader is called, by name.
    conversation is "" until the first message of a new chat is saved. names: what to call a role, by role ("user",
    "assistant"...); a message's own name wins. elsewhere: nodes of the chat that are being written and are not on the path.
    """

    @property
    def conversation(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def head(self) -> int | None: ...
    @property
    def path(self) -> Sequence[Node]: ...
    @property
    def siblings(self) -> Mapping[int, Sequence[int]]: ...
    @property
    def names(self) -> Mapping[str, str]: ...
    @property
    def elsewhere(self) -> Sequence[Node]: ...
    @property
    def again(self) -> Sequence[Asked]: ...
    @property
    def loaders(self) -> Mapping[str, str]: ...


class Turn(Protocol):
    """What an action wrote. reply is the streaming node and run its run; None and "" where nothing was asked of the model."""

    @property
    def user(self) -> Node | None: ...
    @property
    def reply(self) -> Node | None: ...
    @property
    def run(self) -> str: ...


class ChatSummary(Protocol):
    """One row of the list of chats. snippet: plain text around a search's hit, else ""; updated: seconds since the epoch."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def character(self) -> str: ...
    @property
    def updated(self) -> float: ...
    @property
    def snippet(self) -> str: ...
    @property
    def trashed(self) -> bool: ...


class Chats(Protocol):
    """The chat service as the page needs it.

    `under` and `node` are the page's own idea of where it is: a stale page writes a branch and never over anything. Each action
    that writes also moves the session's head to what it wrote, so that the next `view` shows it.
    """

    async def view(self, session: str) -> ChatView: ...

    async def duplicate(self, session: str, of: str) -> None:
        """Let this tab show what the tab of the session `of` does: it was duplicated from that."""

    async def send(self, session: str, text: str, *, conversation: str, under: int | None) -> Turn:
        """Save the message under `under` (None: as a first message) of `conversation` ("" begins one), start the reply.

        Where no model can answer, the message is kept and the reply's node is failed with the reason; it raises only where
        nothing could be saved.
        """

    async def regenerate(self, session: str, node: int) -> Turn:
        """A new version beside the assistant message `node`; under a user message `node`, its (next) reply.

        As with `continue_reply` and with an `edit` that resends, what is being written in or below `node` is stopped and kept.
        """

    async def continue_reply(self, session: str, node: int) -> Turn:
        """A version that begins with the text of `node` and goes on; the reply node's message holds that text from the start."""

    async def edit(self, session: str, node: int, text: str, *, resend: bool) -> Turn:
        """A version of `node` with other text; with resend (user messages) a reply to it is started."""

    async def choose(self, session: str, node: int) -> None:
        """Show this version, down to its newest leaf."""

    async def delete(self, session: str, node: int) -> Sequence[int]:
        """Hide `node` and all below it; returns the ids hidden, for `undelete`. The head moves to a version beside, or up."""

    async def undelete(self, session: str, nodes: Sequence[int], *, head: int | None) -> None:
        """Show hidden nodes again, and move the head back to `head`."""

    async def stop(self, run: str) -> None:
        """Cancel a run; one that is over or unknown is ignored."""

    async def new_chat(self, session: str, *, character: str | None = None) -> None:
        """An empty chat with this character; None keeps the session's, "" is nobody."""
    async def open_chat(self, session: str, conversation: str) -> None: ...

    async def listing(self, query: str, *, offset: int, limit: int, trashed: bool,
                      drafts: Sequence[str] = ()) -> Sequence[ChatSummary]:
        """Chats, latest first; with a query those whose title or messages hold it. Fewer than `limit` means the end.

        A chat that nobody has written in is left out, unless it is among `drafts`: ids of chats with words not sent yet.
        """

    async def rename(self, conversation: str, title: str) -> None: ...
    async def trash(self, conversation: str) -> None: ...
    async def restore(self, conversation: str) -> None: ...
    async def purge(self, conversation: str) -> None:
        """Delete a trashed chat for good, from tables, index and journals; "" empties the trash."""

    def origin(self, run: str) -> Node | None:
        """The node a run writes to, as it was at the start (its text is what the run goes on from); None if unknown."""

    def at_risk(self, run: str) -> str:
        """Why what a live run has written is not safe on disk, as a sentence; "" where it is. Asked about 15 times a second."""

    async def unsaved(self, node: int) -> str:
        """Why a reply that has ended is not saved yet, as a sentence; "" where it is."""


class Run(Protocol):
    """A run as its readers need it; modules.engine.run.Run is one. events is append-only; touched on the event loop only."""

    @property
    def id(self) -> str: ...
    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def done(self) -> bool: ...
    def follow(self, offset: int = 0) -> AsyncIterator[list[Event]]:
        """Batches of events from `offset`; ends after Finished or Failed."""

    def lag(self, is_behind: bool) -> None:
        """Told when drawing on this server, never a person's browser, is too far behind the text, and when not any more."""


class Runs(Protocol):
    """Where runs are found: the engine. A run is kept for at least a minute after its end."""

    def run(self, run_id: str) -> Run:
        """Raises NotFound."""


class Services(Protocol):
    """All that the routes are given."""

    @property
    def chats(self) -> Chats: ...
    @property
    def runs(self) -> Runs: ...
