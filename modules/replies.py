"""A reply being written: its node, its run and its journal, from the first token to the saved row."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .core.conversation import Node, Status
from .core.errors import AppError, Conflict, NotFound
from .core.events import Delta, Event, Failed, Finished, Request, Started, Usage
from .core.messages import Message, Part, ReasoningPart, TextPart
from .core.params import GenerationParams
from .engine import Engine, Run
from .sessions import Session
from .store.database import Store
from .store.journal import JournalWriter
from .text.pieces import sampled_ids

log = logging.getLogger(__name__)
ORIGIN_SECONDS = 60.0  # as long as an ended run can be followed


@dataclass(frozen=True)
class Reply:
    """A reply that was begun; run is "" where the node failed at once."""

    node: Node
    run: str


class Replies:
    """Starts replies and sees them onto the disk. On the event loop; the database works in threads.

    While a reply streams its row says so and its text goes to the journal; when it ends the row is finished and only then the
    journal is removed, so at any moment of a crash the text is in one of them.
    """

    def __init__(self, engine: Engine, store: Store, instance: str) -> None:
        self._engine = engine
        self._store = store
        self._journal = store.journal
        self._instance = instance
        self._origins: dict[str, Node] = {}
        self._savings: set[asyncio.Task[None]] = set()

    def origin(self, run: str) -> Node | None:
        """The node a live or just ended run writes to, as it was at the start."""
        return self._origins.get(run)

    def cancel_in(self, conversation: str) -> None:
        """Stop the replies of one conversation."""
        for run, node in list(self._origins.items()):
            if node.conversation == conversation:
                self._engine.run(run).cancel()

    async def begin(self, state: Session, path: Sequence[Node], opening: Sequence[Message], *, going_on: Node | None) -> Reply:
        """Add the reply's node under the path's end and start its run; a run that cannot start fails the node with the reason."""
        params = state.generation_params()
        request = self._request(state, path, opening, params, going_on)
        start = going_on.message if going_on else Message("assistant", (), _speaker(state, path))
        parent = path[-1].id if path else None
        run_id = secrets.token_hex(12)
        node = await asyncio.to_thread(
            self._store.chats.add, state.conversation, parent, start, owner=state.owner, status="streaming", run=run_id,
            instance=self._instance, preset=state.preset, keep_from=going_on.keep_from if going_on else None)
        header = {"node": node.id, "conversation": node.conversation, "instance": self._instance}
        writer = await asyncio.to_thread(self._journal.open, run_id, header)
        stream = _Stream(node, path, len(opening), writer, going_on)

        def listener(run: Run, events: Sequence[Event]) -> None:
            stream.take(events)
            if isinstance(events[-1], (Finished, Failed)):
                self._save(run, stream, events[-1])

        self._origins[run_id] = node
        try:
            run = self._engine.start(request, listener=listener, run_id=run_id)
        except AppError as error:
            await self._finish(stream, "failed", "error", (), {"error": error.message, "code": error.code})
            return Reply(replace(node, status="failed", finish="error", stats={"error": error.message}), "")
        return Reply(node, run.id)

    def _request(self, state: Session, path: Sequence[Node], opening: Sequence[Message], params: GenerationParams,
                 going_on: Node | None) -> Request:
        nodes = [*path, going_on] if going_on else list(path)
        nodes = [node for node in nodes if node.message.content or node is going_on]
        messages = [*opening, *(node.message for node in nodes)]
        model = next((held.name for held in self._engine.models if held.name == state.model), "")
        writer = model or next((held.name for held in self._engine.models), "")
        spliced = {len(opening) + i: node.sampled_ids for i, node in enumerate(nodes)
                   if node.sampled_ids and node.model == writer}
        cut = next((node.keep_from for node in reversed(nodes) if node.keep_from is not None), None)
        kept = next((len(opening) + i for i, node in enumerate(nodes) if node.id == cut), 0)
        return Request(params, tuple(messages), model=model, owner=state.owner, cache_key=state.conversation, spliced=spliced,
                       keep_from=kept, continue_last=going_on is not None, truncate=True)

    def _save(self, run: Run, stream: _Stream, end: Finished | Failed) -> None:
        """The run has ended: save its node in a task of its own, which no page can cancel."""
        if isinstance(end, Failed):
            stopped = end.error.code == "cancelled"
            status: Status = "stopped" if stopped else "failed"
            stats = stream.stats(end.usage, None) if stopped else {
                **stream.stats(end.usage, None), "error": end.error.message, "code": end.error.code, "log": end.error.log[-4000:]}
            work = self._finish(stream, status, "cancelled" if stopped else "error", (), stats)
        else:
            status = "stopped" if end.reason == "cancelled" else "complete"
            stats = stream.stats(end.usage, end.timings.tokens_per_second(end.usage.completion_tokens))
            stats |= {"seconds": end.timings.decode_seconds, "prefill_seconds": end.timings.prefill_seconds}
            stream.reasoning_seconds = end.timings.reasoning_seconds
            work = self._finish(stream, status, end.reason, stream.spliceable(), stats)
        task = asyncio.create_task(work, name=f"save {run.id}")
        self._savings.add(task)
        task.add_done_callback(self._savings.discard)

    async def _finish(self, stream: _Stream, status: Status, finish: str, ids: tuple[int, ...], stats: dict[str, Any]) -> None:
        """The row first, then the journal goes; a write that fails leaves the journal for the next start."""
        node = stream.node
        stream.writer.flush()
        facts = stream.started
        try:
            await asyncio.to_thread(
                self._store.chats.finish, node.id, stream.message(), status=status, finish=finish, sampled_ids=ids,
                stats=stats, model=facts.model if facts else "", loader=facts.loader if facts else "",
                quantization=facts.quantization if facts else "", seed=facts.seed if facts else None,
                keep_from=stream.kept_node())
        except (NotFound, Conflict) as error:
            log.info("Reply %d was purged or finished elsewhere while it was written: %s", node.id, error.message)
        except AppError:
            log.exception("Saving reply %d failed; its text stays in the journal and is recovered at the next start", node.id)
            await asyncio.to_thread(stream.writer.close, delete=False)
            return
        await asyncio.to_thread(stream.writer.close, delete=True)
        asyncio.get_running_loop().call_later(ORIGIN_SECONDS, self._origins.pop, node.run, None)

    async def settle(self) -> None:
        """Wait until every ended reply is saved; at shutdown."""
        while self._savings:
            await asyncio.gather(*self._savings, return_exceptions=True)


class _Stream:
    """What one reply has received so far; on the event loop."""

    def __init__(self, node: Node, path: Sequence[Node], n_opening: int, writer: JournalWriter, going_on: Node | None) -> None:
        self.node = node
        self.writer = writer
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
                self.writer.append(event.text, event.channel, [token.id for token in event.tokens])
            elif isinstance(event, Started):
                self.started = event

    def message(self) -> Message:
        """The whole reply: what it went on from, then what came."""
        before = self._going_on.message.content if self._going_on else ()
        text = "".join(p.text for p in before if isinstance(p, TextPart)) + "".join(self._parts["text"])
        reasoning = "".join(p.text for p in before if isinstance(p, ReasoningPart)) + "".join(self._parts["reasoning"])
        parts: tuple[Part, ...] = ()
        if reasoning:
            parts = (ReasoningPart(reasoning, self.reasoning_seconds),)
        return Message("assistant", (*parts, TextPart(text)) if text else parts, self.node.message.name)

    def spliceable(self) -> tuple[int, ...]:
        """The ids that spell exactly the saved text; () where none do, as after a stop string in the middle of a token."""
        ids = sampled_ids(self._tokens, "".join(self._parts["text"]))
        before = self._going_on.sampled_ids if self._going_on else ()
        if self._going_on and (not before or self._going_on.model != (self.started.model if self.started else "")):
            return ()
        return (*before, *ids) if ids else ()

    def kept_node(self) -> int | None:
        """The id of the first message that was still in the prompt, None where all were."""
        if self.started is None or not self.started.keep_from:
            return None
        index = self.started.keep_from - self._n_opening
        return self._path[index].id if 0 <= index < len(self._path) else None

    def stats(self, usage: Usage, speed: float | None) -> dict[str, Any]:
        stats: dict[str, Any] = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
                                 "cached_tokens": usage.cached_tokens, "tokens_per_second": speed}
        if self.started is not None:
            stats |= {"context": self.started.context, "dropped": self.started.dropped, "ignored": list(self.started.ignored)}
        return stats


def _speaker(state: Session, path: Sequence[Node]) -> str | None:
    """The character's name, as the greeting or an earlier reply spelled it."""
    return next((n.message.name for n in reversed(path) if n.message.role == "assistant"), None) or state.character or None
