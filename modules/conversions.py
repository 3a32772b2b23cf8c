"""Conversions as the page sees them: what can be made of what, how large it will be; started, followed, cancelled."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .core.errors import AppError, Cancelled, NotFound
from .core.loader import ModelFile
from .jobs import Jobs, Report
from .models import targets
from .models.catalog import Catalog
from .models.making import Making, Order, check_room, clear, order
from .models.scan import inside
from .store.files import safe_path

KIND = "conversion"
MAX_ENDED = 20

Status = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Plan:
    """What would be made. problem: why it cannot be, "" where nothing is known; size and free in bytes, 0 where unknown.

    memory: what it may take of the working memory, 0 where that is little.
    """

    name: str
    size: int = 0
    scratch: int = 0
    free: int = 0
    memory: int = 0
    place: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ConversionState:
    """One moment of a conversion. done of total are in `unit`; what: what is being done, what came of it, or why it failed."""

    id: str
    title: str
    status: Status
    what: str
    done: int = 0
    total: int = 0
    unit: str = ""
    log: tuple[str, ...] = ()

    @property
    def fraction(self) -> float:
        """0 to 1, of the step that is being done."""
        return 1.0 if self.status == "done" else min(1.0, self.done / self.total) if self.total else 0.0


@dataclass
class _Entry:
    """Changed on the event loop only."""

    making: Making
    job: str = ""
    status: Status = "waiting"
    what: str = "Waits for another conversion."
    step: dict[str, Any] = field(default_factory=dict)


class Conversions:
    """Every method runs on the event loop. Results go beside their source where that lies in a model folder, else into the first.

    finished counts those that have come to their end here, so that whoever shows the list of models can see that it changed.
    """

    def __init__(self, jobs: Jobs, catalog: Catalog, models: Path) -> None:
        self.finished = 0
        self._jobs = jobs
        self._catalog = catalog
        self._models = models
        self._entries: dict[str, _Entry] = {}
        self._slot = asyncio.Semaphore(1)  # one takes all cores

    async def recover(self) -> None:
        """Remove what conversions left that were killed together with the app."""
        places = {self._models, *self._catalog.dirs}
        for place in places:
            await asyncio.to_thread(clear, place)

    async def sources(self) -> list[ModelFile]:
        """The models that something can be made of, by name."""
        return [file for file in await asyncio.to_thread(self._catalog.list) if not targets.refusal(file)]

    async def choices(self, source: str) -> list[tuple[str, str]]:
        """What it can be made into, as words and name, the usual one first. Raises NotFound."""
        file = await asyncio.to_thread(self._catalog.find, source)
        return [(f"{target.name}: {target.words}", target.name) for target in targets.TARGETS.values()
                if not targets.refusal(file, target)]

    async def plan(self, source: str, target: str, name: str = "") -> Plan:
        """What would be made: its name (`name` where that is not empty), size and place; problem tells why it cannot be."""
        try:
            made = await asyncio.to_thread(self._order, source, target, name)
        except AppError as error:
            return Plan(name, problem=error.message)
        try:
            await asyncio.to_thread(check_room, made, self._still_needed())
            problem = ""
        except AppError as error:
            problem = error.message
        free = await asyncio.to_thread(lambda: shutil.disk_usage(made.path.parent).free)
        memory = 0 if made.target.via == "gguf" else made.source.size_bytes
        return Plan(_stem(made.path), made.size, made.scratch, free, memory, str(made.path.parent), problem)

    async def start(self, source: str, target: str, name: str = "") -> str:
        """Begin; returns the conversion's id. Raises NotFound, BadRequest, Conflict, LoadFailed, AppError for a full disk."""
        made = await asyncio.to_thread(self._order, source, target, name)
        await asyncio.to_thread(check_room, made, self._still_needed())
        entry = _Entry(Making(made))

        async def work(report: Report) -> str:
            return await self._work(entry, report)

        entry.job = self._jobs.start(KIND, made.title, work, key=f"{KIND} {made.path}")
        self._entries[entry.job] = entry
        self._forget()
        return entry.job

    async def cancel(self, id: str) -> None:
        """End it and delete what it began; one that has ended is taken off the list, a model that is there stays."""
        entry = self._find(id)
        if not self._jobs.cancel(entry.job):
            self._entries.pop(id, None)
            self._jobs.changed()
            return
        await self._jobs.wait(entry.job)
        if entry.status == "waiting":  # its work had not begun, so nothing in it has heard of the end
            entry.status, entry.what = "cancelled", "Cancelled."

    def list(self) -> list[ConversionState]:
        """All of them, the newest first."""
        return [_state(id_, entry) for id_, entry in reversed(self._entries.items())]

    async def wait(self, id: str) -> ConversionState:
        """Its end."""
        entry = self._find(id)
        await self._jobs.wait(entry.job)
        return _state(id, entry)

    def _order(self, source: str, target: str, name: str) -> Order:
        file, wanted = self._catalog.find(source), targets.find_target(target)
        suffix = ".gguf" if wanted.via == "gguf" else ""
        stem = (name or "").strip().removesuffix(".gguf") or targets.result_name(file, wanted)
        parent = Path(file.path).parent
        root = next((folder for folder in self._catalog.dirs if not file.source and inside(parent, [folder])), None)
        if root is None:
            parent = root = self._models
            parent.mkdir(parents=True, exist_ok=True)
        return order(file, wanted, safe_path(parent, stem, suffix), root)

    async def _work(self, entry: _Entry, report: Report) -> str:
        loop = asyncio.get_running_loop()

        def show(values: dict[str, Any]) -> None:
            entry.step, entry.what = values, str(values.get("what", ""))
            report(**{key: values[key] for key in ("what", "done", "total", "unit") if key in values})

        try:
            async with self._slot:
                entry.status, entry.what = "running", "Begins"
                await asyncio.to_thread(check_room, entry.making.order)
                await _in_thread(entry.making, lambda values: loop.call_soon_threadsafe(show, values))
        except (asyncio.CancelledError, Cancelled):
            entry.status, entry.what = "cancelled", "Cancelled; nothing is left of it."
            raise asyncio.CancelledError from None
        except Exception as error:
            entry.status = "failed"
            entry.what = error.message if isinstance(error, AppError) else f"It failed unexpectedly: {error!r}."
            raise
        entry.status = "done"
        entry.what = f"{entry.making.order.path.name} is in the list of models, beside what it was made from."
        self.finished += 1
        return entry.what

    def _still_needed(self) -> int:
        """Bytes that those under way may still write."""
        return sum(entry.making.order.size + entry.making.order.scratch for entry in self._entries.values()
                   if entry.status in ("waiting", "running"))

    def _find(self, id: str) -> _Entry:
        if id not in self._entries:
            raise NotFound("This conversion is no longer on the list.")
        return self._entries[id]

    def _forget(self) -> None:
        ended = [id_ for id_, entry in self._entries.items() if entry.status not in ("waiting", "running")]
        for id_ in ended[:-MAX_ENDED]:
            del self._entries[id_]


async def _in_thread(making: Making, told: Callable[[dict[str, Any]], object]) -> None:
    """Run it in a thread; a cancel ends its child, and waits until nothing is left."""
    task = asyncio.ensure_future(asyncio.to_thread(making.run, told))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        making.cancel()
        await asyncio.wait({task})
        if task.exception() is None:
            return  # the model is there: the cancel came too late
        raise


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gguf")


def _state(id: str, entry: _Entry) -> ConversionState:
    step = entry.step if entry.status == "running" else {}
    return ConversionState(id, entry.making.order.title, entry.status, entry.what, int(step.get("done", 0)),
                           int(step.get("total", 0)), str(step.get("unit", "")), tuple(entry.making.log))
