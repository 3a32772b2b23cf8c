"""A reply being written: its node, its run and its journal, from the first token to the saved row."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import saving
from .core.conversation import Conversation, Node, Status
from .core.errors import AppError, Conflict, NotFound
from .core.events import Delta, Event, Failed, Finished, Request, Started, Usage
from .core.messages import Message, Part, ReasoningPart, TextPart
from .engine import Engine, Run
from .saving import Savings
from .sessions import Session
from .store.database import Store
from .store.journal import JournalWriter
from .text.pieces import sampled_ids

log = logging.getLogger(__name__)
ORIGIN_SECONDS = 60.0  # as long as an ended run can be followed
SLOW_SECONDS = 5.0  # after which a disk that does not answer is told of


@dataclass(frozen=True)
class Reply:
    """A reply that was begun; run is "" where the node failed at once."""

    node: Node
    run: str


class Replies:
    """Starts replies and sees them onto the disk. On the event loop; the database works in threads.

    While a reply streams its row says so and its text goes to the journal; when it ends the row is finished and only then the
    journal is removed, so at any moment of a crash the text is in one of them. A row that cannot be written is tried again
    until it can; meanwhile `as_written` gives its node as it is to be, with the reason as its stats' "unsaved".
    """

    def __init__(self, engine: Engine, store: Store, instance: str) -> None:
        self._engine = engine
        self._store = store
        self._journal = store.journal
        self._instance = instance
        self._origins: dict[str, Node] = {}
        self._unsaved: dict[int, Node] = {}
        self._writers: dict[str, JournalWriter] = {}  # by live run
        self._endings: dict[int, asyncio.Task[None]] = {}  # first tries to save, by node
        self._savings = Savings()

    def origin(self, run: str) -> Node | None:
        """The node a live or just ended run writes to, as it was at the start."""
        return self._origins.get(run)

    def at_risk(self, run: str) -> str:
        """Why what a live run has written is not safe on disk, "" where it is or there is no such run."""
        writer = self._writers.get(run)
        return f"Not safe on disk yet, because {writer.error}" if writer is not None and writer.error else ""

    async def unsaved(self, node: int) -> str:
        """Why an ended reply's row is not written yet, "" where it is. Waits for its first try, at most SLOW_SECONDS."""
        ending = self._endings.get(node)
        if ending is not None and not (await asyncio.wait({ending}, timeout=SLOW_SECONDS))[0]:
            return "This reply is not saved yet: the disk is slow to answer."
        waiting = self._unsaved.get(node)
        return str(waiting.stats["unsaved"]) if waiting is not None else ""

    def as_written(self, tree: Conversation) -> Conversation:
        """The conversation with the replies whose rows could not be written yet as they are."""
        if not any(id in self._unsaved for id in tree.nodes):
            return tree
        return Conversation(tree.id, [self._unsaved.get(node.id, node) for node in tree.nodes.values()])

    def live(self, conversation: str) -> list[Node]:
        """The chat's nodes that are being written, each as it was at its start."""
        nodes = (self._origins.get(run.id) for run in self._engine.live_runs)
        return [node for node in nodes if node is not None and node.conversation == conversation]

    def cancel(self, is_its: Callable[[Node], bool]) -> None:
        """Stop the live replies that write to such nodes."""
        for run in self._engine.live_runs:
            node = self._origins.get(run.id)
            if node is not None and is_its(node):
                run.cancel()

    def replace(self, tree: Conversation, node: int) -> None:
        """A new version of this message is about to be written: stop what is being written in or below it, which goes out of
        sight and with one slot would be waited for. What it has so far is saved."""
        below = tree.below(node)
        self.cancel(lambda writing: writing.id in below)

    async def begin(self, state: Session, path: Sequence[Node], opening: Sequence[Message], *, going_on: Node | None = None,
                    by: str = "") -> Reply:
        """Add the reply's node under the path's end and start its run; a run that cannot start fails the node with the reason.

        by: the model that writes it, and no other; "" for the one that answers this session.

        It is done to its end also where the caller is cancelled: a node that streams has a run.
        """
        return await asyncio.shield(self._savings.begin(self._begin(state, path, opening, going_on, by), "begin a reply"))

    async def _begin(self, state: Session, path: Sequence[Node], opening: Sequence[Message], going_on: Node | None,
                     by: str) -> Reply:
        start = going_on.message if going_on else Message("assistant", (), _speaker(state, path))
        parent = path[-1].id if path else None
        run_id = secrets.token_hex(12)
        node = await asyncio.to_thread(
            self._store.chats.add, state.conversation, parent, start, owner=state.owner, status="streaming", run=run_id,
            instance=self._instance, preset=state.preset, keep_from=going_on.keep_from if going_on else None)
        self._origins[run_id] = node
        stream = _Stream(node, path, len(opening), going_on)

        def listener(run: Run, events: Sequence[Event]) -> None:
            stream.take(events)
            if isinstance(events[-1], (Finished, Failed)):
                self._writers.pop(run.id, None)
                task = self._endings[node.id] = self._savings.begin(self._save(stream, events[-1]), f"save {run.id}")
                task.add_done_callback(lambda _: self._endings.pop(node.id))

        try:
            header = {"node": node.id, "conversation": node.conversation, "instance": self._instance}
            stream.writer = self._writers[run_id] = await asyncio.to_thread(self._journal.open, run_id, header)
            self._engine.start_for(by or state.model, lambda: self.request(state, path, opening, going_on=going_on, by=by),
                                   listener=listener, run_id=run_id)
        except AppError as error:
            self._writers.pop(run_id, None)
            return Reply(await self._finish(stream, "failed", "error", (), {"error": error.message, "code": error.code}), "")
        return Reply(node, run_id)

    def request(self, state: Session, path: Sequence[Node], opening: Sequence[Message], *, going_on: Node | None = None,
                by: str = "") -> Request:
        """What the model is asked for a reply under the path's end."""
        nodes = [*path, going_on] if going_on else list(path)
        nodes = [node for node in nodes if node.message.content or node is going_on]
        messages = [*opening, *(node.message for node in nodes)]
        model = by or next((held.name for held in self._engine.models if held.name == state.model), "")
        writer = model or next((held.name for held in self._engine.models), "")
        spliced = {len(opening) + i: node.sampled_ids for i, node in enumerate(nodes)
                   if node.sampled_ids and node.model == writer}
        cut = next((node.keep_from for node in reversed(nodes) if node.keep_from is not None), None)
        kept = next((len(opening) + i for i, node in enumerate(nodes) if node.id == cut), 0)
        return Request(state.generation_params(), tuple(messages), model=model, owner=state.owner, cache_key=state.conversation,
                       spliced=spliced, keep_from=kept, continue_last=going_on is not None, truncate=True)

    async def _save(self, stream: _Stream, end: Finished | Failed) -> None:
        """The run has ended: save its node."""
        if isinstance(end, Failed):
            stopped = end.error.code == "cancelled"
            status: Status = "stopped" if stopped else "failed"
            stats = stream.stats(end.usage, None)
            if not stopped:
                stats |= {"error": end.error.message, "code": end.error.code, "log": end.error.log[-4000:]}
            await self._finish(stream, status, "cancelled" if stopped else "error", (), stats)
            return
        status = "stopped" if end.reason == "cancelled" else "complete"
        stats = stream.stats(end.usage, end.timings.tokens_per_second(end.usage.completion_tokens))
        stats |= {"seconds": end.timings.decode_seconds, "prefill_seconds": end.timings.prefill_seconds}
        stream.reasoning_seconds = end.timings.reasoning_seconds
        await self._finish(stream, status, end.reason, stream.spliceable(), stats)

    async def _finish(self, stream: _Stream, status: Status, finish: str, ids: tuple[int, ...], stats: dict[str, Any]) -> Node:
        """Write the row, now or later; returns the node as it is or is to be."""
        facts = stream.started
        node = replace(
            stream.node, message=stream.message(), status=status, finish=finish, sampled_ids=ids, stats=stats,
            model=facts.model if facts else "", loader=facts.loader if facts else "",
            quantization=facts.quantization if facts else "", seed=facts.seed if facts else None, keep_from=stream.kept_node())
        if not await self._write(node, stream.writer):
            self._savings.again(lambda: self._write(node, stream.writer), lambda: _leave_to_the_next_start(stream.writer),
                                f"save {node.run} later")
        asyncio.get_running_loop().call_later(ORIGIN_SECONDS, self._origins.pop, node.run, None)
        return node

    async def _write(self, node: Node, writer: JournalWriter | None) -> bool:
        """The row first, then the journal goes. False where it could not be written: the journal then stays."""
        try:
            if writer is not None:
                await asyncio.to_thread(writer.flush)
            await asyncio.to_thread(
                self._store.chats.finish, node.id, node.message, status=node.status, finish=node.finish,
                sampled_ids=node.sampled_ids, stats=node.stats, model=node.model, loader=node.loader,
                quantization=node.quantization, seed=node.seed, keep_from=node.keep_from)
        except (NotFound, Conflict) as error:
            log.info("Reply %d was purged, or is finished already: %s", node.id, error.message)
        except Exception as error:
            log.error("Reply %d could not be saved (%s); its text is in the journal, and saving is tried again", node.id, error,
                      exc_info=node.id not in self._unsaved)
            reason = error.message if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
            words = f"This reply is not saved yet: {reason} {saving.every()}"
            if writer is not None and not writer.error:
                words += " Until then its text is in the journal on disk."
            self._unsaved[node.id] = replace(node, stats={**node.stats, "unsaved": words})
            return False
        self._unsaved.pop(node.id, None)
        if writer is not None:
            await asyncio.to_thread(writer.close, delete=True)
        return True

    async def settle(self) -> None:
        """Wait until every ended reply is saved, or was tried to."""
        await self._savings.settle()

    async def close(self) -> None:
        """Save what is unsaved, at shutdown; what cannot be is left to the next start, in its journal."""
        await self._savings.close()


async def _leave_to_the_next_start(writer: JournalWriter | None) -> None:
    if writer is not None:
        await asyncio.to_thread(writer.close, delete=False)


class _Stream:
    """What one reply has received so far; on the event loop."""

    def __init__(self, node: Node, path: Sequence[Node], n_opening: int, going_on: Node | None) -> None:
        self.node = node
        self.writer: JournalWriter | None = None
        self.started: Started | None = None
        self.reasoning_seconds: float | None = None
        self._path = [n for n in path if n.message.content]
        self._n_opening = n_opening
        self._going_on = going_on
        self._parts: dict[str, list[str]] = {"text": [], "reasoning": [], "tool": []}
        self._tokens: list[tuple[int, str]] = []

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Delta):
                self._parts.setdefault(event.channel, []).append(event.text)
                self._tokens.extend((token.id, token.text) for token in event.tokens)
                if self.writer is not None:
                    self.writer.append(event.text, event.channel, [token.id for token in event.tokens])
            elif isinstance(event, Started):
                self.started = event

    def message(self) -> Message:
        """The whole reply: what it went on from, then what came."""
        before = self._going_on.message.content if self._going_on else ()
        seconds = [p.seconds for p in before if isinstance(p, ReasoningPart) and p.seconds is not None]
        seconds += [self.reasoning_seconds] if self.reasoning_seconds is not None else []
        text = "".join(p.text for p in before if isinstance(p, TextPart)) + "".join(self._parts["text"])
        reasoning = "".join(p.text for p in before if isinstance(p, ReasoningPart)) + "".join(self._parts["reasoning"])
        parts: tuple[Part, ...] = (ReasoningPart(reasoning, sum(seconds) if seconds else None),) if reasoning else ()
        parts += tuple(p for p in before if not isinstance(p, (TextPart, ReasoningPart)))
        return Message("assistant", (*parts, TextPart(text)) if text else parts, self.node.message.name)

    def spliceable(self) -> tuple[int, ...]:
        """The ids that spell exactly the saved text; () where none do, as after a stop string in the middle of a token."""
        new = "".join(self._parts["text"])
        ids = sampled_ids(self._tokens, new)
        before = self._going_on.sampled_ids if self._going_on else ()
        if self._going_on and (not before or self._going_on.model != (self.started.model if self.started else "")):
            return ()
        return (*before, *ids) if ids or not new else ()

    def kept_node(self) -> int | None:
        """The id of the first message that was still in the prompt, None where all were."""
        if self.started is None or not self.started.keep_from:
            return None
        index = self.started.keep_from - self._n_opening
        return self._path[index].id if 0 <= index < len(self._path) else None

    def stats(self, usage: Usage, speed: float | None) -> dict[str, Any]:
        stats: dict[str, Any] = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
                                 "cached_tokens": usage.cached_tokens, "tokens_per_second": speed,
                                 "is_estimate": usage.is_estimate}
        if self.started is not None:
            stats |= {"context": self.started.context, "dropped": self.started.dropped, "left_out": self.started.left_out,
                      "ignored": list(self.started.ignored)}
            if self.started.adapters:
                stats["adapters"] = [list(pair) for pair in self.started.adapters]
        return stats


def _speaker(state: Session, path: Sequence[Node]) -> str | None:
    """The character's name, as the greeting or an earlier reply spelled it."""
    return next((n.message.name for n in reversed(path) if n.message.role == "assistant"), None) or state.character or None
