"""Runs behind one HTTP answer: begun together, their first events taken before the status line, ended when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse

from ..core.errors import Cancelled
from ..core.events import Event, Failed, Finished, Request, Started
from ..engine import Engine, Run

T = TypeVar("T")


class Runs:
    """The runs of one request, by choice index; leaving the `with` cancels those that still run."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._engine = engine
        self._requests = requests
        self.runs: list[Run] = []

    def __enter__(self) -> Runs:
        try:
            for request in self._requests:
                self.runs.append(self._engine.start(request))
        except BaseException:
            self.cancel()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        for run in self.runs:
            run.cancel()

    async def started(self) -> list[Started]:
        """Each run's Started, in order; raises the error of the first that failed before it: this is before HTTP 200."""
        return [await self._started(run) for run in self.runs]

    async def _started(self, run: Run) -> Started:
        async for batch in run.follow():
            for event in batch:
                if isinstance(event, Started):
                    return event
                if isinstance(event, Failed):
                    raise event.error
        raise Cancelled("The run ended before it began.")

    async def finished(self) -> list[Finished]:
        """Each run's end, in order; raises the first error."""
        return list(await asyncio.gather(*(run.wait() for run in self.runs)))

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


def sse(make: Callable[[], AsyncIterator[bytes]], headers: dict[str, str]) -> StreamingResponse:
    """A server-sent-event answer; Starlette closes the iterator's task when the client leaves, so `finally` cancels."""
    return StreamingResponse(make(), media_type="text/event-stream",
                             headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
