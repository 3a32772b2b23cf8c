"""The Model tab: what lies in the model folders, the loader's options, load with progress and cancel, unload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from .. import registry
from ..core.errors import AppError, Cancelled
from ..core.knobs import Knob
from ..core.loader import LoaderSpec, ModelFile
from ..engine import Held
from ..models import explain, memory
from ..saved_options import Saved
from .adapters_part import AdaptersPart
from .model_list import ModelList
from .page_frame import Page
from .scripted import edits
from .widgets import read, shown, widget

FIELDS = "option-"  # with the loader's and the option's name: its widget's element id
CHOSEN = "() => { document.dispatchEvent(new Event('modelchosen')); }"  # assets/model_watch.js listens


class ModelTab:
    """Built first, wired after all tabs are built. Model names are untrusted: they only go into text boxes and table cells."""

    TITLE = "Model"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._engine = page.services.engine
        self._list = ModelList()
        self._adapters = AdaptersPart(page)
        self._options: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, Any] = {}

    def build(self) -> None:
        with gr.Row():
            self._status = gr.Textbox(label="Loaded", interactive=False, lines=1, max_lines=3, scale=4,
                                      elem_id="model-status")
            self._unload = gr.Button("Unload", size="sm", scale=1, min_width=80, elem_id="model-unload")
        self._problem = gr.Textbox(label="Why GGUF models cannot be loaded", interactive=False, visible=False, lines=2,
                                   max_lines=8)
        self._list.build()
        with gr.Row():
            self._model = gr.Dropdown(label="Model", choices=[], interactive=True, scale=4, min_width=200,
                                      elem_id="model-choice")
            self._loader = gr.Dropdown(label="Loader", choices=[], interactive=True, scale=2, min_width=180,
                                       elem_id="model-loader")
            self._refresh = gr.Button("Refresh", size="sm", scale=1, min_width=80, elem_id="model-refresh")
        self._why = gr.Textbox(label="About this choice", interactive=False, lines=1, max_lines=8, visible=False,
                               elem_id="model-about")
        with gr.Accordion("Loader options", open=False):
            gr.Markdown("What you leave alone is fitted to this machine. What you set is used as it stands, also where that is "
                        "the value shown at first.")
            self._edits = edits(FIELDS)
            self._by_hand = gr.Dropdown(label="Set by hand", choices=[], value=[], multiselect=True, interactive=True,
                                        info="Taken out of here, an option is left to the machine again.", elem_id="by-hand")
            self._kept = gr.Textbox(label="Saved for this model", interactive=False, visible=False, lines=1, max_lines=6,
                                    elem_id="options-kept")
            self._forget = gr.Button("Forget saved options", size="sm", visible=False, elem_id="options-forget")
            for name, spec in self._engine.loaders.items():
                with gr.Group(visible=False) as group:
                    self._options[name] = {option: widget(knob, elem_id=f"{FIELDS}{name}-{option}")
                                           for option, knob in spec.options.items()}
                    if not spec.options:
                        gr.Textbox("This loader has no options.", show_label=False, interactive=False)
                self._groups[name] = group
        with gr.Row():
            self._load = gr.Button("Load", variant="primary", elem_id="model-load")
            self._cancel = gr.Button("Cancel", interactive=False, elem_id="model-cancel")
        self._progress = gr.Slider(0, 100, value=0, label="Progress (%)", interactive=False, visible=False,
                                   elem_id="model-progress")
        self._what = gr.Textbox(label="Loading", interactive=False, visible=False, lines=1, max_lines=3, elem_id="model-what")
        self._log = gr.Textbox(label="Log", interactive=False, visible=False, lines=4, max_lines=12)
        self._adapters.build()

    def build_side(self) -> None:
        """Nothing: the loader's options stand in the tab."""

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [*self._shows, self._problem, *self._list.outputs, self._model, *self._chosen, *self._adapters.outputs]

    @property
    def _chosen(self) -> list[Any]:
        """What `_choice` and `_as_saved` fill together, in order."""
        return [self._loader, self._why, *self._groups.values(), *self._saved_shows]

    @property
    def _saved_shows(self) -> list[Any]:
        return [self._kept, self._forget, self._by_hand, *self._fields().values()]

    async def state(self, _: str = "") -> list[Any]:
        """The list of models and what is loaded, read now."""
        files = await self._engine.files()
        report = await self._page.services.failed_build()
        names = [file.name for file in files if not file.problem]
        last = self._engine.watch.state.name
        chosen = self._engine.models[0].name if self._engine.models else last if last in names else next(iter(names), None)
        problem = f"{report.get('reason', '')}\nTo try again: {report.get('command', '')}" if report else ""
        return [*await self._now(), gr.update(visible=bool(report), value=problem), *await self._list.fresh(files),
                gr.update(choices=[file.name for file in files], value=chosen),
                *await self._choice(chosen, ""), *await self._as_saved(chosen), *await self._adapters.fresh(chosen)]

    def wire(self) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        widgets = [w for group in self._options.values() for w in group.values()]
        session = self._page.session
        by_name = self._model.input(self._choose, [session, self._model], self._chosen, **quiet)
        self._loader.input(self._choice, [self._model, self._loader], [self._loader, self._why, *self._groups.values()], **quiet)
        self._forget.click(self._run_forget, [self._model], self._saved_shows, **quiet)
        self._refresh.click(self.state, None, self.outputs, **quiet)
        by_row = self._list.table.select(self._pick, [session], [self._model, *self._chosen], **quiet)
        for chosen in (by_name, by_row):
            chosen.then(None, None, None, js=CHOSEN)
            chosen.then(self._adapters.fresh, [self._model], self._adapters.outputs, **quiet)
        for change in (self._list.filter.change, self._list.format.input, self._list.order.input):
            change(self._filtered, self._list.asked, [self._list.table, self._list.nothing], trigger_mode="always_last", **quiet)
        self._edits.typed(self._set_by_hand, [self._by_hand], [self._by_hand], trigger_mode="multiple", **quiet)
        for field, chosen in self._fields().items():
            if isinstance(chosen, gr.Dropdown):  # no field of the browser's own
                chosen.input(partial(self._with_field, field), [self._by_hand], [self._by_hand], **quiet)
        self._by_hand.input(self._leave, [self._by_hand], list(self._fields().values()), **quiet)
        inputs = {session, self._by_hand, self._model, self._loader, *widgets}
        loaded = self._load.click(self._run_load, inputs, [self._kept, self._forget], concurrency_limit=None,
                                  trigger_mode="multiple", **quiet)
        loaded.then(None, None, None, js=CHOSEN)
        loaded.then(self._adapters.fresh, [self._model], self._adapters.outputs, **quiet)
        self._adapters.wire(self._model)
        self._cancel.click(self._cancel_load, None, None, queue=False, **quiet)
        self._unload.click(self._run_unload, None, None, **quiet)
        self._page.follows.append((self._shows, self._now))
        naming = [self._fields()[field] for field in self._choices_of([])]
        self._page.lists.append(([*self._list.outputs, self._model, *naming], self._listed))
        self._page.lists.append((self._adapters.listed, self._adapters.found))
        self._page.progress.append((self._shows, self._now))

    async def _pick(self, session: str, event: gr.SelectData) -> list[Any]:
        name = str(event.row_value[0])
        return [name, *await self._choose(session, name)]

    async def _choose(self, session: str, name: str | None) -> list[Any]:
        """A model that is loaded answers this tab from now on; another one does once it is loaded here."""
        if any(held.name == name for held in self._engine.models):
            await self._page.services.sessions.update(session, model=name)
        return [*await self._choice(name, ""), *await self._as_saved(name)]

    async def _as_saved(self, name: str | None) -> list[Any]:
        """Updates that show what is saved for the model: a line, the button to forget it, and the options themselves."""
        saved = await self._page.services.saved_options.get(name) if name else None
        values = {f"{saved.loader}: {option}": value for option, value in saved.options.items()} if saved else {}
        knobs, named = self._knobs(), self._choices_of(await self._engine.files())
        return [*self._kept_lines(saved), gr.update(choices=list(values), value=list(values)),
                *(gr.update(value=shown(knob, values.get(field, knob.default)), **named.get(field, {}))
                  for field, knob in knobs.items())]

    def _choices_of(self, files: list[ModelFile]) -> dict[str, dict[str, Any]]:
        """The choices of the options that name another model, by what stands in "Set by hand"."""
        return {f"{name}: {option}": {"choices": [("none", ""), *(file.name for file in files if spec.accepts(file) > 0)]}
                for name, spec in self._engine.loaders.items() for option, knob in spec.options.items() if knob.kind == "model"}

    def _kept_lines(self, saved: Saved | None) -> list[Any]:
        if saved is None:
            return [gr.update(visible=False, value=""), gr.update(visible=False)]
        told = [f"{option} {value}" for option, value in saved.options.items()] or ["nothing is set by hand"]
        lines = [f"{self._engine.loaders[saved.loader].title}: {', '.join(told)}.", *saved.dropped]
        return [gr.update(visible=True, value="\n".join(lines)), gr.update(visible=True)]

    async def _run_forget(self, name: str | None) -> list[Any]:
        if name:
            await self._page.services.saved_options.forget(name)
        return await self._as_saved(name)

    async def _choice(self, name: str | None, loader: str = "") -> list[Any]:
        """Updates of loader list, reason and option groups for a model; `loader` "" takes the one that suits it."""
        if not name:
            hidden = [gr.update(visible=False) for _ in self._groups]
            return [gr.update(choices=[], value=None), gr.update(visible=False), *hidden]
        files = await self._engine.files()
        file = next((file for file in files if file.name == name), None)
        if file is None:
            return [gr.update(), gr.update(visible=True, value="This model is no longer there; press Refresh."),
                    *(gr.update() for _ in self._groups)]
        saved = await self._page.services.saved_options.get(name)
        fitting = [spec.name for spec in self._engine.loaders.values() if spec.accepts(file) > 0]
        why = _why(file, self._engine.loaders[loader]) if loader else file.problem
        if not loader and saved is not None and saved.loader in fitting:
            loader = saved.loader
            why = _why(file, self._engine.loaders[loader])
        elif not loader and not file.problem:
            try:
                loader = registry.choose(file).name
            except AppError as error:
                why = error.message
        why = why or await asyncio.to_thread(_about, file, files, self._engine.loaders[loader])
        why = "\n".join(part for part in (why, _other_loaders(file, list(self._engine.loaders.values()), loader)) if part)
        visible = [gr.update(visible=name == loader) for name in self._groups]
        return [gr.update(choices=fitting, value=loader or None), gr.update(visible=bool(why), value=why), *visible]

    async def _run_load(self, values: Mapping[Any, Any]) -> list[Any]:
        """Load and keep how, or say what came in the way. How it goes is shown by what follows the models, in every tab."""
        name, loader = values[self._model], values[self._loader] or ""
        if not name:
            raise gr.Error("Choose a model first.")
        try:
            options = self._read_options(loader, values)
            held = await self._engine.load(name, loader=loader, options=options, with_adapters=True)
            await self._keep(held, options)
            if held.adapters_problem:
                gr.Warning(held.adapters_problem)
            await self._page.services.sessions.update(values[self._page.session], model=held.name)
        except Cancelled:
            gr.Info("Loading was cancelled.")
        except AppError as error:
            gr.Warning(error.message)
        return self._kept_lines(await self._page.services.saved_options.get(name))

    async def _keep(self, held: Held, options: dict[str, Any]) -> None:
        """Remember how the model was loaded, where that is not what everybody gets."""
        if options or held.spec.name != registry.choose(held.file).name:
            await self._page.services.saved_options.save(held.name, held.spec.name, options)
        else:
            await self._page.services.saved_options.forget(held.name)

    def _knobs(self) -> dict[str, Knob]:
        """The options by what stands in "Set by hand"."""
        return {f"{name}: {option}": knob for name, spec in self._engine.loaders.items() for option, knob in spec.options.items()}

    def _fields(self) -> dict[str, Any]:
        """The options' widgets by what stands in "Set by hand"."""
        return {f"{name}: {option}": field for name, group in self._options.items() for option, field in group.items()}

    async def _set_by_hand(self, chosen: list[str], event: gr.EventData) -> Any:
        names = {field.elem_id: name for name, field in self._fields().items()}
        return self._with_field(names[event._data["field"]], chosen)

    def _with_field(self, field: str, chosen: list[str]) -> Any:
        names = list(dict.fromkeys([*chosen, field]))
        return gr.update(choices=names, value=names)

    def _leave(self, chosen: list[str]) -> list[Any]:
        """What is not set by hand shows its default again."""
        return [gr.skip() if field in chosen else gr.update(value=shown(knob, knob.default))
                for field, knob in self._knobs().items()]

    def _read_options(self, loader: str, values: Mapping[Any, Any]) -> dict[str, Any]:
        """The options that were set by hand, also to their default: what is left alone is fitted to this machine."""
        spec = self._engine.loaders.get(loader)
        if spec is None:
            return {}
        read_values = {name: read(knob, values[self._options[loader][name]]) for name, knob in spec.options.items()}
        return {name: value for name, value in read_values.items()
                if value != spec.options[name].default or f"{loader}: {name}" in values[self._by_hand]}

    @property
    def _shows(self) -> list[Any]:
        """What `_now` fills, in order."""
        return [self._status, self._progress, self._what, self._log, self._load, self._cancel]

    async def _now(self, _: str = "") -> list[Any]:
        """What is loaded, how far a load is, or why the last one failed."""
        state = self._engine.watch.state
        loading = state.status == "loading"
        error = state.error.message if state.error else ""
        log = await self._engine.load_log() if loading or error else ""
        return [await self._status_text(), gr.update(visible=loading, value=round(100 * state.fraction)),
                gr.update(visible=loading or bool(error), value=error or f"{state.name}: {state.what}",
                          label="Why it failed" if error else "Loading"),
                gr.update(visible=bool(log), value=log), gr.update(interactive=not loading), gr.update(interactive=loading)]

    async def _listed(self, _: str = "") -> list[Any]:
        """The list read anew; what is chosen in it stays."""
        files = await self._engine.files()
        return [*await self._list.fresh(files), gr.update(choices=[file.name for file in files]),
                *(gr.update(**choices) for choices in self._choices_of(files).values())]

    async def _filtered(self, text: str, format: str, order: str) -> list[Any]:
        return await self._list.shown(await self._engine.files(), text, format, order)

    async def _cancel_load(self) -> None:
        if not self._engine.cancel_load():
            gr.Info("Nothing is being loaded.")

    async def _run_unload(self) -> None:
        try:
            resting = self._engine.resting if not self._engine.models else []
            await self._engine.unload(resting[0] if resting else self._engine.held().name)
        except AppError as error:
            gr.Warning(error.message)

    async def _status_text(self) -> str:
        lines = []
        for held in self._engine.models:
            parts = [held.name, held.spec.title, f"context {held.facts.context}", held.facts.device]
            if taken := await held.measured():
                parts.append(f"takes {explain.size_words(taken)}, forecast {explain.size_words(held.forecast_bytes)}")
            elif held.facts.memory_bytes:
                parts.append(explain.size_words(held.facts.memory_bytes))
            lines.append(" · ".join(parts))
        lines += [f"{name} was idle and is unloaded; the next message loads it again." for name in self._engine.resting]
        state = self._engine.watch.state
        none = f"{state.name} is being loaded." if state.status == "loading" else "No model is loaded."
        return "\n".join(lines) or none


def _why(file: ModelFile, spec: LoaderSpec) -> str:
    """Why a loader cannot take the file, or empty where it can."""
    if file.problem:
        return file.problem
    missing = registry.missing(spec)
    if missing:
        return f"{spec.title} needs {', '.join(missing)}, which is not installed. Run: {spec.install}"
    return "" if spec.accepts(file) > 0 else f"{spec.title} does not load {file.format} files."


def _other_loaders(file: ModelFile, specs: list[LoaderSpec], chosen: str) -> str:
    """Which other loaders take the file, and why the rest does not."""
    if file.problem:
        return ""
    others = [spec for spec in specs if spec.name != chosen]
    lacking = [_why(file, spec) for spec in others if spec.accepts(file) > 0 and registry.missing(spec)]
    suited = [spec.title for spec in others if spec.accepts(file) > 0 and not registry.missing(spec)]
    unsuited = [spec.title for spec in others if spec.accepts(file) <= 0]
    parts = [f"Also: {', '.join(suited)}." if suited else "", *lacking,
             f"Not for {file.format} files: {', '.join(unsuited)}." if unsuited else ""]
    return " ".join(part for part in parts if part)


def _about(file: ModelFile, files: list[ModelFile], loader: LoaderSpec) -> str:
    """What the file is, what loading it takes, which of its variants fits; reads the free memory, so it belongs in a thread."""
    specs = {file.name: loader}
    for other in explain.variants(file, files):
        try:
            specs.setdefault(other.name, registry.choose(other))
        except AppError:
            continue  # its loader is not installed: not one to choose among
    advice = explain.advice(file, files, specs, memory.free_ram(), memory.free_vram())
    return " ".join(part for part in (explain.introduction(file), explain.sentence(file), advice) if part)
