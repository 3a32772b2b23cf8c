"""Models that were unloaded because nobody used them, and come back when somebody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .models import Held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rest:
    """How a resting model is loaded again."""

    name: str
    loader: str
    options: dict[str, Any]
    adapters: tuple[tuple[str, float], ...] = ()


class Resting:
    """Lets models go that were idle for so long, and remembers how they were loaded; on the event loop.

    held: the engine's models by name; release ends the process of one. 0 seconds: models stay.
    """

    def __init__(self, held: Mapping[str, Held], release: Callable[[Held], Awaitable[None]], *, seconds: float) -> None:
        self._held = held
        self._release = release
        self._seconds = seconds
        self._rests: dict[str, Rest] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """The resting models, the one that rests the shortest first."""
        return [name for name in reversed(self._rests) if name not in self._held]

    def of(self, name: str) -> Rest | None:
        """How the model of that name is loaded again, for "" the one that rests the shortest; None where it does not rest."""
        names = self.names
        found = name or next(iter(names), "")
        return self._rests[found] if found in names else None

    def forget(self, name: str) -> None:
        """It was unloaded by hand, or another took its place."""
        self._rests.pop(name, None)

    def watch(self) -> None:
        """A model was loaded: look after it from now on."""
        if self._seconds and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._look(), name="idle models")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look(self) -> None:
        """Until no model is held: the next look is when the first of them could have been idle for long enough."""
        loop = asyncio.get_running_loop()
        while self._held:
            now = loop.time()
            due = [self._due(held, now) for held in self._held.values()]
            await asyncio.sleep(max(0.0, min(due) - now))
            for held in list(self._held.values()):
                now = loop.time()
                if self._due(held, now) <= now:
                    log.info("%s was idle for %g minutes and is unloaded; the next request loads it again", held.name,
                             self._seconds / 60)
                    self._rests.pop(held.name, None)
                    self._rests[held.name] = Rest(
                        held.name, held.spec.name, held.asked, tuple((one.name, one.weight) for one in held.adapters))
                    await self._release(held)

    def _due(self, held: Held, now: float) -> float:
        """When the model may go, by the loop's clock: not before its runs are over, nor while it goes for another."""
        return (now if held.runs or held.retiring else held.used_at) + self._seconds
