"""Loading and letting go of models: one load at a time, the old model kept until the new one works where memory allows."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import registry
from ..core.errors import AppError, Cancelled, Conflict, LoadFailed, NotFound, WorkerDied
from ..core.knobs import parse_values
from ..core.loader import LoaderSpec, ModelFile
from ..models import memory
from ..models.adapters import AdapterCatalog
from ..models.forecast import forecast
from ..text.splitter import detect_marks
from ..worker import memory_use
from ..worker.client import WorkerClient
from .adapters import begin
from .models import Held, LoadState, LoadWatch

logger = logging.getLogger(__name__)
LOG_BYTES = 4096  # of a log's end, as much as the Model tab shows


@dataclass(frozen=True)
class _Plan:
    """A load as decided: asked holds the options as given, options all of them; is_patient as in Engine.load.
    adapters: names and weights of those to attach with it. companions: by option, the other models that it names."""

    file: ModelFile
    spec: LoaderSpec
    asked: dict[str, Any]
    options: dict[str, Any]
    is_patient: bool = False
    adapters: Sequence[tuple[str, float]] = ()
    companions: Mapping[str, ModelFile] = field(default_factory=dict)

    @property
    def bytes_needed(self) -> int:
        others = (forecast(file, self.options).total_bytes for file in self.companions.values())
        return forecast(self.file, self.options).total_bytes + sum(others)


class Loading:
    """Changes which models are held; on the event loop. `find` knows the models of the list;
    `loaded` hears of each that is loaded, `lost` of a worker that died by itself."""

    def __init__(self, held: dict[str, Held], watch: LoadWatch, loaders: Mapping[str, LoaderSpec], *,
                 find: Callable[[str], ModelFile], log_dir: Path, max_models: int, loaded: Callable[[Held], None],
                 lost: Callable[[Held, WorkerDied], None], adapters: AdapterCatalog) -> None:
        self._held = held
        self._watch = watch
        self._loaders = loaders
        self._find = find
        self._log_dir = log_dir
        self._max_models = max_models
        self._loaded = loaded
        self._lost = lost
        self._adapters = adapters
        self._task: asyncio.Task[Held] | None = None
        self._asked_by = ""
        self._log: Path | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def settled(self) -> None:
        """Wait until no load is under way; how it ended is told to those who asked for it."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def log_tail(self) -> str:
        """The last lines that the newest worker wrote; from any thread."""
        if self._log is None or not self._log.is_file():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace").partition("\n")[2]

    def cancel(self, asked_by: str = "") -> bool:
        """Cancel the load under way; with `asked_by` only one that was asked for so."""
        if not self.busy or self._task is None or asked_by not in ("", self._asked_by):
            return False
        self._task.cancel()
        return True

    async def close(self) -> None:
        """End the load under way and every process; the models' runs have ended before."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for held in list(self._held.values()):
            await self.release(held)
        await asyncio.gather(*self._releases)

    async def load(self, file: ModelFile, *, loader: str, options: Mapping[str, Any] | None, is_patient: bool = False,
                   asked_by: str = "", adapters: Sequence[tuple[str, float]] = ()) -> Held:
        """Load in a task of its own, so that a caller who leaves does not cancel it; only `cancel` does."""
        if self._is_closing:
            raise Conflict(f"{file.name} is not loaded: the app is stopping.")
        if self.busy:
            raise Conflict(f"{self._watch.state.name} is being loaded; wait for it or cancel it first.")
        self._asked_by = asked_by
        self._task = asyncio.create_task(self._load(file, loader, options, is_patient, adapters), name=f"load {file.name}")
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():
                raise Cancelled(f"Loading {file.name} was cancelled.") from None
            raise

    async def release(self, held: Held) -> None:
        """End a model's process; safe to call twice."""
        held.retiring = True
        held.worker.on_death = None
        if self._held.get(held.name) is held:
            del self._held[held.name]
        await held.worker.close()
        await asyncio.to_thread(memory_use.give_back)

    async def _load(self, file: ModelFile, loader: str, options: Mapping[str, Any] | None, is_patient: bool,
                    adapters: Sequence[tuple[str, float]]) -> Held:
        self._watch.set(LoadState("loading", file.name, loader, 0.0, "Reading the file's headers"))
        try:
            spec = self._spec(file, loader)
            self._watch.set(LoadState("loading", file.name, spec.name, 0.0, "Looking at memory"))
            plan = await asyncio.to_thread(self._plan, file, spec, options)
            held = await self._exchange(replace(plan, is_patient=is_patient, adapters=adapters))
        except asyncio.CancelledError:
            self._watch.set(LoadState("cancelled", file.name, loader, 0.0, "Cancelled"))
            raise
        except AppError as error:
            self._watch.set(LoadState("failed", file.name, loader, 0.0, error.message, error))
            raise
        except Exception as error:
            failure = LoadFailed(f"Loading {file.name} failed unexpectedly: {error!r}. Please report this with the log.")
            self._watch.set(LoadState("failed", file.name, loader, 0.0, failure.message, failure))
            raise failure from error
        self._loaded(held)
        self._watch.set(LoadState("ready", file.name, spec.name, 1.0, "Ready"))
        return held

    def _spec(self, file: ModelFile, loader: str) -> LoaderSpec:
        if file.problem:
            raise LoadFailed(f"{file.name}: {file.problem}")
        if not loader:
            return registry.choose(file)
        spec = self._loaders.get(loader)
        if spec is None:
            raise LoadFailed(f"There is no loader {loader!r}; there are: {', '.join(sorted(self._loaders))}.", param="loader")
        missing = registry.missing(spec)
        if missing:
            raise LoadFailed(f"The loader {spec.name} needs {', '.join(missing)}, which is not installed. Run: {spec.install}")
        if spec.accepts(file) <= 0:
            raise LoadFailed(f"The loader {spec.name} cannot load {file.name}, which is {file.format}.", param="loader")
        return spec

    def _plan(self, file: ModelFile, spec: LoaderSpec, given: Mapping[str, Any] | None) -> _Plan:
        """Every option of the loader: as given, else what suits this machine, else the knob's default."""
        parsed, unknown = parse_values(spec.options, given or {})
        if unknown:
            raise LoadFailed(f"The loader {spec.name} has no option {', '.join(unknown)}; it has: {', '.join(spec.options)}.",
                             param="options")
        defaults = {name: knob.default for name, knob in spec.options.items()}
        fitted = memory.default_options(file, spec, memory.free_ram(), memory.free_vram())
        return _Plan(file, spec, parsed, {**defaults, **fitted, **parsed}, companions=self._companions(spec, parsed))

    def _companions(self, spec: LoaderSpec, options: Mapping[str, Any]) -> dict[str, ModelFile]:
        """The models that options name, by option; raises LoadFailed where there is none, or the loader cannot load it."""
        found = {}
        for name, knob in spec.options.items():
            if knob.kind != "model" or not options.get(name):
                continue
            try:
                file = self._find(options[name])
            except NotFound as error:
                raise LoadFailed(f"{name}: {error.message}", param=name) from error
            if file.problem or spec.accepts(file) <= 0:
                raise LoadFailed(f"{name}: {file.name} {file.problem or f'is {file.format}, which {spec.title} cannot load.'}",
                                 param=name)
            found[name] = file
        return found

    async def _exchange(self, plan: _Plan) -> Held:
        """Load the new model and let go of the one it replaces; before, where both fit in memory; else after, with a way back."""
        old = self.to_replace(plan.file.name)
        if old is None:
            return await self._start(plan)
        if await asyncio.to_thread(_fits, plan):
            new = await self._start(plan)
            self._retire_when_idle(old)
            return new
        was_held = not old.retiring  # else it was unloaded meanwhile
        if plan.is_patient:
            old.retiring = True
            if old.runs:
                self._watch.set(LoadState("loading", plan.file.name, plan.spec.name, 0.0, f"Waiting for replies of {old.name}"))
            try:
                await _ended(old)
            except asyncio.CancelledError:
                old.retiring = not was_held
                raise
        for run in list(old.runs.values()):
            run.cancel()
        await self.release(old)
        try:
            return await self._start(plan)
        except AppError as error:
            if was_held and not self._is_closing:
                await self._bring_back(old, instead_of=error)
            raise
        except asyncio.CancelledError:
            if was_held and not self._is_closing:
                await self._bring_back(old, instead_of=LoadFailed(f"Loading {plan.file.name} was cancelled."))
            raise

    async def _bring_back(self, old: Held, *, instead_of: AppError) -> None:
        """Load again what made room in vain; a cancel ends this too. Raises both reasons in one where it fails."""
        self._watch.set(LoadState("loading", old.name, old.spec.name, 0.0, f"Bringing back {old.name}"))
        try:
            await self._start(_Plan(old.file, old.spec, old.asked, old.options, companions=old.companions,
                                    adapters=[(one.name, one.weight) for one in old.adapters]))
        except AppError as error:
            words = f"{instead_of.message} {old.name} could not be brought back either: {error.message}"
            raise type(instead_of)(words, param=instead_of.param, log=instead_of.log or error.log) from error

    def to_replace(self, name: str) -> Held | None:
        """Who goes when a model of that name is loaded; None where there is room for one more."""
        if name in self._held:
            return self._held[name]
        if len(self._held) < self._max_models:
            return None
        return min(self._held.values(), key=lambda held: held.used_at)

    async def _start(self, plan: _Plan) -> Held:
        file, spec = plan.file, plan.spec

        def progress(fraction: float, what: str) -> None:
            self._watch.set(LoadState("loading", file.name, spec.name, fraction, what))

        self._log = log = self._log_dir / (re.sub(r"[^A-Za-z0-9._-]+", "-", file.name)[-80:] + ".log")
        options = {**plan.options, **{name: other.path for name, other in plan.companions.items()}}
        worker = await WorkerClient.start(loader=spec.name, path=file.path, options=options, log_path=log, on_progress=progress)
        facts = worker.facts
        held = Held(file, spec, plan.asked, plan.options, worker,
                    detect_marks(facts.chat_template, tuple(facts.special_tokens.values())),
                    forecast_bytes=plan.bytes_needed, companions=plan.companions)
        worker.on_death = lambda error: self._lost(held, error)
        if not worker.alive:  # it died between its last word and here; nobody would hear of it any more
            raise LoadFailed(f"The process of {file.name} ended as soon as it was loaded; see the log.", log=worker.log_tail())
        self._held[file.name] = held
        if plan.adapters:
            progress(1.0, "Attaching adapters")
            await self._attach(held, plan.adapters)
        return held

    async def _attach(self, held: Held, adapters: Sequence[tuple[str, float]]) -> None:
        """Put on what was saved with a model that was just loaded; where that cannot be, it is used without, and says so."""
        try:
            await begin(held, self._adapters, adapters, self._watch)
        except AppError as error:
            held.adapters_problem = f"{held.name} is loaded without the adapters that it had. {error.message}"
            logger.warning("%s", held.adapters_problem)
        except asyncio.CancelledError:
            await self.release(held)
            raise

    def _retire_when_idle(self, old: Held) -> None:
        """Let running replies end first; no new one starts on it."""
        old.retiring = True
        if self._held.get(old.name) is old:
            del self._held[old.name]

        async def wait_and_release() -> None:
            await _ended(old)
            await self.release(old)

        task = asyncio.create_task(wait_and_release(), name=f"retire {old.name}")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)


async def _ended(held: Held) -> None:
    """Wait for the end of the model's runs; `retiring` lets no new one begin."""
    for run in list(held.runs.values()):
        async for _ in run.follow(len(run.events)):
            pass


def _fits(plan: _Plan) -> bool:
    """Whether the model fits beside what is loaded now, with a tenth to spare."""
    needed = plan.bytes_needed * 1.1
    return needed <= memory.free_ram() and (not memory.free_vram() or needed <= memory.free_vram())
