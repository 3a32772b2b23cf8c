"""A run that a test drives by hand, with the same shape as the engine's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from modules.core.errors import NotFound
from modules.core.events import Delta, Event, Finished, Timings, Usage
from modules.core.loader import Token


class FakeRun:
    def __init__(self, id: str = "run1") -> None:
        self.id = id
        self.events: list[Event] = []
        self.lags: list[bool] = []
        self._news = asyncio.Event()

    @property
    def done(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    def publish(self, *events: Event) -> None:
        self.events.extend(events)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def say(self, text: str, channel: str = "text") -> None:
        self.publish(Delta(text, channel, (Token(1, text),)))  # type: ignore[arg-type]

    def finish(self, reason: str = "stop") -> None:
        self.publish(Finished(reason, Usage(7, 3, 0), Timings(0.0, 0.1, 0.5)))  # type: ignore[arg-type]

    def lag(self, is_behind: bool) -> None:
        self.lags.append(is_behind)

    async def follow(self, offset: int = 0) -> AsyncIterator[list[Event]]:
        while True:
            news = self._news
            batch = self.events[offset:]
            offset += len(batch)
            if batch:
                yield batch
            elif self.done:
                return
            else:
                await news.wait()


class FakeRuns(dict[str, FakeRun]):
    def run(self, run_id: str) -> FakeRun:
        if run_id not in self:
            raise NotFound(f"No run {run_id!r}.")
        return self[run_id]
