"""The models the engine holds, and how a load is going."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.adapters import Attached
from ..core.errors import AppError
from ..core.events import Started
from ..core.loader import LoaderSpec, ModelFacts, ModelFile
from ..core.params import ignored_params
from ..text.splitter import ReasoningMarks
from ..worker import memory_use
from ..worker.client import WorkerClient
from .prompt import Prompt
from .run import Run

QUANTIZATION = "quantization"  # the option of loaders that shrink weights while loading, and its value for leaving them alone
UNQUANTIZED = "none"
MEASURED_SECONDS = 10.0  # reading what a process holds walks its page tables: a hundred milliseconds for large models
LoadStatus = Literal["idle", "loading", "ready", "failed", "cancelled"]


@dataclass
class Held:
    """A loaded model and its process; the engine alone changes it, on the event loop.

    asked: the options as given; options: those completed; facts.options says how they came out. runs: those not yet ended, by id.
    forecast_bytes: what loading it was expected to take. companions: the other models that its options name, by option.
    adapters: what is attached, also with weight 0. attaching: puts on others; runs wait for its end.
    adapters_problem: why those that were to come back with the model are not attached, "" where they are.
    """

    file: ModelFile
    spec: LoaderSpec
    asked: dict[str, Any]
    options: dict[str, Any]
    worker: WorkerClient
    marks: ReasoningMarks | None
    runs: dict[str, Run] = field(default_factory=dict)
    used_at: float = field(default_factory=time.monotonic)
    loaded_at: float = field(default_factory=time.time)
    retiring: bool = False
    forecast_bytes: int = 0
    companions: Mapping[str, ModelFile] = field(default_factory=dict)
    adapters: tuple[Attached, ...] = ()
    adapters_problem: str = ""
    attaching: asyncio.Task[None] | None = None
    _measuring: asyncio.Task[int] | None = None
    _measured_at: float = 0.0

    async def measured(self) -> int:
        """Bytes that the model takes of this machine's memory, without its loader's libraries, at most MEASURED_SECONDS ago; 0
        where nobody can say."""
        if not self.file.has_weights or not self.facts.base_bytes:
            return 0
        now = time.monotonic()
        if self._measuring is None or now - self._measured_at >= MEASURED_SECONDS:
            self._measured_at = now
            self._measuring = asyncio.create_task(asyncio.to_thread(memory_use.bytes_of, self.worker.pid))
        return max(0, await asyncio.shield(self._measuring) - self.facts.base_bytes)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def facts(self) -> ModelFacts:
        return self.worker.facts

    @property
    def is_attaching(self) -> bool:
        return self.attaching is not None and not self.attaching.done()

    async def settled(self) -> None:
        """Wait until no other adapters are being put on."""
        if self.attaching is not None and not self.attaching.done():
            await asyncio.wait({self.attaching})

    @property
    def acting(self) -> tuple[tuple[str, float], ...]:
        """Names and weights of the adapters that change what the model computes."""
        return tuple((one.name, one.weight) for one in self.adapters if one.weight)

    @property
    def quantization(self) -> str:
        """How the weights are stored in memory: as the loader was told to shrink them while loading, else as in the file."""
        chosen = str(self.options.get(QUANTIZATION, UNQUANTIZED))
        return self.file.quantization if chosen == UNQUANTIZED else chosen

    def started(self, run: Run, prompt: Prompt, cached: int) -> Started:
        """The event that a run of this model begins with; cached: tokens of its prompt that the worker had already."""
        params = run.request.params
        return Started(run.id, self.name, self.spec.name, len(prompt.ids), cached, self.facts.context, params.seed,
                       dropped=prompt.dropped, keep_from=prompt.keep_from, left_out=prompt.left_out,
                       ignored=tuple(ignored_params(params, self.spec.params)), quantization=self.quantization,
                       adapters=self.acting, is_estimate=self.facts.takes == "messages")


@dataclass(frozen=True)
class LoadState:
    """One moment of a load: what a progress bar shows. `error` is set when status is failed; fraction is 0..1."""

    status: LoadStatus = "idle"
    name: str = ""
    loader: str = ""
    fraction: float = 0.0
    what: str = ""
    error: AppError | None = None


class LoadWatch:
    """Holds the newest LoadState; on the event loop. version: how often it, or what is held, has changed."""

    def __init__(self) -> None:
        self.state = LoadState()
        self.version = 0
        self._changed = asyncio.Event()

    def set(self, state: LoadState) -> None:
        self.state = state
        self.touch()

    def touch(self) -> None:
        """Tell those who wait that other models are held."""
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self, since: int) -> None:
        """Wait until the version is another than `since`."""
        while self.version == since:
            await self._changed.wait()

    async def settled(self) -> None:
        """Wait until nothing is being loaded."""
        while self.state.status == "loading":
            await self._changed.wait()
