"""A run: one generation, with an id, that outlives whoever asked for it and is followed by any number of readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from ..core.errors import AppError, Cancelled
from ..core.events import END, Channel, Delta, Event, Failed, Finished, Request, Usage

log = logging.getLogger(__name__)


class Run:
    """Events of one generation, append-only; touched only on the event loop.

    `listener`, if given, is called on the loop with each batch of events just before readers wake: chat writes its journal there.
    """

    def __init__(self, id: str, request: Request, *, model: str = "", loader: str = "", quantization: str = "",
                 listener: Callable[[Run, Sequence[Event]], None] | None = None) -> None:
        self.id = id
        self.request = request
        self.model = model
        self.loader = loader
        self.quantization = quantization
        self.events: list[Event] = []
        self.started_at = time.time()
        self.on_cancel: Callable[[], object] | None = None
        self.on_lag: Callable[[bool], object] | None = None
        self._listener = listener
        self._parts: dict[str, list[str]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def done(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], END)

    @property
    def end(self) -> Finished | Failed | None:
        """The last event once the run is over, else None."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, END) else None

    def publish(self, events: Sequence[Event]) -> None:
        """Append events and wake the readers; the engine's alone to call. Nothing may follow the end."""
        if not events:
            return
        assert not self.done, "nothing may follow the end of a run"
        for event in events:
            if isinstance(event, Delta):
                self._parts.setdefault(event.channel, []).append(event.text)
        self.events.extend(events)
        if self._listener is not None:
            try:
                self._listener(self, events)
            except Exception:  # one reader's fault must not leave the others waiting for ever
                log.exception("The listener of run %s failed", self.id)
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def text(self, channel: Channel = "text") -> str:
        """All text of a channel so far."""
        parts = self._parts.get(channel)
        if not parts:
            return ""
        if len(parts) > 1:
            parts[:] = ["".join(parts)]
        return parts[0]

    def cancel(self) -> None:
        """Stop within one decode step or prefill chunk; a finished run ignores it."""
        if not self.done and self.on_cancel is not None:
            self.on_cancel()

    def lag(self, is_behind: bool) -> None:
        """Told by a reader whose own work on the text, such as drawing it, is too far behind, or is not any more.

        The worker is then slowed down for moments: text that nobody could see yet is better still to come. Nobody may call it
        because a person's browser or network is slow.
        """
        if self.on_lag is not None:
            self.on_lag(is_behind)

    def let_go(self) -> None:
        """Forget the model, the listener and what was asked but for its params, at the end: a run that is kept for its readers
        must not keep an unloaded model's client, nor a whole chat with its tokens, in memory with it."""
        assert self.done, "a live run still needs them"
        self.on_cancel = self.on_lag = self._listener = None
        self.request = replace(self.request, messages=(), text="", prompt_ids=(), spliced={})

    def fail(self, error: AppError, usage: Usage | None = None) -> None:
        """End the run by an error; the text so far stays valid."""
        if not self.done:
            self.publish([Failed(error, usage or Usage(0, 0, 0))])

    async def follow(self, offset: int = 0) -> AsyncGenerator[list[Event]]:
        """Batches of the events from `offset` on, as they happen; ends after Finished or Failed.

        Several readers may follow at once, each at its own pace: a slow one gets fewer, larger batches.
        """
        while True:
            if offset < len(self.events):
                batch = self.events[offset:]
                offset += len(batch)
                yield batch
                if isinstance(batch[-1], END):
                    return
            elif self.done:
                return
            else:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(future)
                try:
                    await future
                finally:
                    self._waiting.discard(future)

    async def wait(self) -> Finished:
        """The end of the run; raises its error if it failed."""
        async for _ in self.follow(len(self.events)):
            pass
        end = self.end
        if isinstance(end, Failed):
            raise end.error
        if end is None:
            raise Cancelled("The run was dropped before it ended.")
        return end
