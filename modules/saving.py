"""Saves that go on when nobody waits for them, and are tried again where they fail, until the app closes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
RETRY_SECONDS = 5.0  # between two tries


def every() -> str:
    """How often it is tried again, for the person who reads that something is not saved."""
    return f"Saving is tried again every {RETRY_SECONDS:g} seconds."


class Savings:
    """The saves under way; on the event loop. Whoever makes it closes it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._retries: set[asyncio.Task[None]] = set()
        self._is_closing = asyncio.Event()

    def begin(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run it to its end, also where the caller is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def again(self, attempt: Callable[[], Awaitable[bool]], give_up: Callable[[], Awaitable[object]], name: str) -> None:
        """Await `attempt` now and then until it is True, a last time at the close; where that fails too, `give_up`."""
        task = asyncio.create_task(self._again(attempt, give_up), name=name)
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _again(self, attempt: Callable[[], Awaitable[bool]], give_up: Callable[[], Awaitable[object]]) -> None:
        while not self._is_closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), RETRY_SECONDS)
            if await attempt():
                return
        await give_up()

    async def settle(self) -> None:
        """Wait until every save that was begun is done, or was tried to be."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        """Settle, and try the failed ones a last time."""
        await self.settle()
        self._is_closing.set()
        await asyncio.gather(*self._retries, return_exceptions=True)
