"""Runs behind one HTTP answer: begun together, their first events taken before the status line, ended when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse

from ..core.errors import AppError, Cancelled
from ..core.events import Event, Failed, Finished, Queued, Request, Started
from ..engine import Engine, Run

T = TypeVar("T")


class Runs:
    """The runs of one request, by choice index. Whoever begins them cancels them."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._engine = engine
        self._requests = requests
        self.runs: list[Run] = []

    def begin(self) -> None:
        """Start all of them, or none."""
        try:
            for request in self._requests:
                self.runs.append(self._engine.start(request))
        except BaseException:
            self.cancel()
            raise

    async def read(self) -> None:
        """Ended runs that only read their prompts, in place of those that write."""
        for request in self._requests:
            self.runs.append(await self._engine.read(request))

    def cancel(self) -> None:
        for run in self.runs:
            run.cancel()

    async def started(self) -> Started:
        """The first run's Started, once every run has started or waits in the model's queue; raises the first error before that.

        A run in the queue has its prompt built and accepted; to wait until the last of many choices has a place would keep the
        client waiting for nearly all of the answer.
        """
        first = await _begun(self.runs[0], is_enough=Started)
        for run in self.runs[1:]:
            await _begun(run, is_enough=(Started, Queued))
        assert isinstance(first, Started), "it was waited for"
        return first

    async def finished(self) -> list[Finished]:
        """Each run's end, in order; raises the first error."""
        ends = list(await asyncio.gather(*(run.wait() for run in self.runs)))
        for end in ends:
            if end.reason == "cancelled":
                raise cut_short()
        return ends

    async def follow(self) -> AsyncIterator[tuple[int, list[Event]]]:
        """(choice, events) as they happen, until every run has ended."""
        if len(self.runs) == 1:
            async for batch in self.runs[0].follow():
                yield 0, batch
            return
        queue: asyncio.Queue[tuple[int, list[Event]]] = asyncio.Queue()

        async def pump(index: int, run: Run) -> None:
            async for batch in run.follow():
                queue.put_nowait((index, batch))

        pumps = [asyncio.create_task(pump(index, run)) for index, run in enumerate(self.runs)]
        left = len(pumps)
        try:
            while left:
                index, batch = await queue.get()
                left -= isinstance(batch[-1], (Finished, Failed))
                yield index, batch
        finally:
            for task in pumps:
                task.cancel()


async def unless_gone(http: HttpRequest, work: Awaitable[T]) -> T:
    """The work's result; if the client leaves first the work is cancelled and Cancelled raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("The client closed the connection.")
    finally:
        task.cancel()
        gone.cancel()


async def _left(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """A server-sent-event answer; `done` is called when it is over, also where the client left before the first byte."""

    def __init__(self, events: AsyncIterator[bytes], headers: dict[str, str], done: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream",
                         headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()


def cut_short() -> AppError:
    """What a client is told whose reply somebody else stopped: an ordinary end would pass for the whole reply."""
    return Cancelled("The reply was stopped before its end, because its model was unloaded or the server is stopping.")


async def _begun(run: Run, *, is_enough: type[Event] | tuple[type[Event], ...]) -> Event:
    """The first such event of the run; raises its error where it failed before that."""
    async for batch in run.follow():
        for event in batch:
            if isinstance(event, is_enough):
                return event
            if isinstance(event, Failed):
                raise event.error
    raise Cancelled("The run ended before it began.")
