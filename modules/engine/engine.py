"""Models by name and runs by id: load, unload, swap, start, stop, follow."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.adapters import AdapterFile
from ..core.errors import BadRequest, Busy, Cancelled, Conflict, NoModel, NotFound, WorkerDied
from ..core.events import Event, Finished, Request, Timings, Usage
from ..core.loader import LoaderSpec, ModelFile, Token
from ..core.params import GenerationParams
from ..models.adapters import AdapterCatalog
from ..models.catalog import Catalog
from ..saved_options import SavedOptions
from ..text.template import TemplateRenderer
from .adapters import attach
from .driving import drive, telling_of_load, to_its_end
from .loading import Loading
from .models import Held, LoadWatch
from .prompt import Prompt, PromptBuilder
from .resting import Resting
from .run import Run
from .scoring import score_tokens

KEPT_SECONDS = 60.0  # an ended run can be followed this long, for pages that reconnect


class Engine:
    """Owns the models and the runs. Everything here happens on one event loop; nothing needs a lock.

    `loaders` are the specs by name; `log_dir` holds one log a worker; at most `max_models` are held at a time and at most
    `max_queue` runs wait for one. With `autoload`, `ready` loads a model that is asked for by name. A model that was idle for
    `idle_unload` minutes is unloaded, and loaded again by `awake` as it was; 0: never. `adapters` is where LoRA adapters are
    found; without it there are none.
    """

    def __init__(self, catalog: Catalog, loaders: Mapping[str, LoaderSpec], *, log_dir: Path, max_models: int = 1,
                 max_queue: int = 64, autoload: bool = False, idle_unload: float = 0.0,
                 adapters: AdapterCatalog | None = None) -> None:
        self.catalog = catalog
        self.adapters = adapters or AdapterCatalog([])
        self.autoload = autoload
        self.loaders = dict(loaders)
        self.watch = LoadWatch()
        self.on_loaded: Callable[[Held], None] | None = None
        self.saved_options: SavedOptions | None = None
        self._max_queue = max_queue
        self._renderer = TemplateRenderer()
        self._held: dict[str, Held] = {}
        self._runs: dict[str, Run] = {}
        self._writers: dict[str, Held] = {}  # who writes a live run
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading = Loading(self._held, self.watch, self.loaders, find=lambda name: self.catalog.find(name), log_dir=log_dir,
                                max_models=max_models, loaded=self._loaded, lost=self._lost, adapters=self.adapters)
        self._max_models = max_models
        self._resting = Resting(self._held, self._let_rest, seconds=60 * idle_unload)

    # Models

    @property
    def models(self) -> list[Held]:
        """The loaded models, the one used last first."""
        return sorted((held for held in self._held.values() if not held.retiring), key=lambda held: -held.used_at)

    async def files(self) -> list[ModelFile]:
        """What lies in the model folders."""
        return await asyncio.to_thread(self.catalog.list)

    async def load(self, name: str, *, loader: str = "", options: Mapping[str, Any] | None = None,
                   is_patient: bool = False, asked_by: str = "", with_adapters: bool = False) -> Held:
        """Load a model by its catalog name or path; progress is told by `watch`. is_patient: a model that has to make room in
        memory first ends its replies instead of dropping them. asked_by: whatever `cancel_load` may name it by.

        Where no options are given, not even none, a resting model is loaded as it was, another with those that `saved_options`
        has for it, and without a loader theirs. with_adapters: those that are saved for the model are attached before anybody
        uses it, as they are where no options are given; Held.adapters_problem says why that could not be.

        Raises NotFound, LoadFailed, OutOfMemory, WorkerDied, Conflict while another load runs, Cancelled after `cancel_load`.
        """
        file = await asyncio.to_thread(self.catalog.find, name)
        rest, saved_options = self._resting.of(file.name), self.saved_options
        adapters: Sequence[tuple[str, float]] = ()
        if options is None and rest is not None and loader in ("", rest.loader):
            loader, options, adapters = rest.loader, rest.options, rest.adapters
        elif saved_options is not None:
            with_adapters = with_adapters or options is None
            saved = await saved_options.get(file.name) if options is None else None
            if saved is not None and loader in ("", saved.loader):
                loader, options = saved.loader, saved.options
            adapters = await saved_options.adapters(file.name) if with_adapters else ()
        return await self._loading.load(file, loader=loader, options=options, is_patient=is_patient, asked_by=asked_by,
                                        adapters=adapters)

    async def adapter_files(self) -> list[AdapterFile]:
        """The LoRA adapters in the adapter folders and the model folders."""
        return await asyncio.to_thread(self.adapters.list)

    async def set_adapters(self, adapters: Sequence[tuple[str, float]], *, model: str = "") -> Held:
        """Let exactly these (name, weight) be attached to a loaded model, "" the one used last; see adapters.attach."""
        held = self.held(model)
        await attach(held, self.adapters, adapters, self.watch)
        return held

    async def load_log(self) -> str:
        """The end of the log of the load under way, or of the last one."""
        return await asyncio.to_thread(self._loading.log_tail)

    def cancel_load(self, asked_by: str = "") -> bool:
        """Stop the load under way, or only one that was asked for so; False where there is none."""
        return self._loading.cancel(asked_by)

    def makes_room(self, name: str) -> Held | None:
        """The loaded model that goes when `name` is loaded; None where there is room for one more."""
        return self._loading.to_replace(name)

    async def unload(self, name: str) -> None:
        """Unload a model, which then does not come back by itself; its runs end as cancelled with the text they have."""
        if self._resting.of(name) is not None:
            self._resting.forget(name)
            self.watch.touch()
            return
        held = self.held(name)
        for run in list(held.runs.values()):
            run.cancel()
        await self._loading.release(held)
        self.watch.touch()

    def held(self, name: str = "") -> Held:
        """The loaded model of that name, or for "" the one used last; raises NoModel or NotFound."""
        models = self.models
        if not models:
            if self._loading.busy:
                raise NoModel(f"{self.watch.state.name} is still loading; try again when it is ready.")
            if self.resting:
                raise NoModel(f"{self.resting[0]} was idle and is unloaded; a message or a request for a reply loads it again.")
            raise NoModel("No model is loaded. Load one in the Model tab, or by POST /v1/internal/model/load.")
        if not name:
            return models[0]
        for held in models:
            if held.name == name:
                return held
        raise NotFound(f"The model {name!r} is not loaded; loaded: {', '.join(held.name for held in models)}.", param="model")

    @property
    def resting(self) -> list[str]:
        """The models that were unloaded because they were idle and that `awake` loads again, the newest first."""
        return self._resting.names

    async def awake(self, name: str = "") -> Held:
        """As `held`; a resting model of that name is loaded first, for "" the newest resting one where none is held.

        Raises what `load` raises, but waits for another load to end.
        """
        while True:
            if self._resting.of(name) is None or (not name and self.models):
                return self.held(name)
            try:
                await self.load(name or self.resting[0], is_patient=True)
            except Conflict:  # another load is under way, perhaps this very one, unless the app is stopping
                if not self._loading.busy:
                    raise
                await self._loading.settled()

    async def ready(self, name: str) -> Held:
        """As `awake`; with `autoload` a model of the catalog that is not loaded is loaded first.

        It waits for another load to end, and for the replies of a model whose place it has to take: nobody's reply is cut off by
        somebody else's request.
        """
        while True:
            if self._resting.of(name) is not None:
                return await self.awake(name)
            try:
                return self.held(name)
            except (NoModel, NotFound):
                if not (self.autoload and name):
                    raise
            file = await asyncio.to_thread(self.catalog.find, name)
            if file.name != name:
                raise NotFound(f"There is no model {name!r}; the model of that name is called {file.name}.", param="model")
            try:
                await self.load(name, is_patient=True)
            except Conflict:  # another load is under way, unless the app is stopping
                if not self._loading.busy:
                    raise
                await self._loading.settled()

    def answering(self, name: str) -> Held | None:
        """Who answers a person who chose `name`: that model while it is loaded, else the one used last; None where none is."""
        models = self.models
        return next((held for held in models if held.name == name), models[0] if models else None)

    async def close(self) -> None:
        """Stop all runs and end all processes."""
        for run in list(self._runs.values()):
            run.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._resting.close()
        await self._loading.close()
        await self._renderer.close()

    # Text and tokens

    async def tokenize(self, text: str, *, control: bool = False, model: str = "") -> list[int]:
        return (await (await self.awake(model)).worker.tokenize([(text, control)]))[0]

    async def detokenize(self, ids: Sequence[int], *, model: str = "") -> str:
        """The text of these ids; incomplete characters at the cut become U+FFFD."""
        held = await self.awake(model)
        bad = next((i for i in ids if not 0 <= i < held.facts.vocab_size), None)
        if bad is not None:
            raise BadRequest(f"Token id {bad} is outside the vocabulary (0 to {held.facts.vocab_size - 1}).", param="tokens")
        return (await held.worker.detokenize(list(ids))).decode("utf-8", "replace")

    async def prompt(self, request: Request) -> Prompt:
        """The prompt this request would be given, without running it."""
        return await PromptBuilder(self._renderer, self.held(request.model).worker).build(request)

    async def score(self, request: Request, *, top: int) -> list[Token]:
        """The tokens of this request's prompt with their log-probabilities; a BOS that we put before it has no text."""
        held = self.held(request.model)
        prompt = await PromptBuilder(self._renderer, held.worker).build(request)
        tokens = await score_tokens(held.worker, prompt.ids, top=top)
        if not request.prompt_ids and prompt.ids[0] == held.facts.bos_id and not request.text.startswith(tokens[0].text):
            tokens[0] = replace(tokens[0], text="")
        return tokens

    # Runs

    @property
    def live_runs(self) -> list[Run]:
        return [run for run in self._runs.values() if not run.done]

    def run(self, id: str) -> Run:
        """A live run, or one that ended within the last minute; raises NotFound."""
        found = self._runs.get(id)
        if found is None:
            raise NotFound(f"The run {id!r} is over or unknown.")
        return found

    def start(self, request: Request, *, listener: Callable[[Run, Sequence[Event]], None] | None = None, run_id: str = "") -> Run:
        """Begin a run and return at once; what goes wrong later is its Failed event.

        Raises NoModel, NotFound, or Busy where the queue is full, before anything is begun. Without a seed one is drawn, so that
        every reply can be repeated.
        """
        held, request = self._admitted(request)
        run = Run(run_id or secrets.token_hex(12), request, model=held.name, loader=held.spec.name,
                  quantization=held.quantization, listener=listener)
        self._give(run, held)
        return self._see(run, lambda: drive(run, held, self._renderer))

    def start_for(self, chosen: str, make: Callable[[], Request], *,
                  listener: Callable[[Run, Sequence[Event]], None] | None = None, run_id: str = "") -> Run:
        """As `start`, for a person who chose the model `chosen`, "" for none. Where the one that is to answer rests, the run
        tells by Loading how it comes back. make: called once that model is there; what then goes wrong is a Failed event."""
        rest = self._resting.of(chosen) if chosen or not self.models else None
        if rest is None and not self.models:
            rest = self._resting.of("")
        if rest is None:
            return self.start(make(), listener=listener, run_id=run_id)
        run = Run(run_id or secrets.token_hex(12), Request(GenerationParams()), model=rest.name, loader=rest.loader,
                  listener=listener)
        self._runs[run.id] = run
        return self._see(run, lambda: self._rouse(run, rest.name, make))

    def _admitted(self, request: Request) -> tuple[Held, Request]:
        """Who answers, and the request with a seed; raises as `start`."""
        held = self.held(request.model)
        n_live = sum(not run.done for run in held.runs.values())
        if n_live >= held.facts.slots + self._max_queue:
            raise Busy(f"{n_live} replies are running or waiting for {held.name}; try again in a moment.")
        if request.params.seed < 0:
            request = replace(request, params=replace(request.params, seed=secrets.randbelow(2**32 - 1)))
        return held, request

    def _give(self, run: Run, held: Held) -> None:
        held.used_at = asyncio.get_running_loop().time()
        self._runs[run.id] = held.runs[run.id] = run
        self._writers[run.id] = held

    def _see(self, run: Run, work: Callable[[], Awaitable[None]]) -> Run:
        task = asyncio.create_task(to_its_end(run, work), name=f"run {run.id}")
        run.on_cancel = task.cancel
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(run, task))
        return run

    async def _rouse(self, run: Run, name: str, make: Callable[[], Request]) -> None:
        async with telling_of_load(run, name, self.watch):
            await self.awake(name)
        held, run.request = self._admitted(make())
        self._give(run, held)
        await drive(run, held, self._renderer)

    async def read(self, request: Request) -> Run:
        """A run that has ended: it only read its prompt, and wrote nothing. Raises what building the prompt raises."""
        held = self.held(request.model)
        prompt = await PromptBuilder(self._renderer, held.worker).build(request)
        run = Run(secrets.token_hex(12), request, model=held.name, loader=held.spec.name, quantization=held.quantization)
        run.publish([held.started(run, prompt, 0),
                     Finished("length", Usage(len(prompt.ids), 0, 0), Timings(0.0, 0.0, 0.0))])
        return run

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        """The run's task is over, perhaps cancelled before its first step: the run has an end in any case."""
        self._tasks.discard(task)
        run.fail(Cancelled("Stopped before the reply began."))
        run.lag(False)
        run.let_go()
        loop = asyncio.get_running_loop()
        held = self._writers.pop(run.id, None)
        if held is not None:
            held.runs.pop(run.id, None)
            held.used_at = loop.time()
        loop.call_later(KEPT_SECONDS, self._runs.pop, run.id, None)

    async def _let_rest(self, held: Held) -> None:
        await self._loading.release(held)
        self.watch.touch()

    def _loaded(self, held: Held) -> None:
        """A load has come to its end, perhaps after everybody who asked for it had left."""
        for resting in [held.name, *self._resting.names[self._max_models - len(self._held):]]:
            self._resting.forget(resting)
        self._resting.watch()
        if self.on_loaded is not None:
            self.on_loaded(held)

    def _lost(self, held: Held, error: WorkerDied) -> None:
        """A worker died: its runs are told by their sinks; the model is no longer held."""
        if self._held.get(held.name) is held:  # else it was on its way out, and another may have its name
            del self._held[held.name]
            self.watch.touch()
        for run in list(held.runs.values()):
            run.fail(error)
