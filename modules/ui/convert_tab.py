"""The Convert tab: make a smaller model from one of the list, with its size told before, progress, log and cancel."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..conversions import ConversionState, Plan
from ..core.errors import AppError
from ..core.loader import ModelFile
from ..models import explain
from .page_frame import Page

SLOTS = 4        # conversions that are shown; the rest is counted
LOG_SHOWN = 40   # lines
NOTHING = "Nothing has been converted yet."
EMPTY = ("There is no model here that could be converted. Get a folder with safetensors, or a GGUF file of F32, F16, BF16 or "
         "Q8_0, in the Download tab.")
HELP = ("Fewer bits a weight make a smaller and mostly faster model that answers a little worse. **Q4_K_M** is what most people "
        "take; **Q8_0** loses practically nothing; **Q2_K** is for what would not fit otherwise. GGUF files run with llama.cpp, "
        "NF4 and GPTQ folders with Transformers. The model that you start from stays as it is.")
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class _Slot:
    """The controls of one conversion on the list. `id` holds which one it shows, so that a click means what was seen."""

    def __init__(self, number: int) -> None:
        with gr.Group(visible=False) as self.group:
            self.id = gr.Textbox(visible=False)
            self.text = gr.Textbox(show_label=True, interactive=False, lines=2, max_lines=8, elem_id=f"conversion-{number}")
            self.bar = gr.HTML("", elem_id=f"conversion-bar-{number}")
            self.cancel = gr.Button("Cancel", size="sm", min_width=80, elem_id=f"conversion-cancel-{number}")

    @property
    def outputs(self) -> list[Any]:
        return [self.group, self.id, self.text, self.bar, self.cancel]


class ConvertTab:
    """Built first, wired after all tabs are built. Models' names go into text boxes and choices only."""

    TITLE = "Convert"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._conversions = page.services.conversions

    def build(self) -> None:
        gr.Markdown(HELP)
        self._empty = gr.Textbox(EMPTY, show_label=False, interactive=False, visible=False, lines=2, elem_id="convert-empty")
        with gr.Row():
            self._source = gr.Dropdown(label="From", choices=[], value=None, interactive=True, scale=3, min_width=220,
                                       elem_id="convert-source")
            self._target = gr.Dropdown(label="To", choices=[], value=None, interactive=True, scale=3, min_width=220,
                                       elem_id="convert-target")
        self._name = gr.Textbox(label="Name of the result", max_length=120, max_lines=1, elem_id="convert-name")
        self._plan = gr.Textbox(label="What it takes", interactive=False, lines=1, max_lines=6, elem_id="convert-plan")
        self._start = gr.Button("Start", variant="primary", elem_id="convert-start")
        self._none = gr.Textbox(NOTHING, label="Conversions", interactive=False, lines=1, elem_id="conversions-none")
        self._slots = [_Slot(number) for number in range(SLOTS)]
        with gr.Accordion("Log of the latest", open=False):
            self._log = gr.Textbox(show_label=False, interactive=False, lines=6, max_lines=16, elem_id="convert-log")
        # Before anybody wires: each tab that brings models fills what all of them list.
        self._page.lists.append(([self._empty, self._source], self._listed))

    def build_side(self) -> None:
        """Not a control: its value changes with each conversion that ends, and with it the list of models on this page."""
        self._finished = gr.Textbox("0", visible="hidden", elem_id="conversions-finished")

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [self._empty, self._source, *self._chosen, *self._shows]

    @property
    def _chosen(self) -> list[Any]:
        """What `_choose` fills, in order."""
        return [self._target, self._name, self._plan, self._start]

    async def state(self, _: str = "") -> list[Any]:
        files = await self._conversions.sources()
        first = _first(files)
        return [gr.update(visible=not files), gr.update(choices=_labels(files), value=first), *await self._choose(first),
                *await self._now()]

    def wire(self) -> None:
        asked = [self._source, self._target]
        self._source.input(self._choose, [self._source], self._chosen, **QUIET)
        self._target.input(self._retarget, asked, [self._name, self._plan, self._start], **QUIET)
        for event in (self._name.blur, self._name.submit):
            event(self._rename, [*asked, self._name], [self._plan, self._start], **QUIET)
        self._start.click(self._run_start, [*asked, self._name], [*self._shows, self._plan, self._start], **QUIET)
        for slot in self._slots:
            slot.cancel.click(self._cancel, [slot.id], self._shows, **QUIET)
        self._page.follows.append((self._shows, self._now))
        self._page.progress.append((self._shows, self._now))
        self._finished.change(self._rename, [*asked, self._name], [self._plan, self._start], **QUIET)
        self._finished.change(self._models, None, [output for filled, _ in self._page.lists for output in filled], **QUIET)

    # Choosing

    async def _choose(self, source: str | None) -> list[Any]:
        """What the source can become, and what the usual choice takes."""
        if not source:
            return [gr.update(choices=[], value=None), "", "Choose a model first.", gr.update(interactive=False)]
        try:
            choices = await self._conversions.choices(source)
        except AppError as error:
            return [gr.update(choices=[], value=None), "", error.message, gr.update(interactive=False)]
        first = choices[0][1] if choices else None
        return [gr.update(choices=choices, value=first), *await self._retarget(source, first)]

    async def _retarget(self, source: str | None, target: str | None) -> list[Any]:
        if not source or not target:
            return ["", "Choose a model and a type first.", gr.update(interactive=False)]
        plan = await self._conversions.plan(source, target)
        return [plan.name, *_plan_values(plan)]

    async def _rename(self, source: str | None, target: str | None, name: str) -> list[Any]:
        if not source or not target:
            return [gr.skip(), gr.skip()]
        return _plan_values(await self._conversions.plan(source, target, name))

    async def _listed(self, _: str = "") -> list[Any]:
        """The models read anew; what is chosen stays."""
        files = await self._conversions.sources()
        return [gr.update(visible=not files), gr.update(choices=_labels(files))]

    # Conversions

    @property
    def _shows(self) -> list[Any]:
        """What `_now` fills, in order."""
        return [self._none, self._finished, self._log, *(output for slot in self._slots for output in slot.outputs)]

    async def _now(self, _: str = "") -> list[Any]:
        """Every conversion as it stands."""
        states = self._conversions.list()
        more = len(states) - SLOTS
        line = f"{more} more are on the list; they are shown when others are taken off it." if more > 0 else NOTHING
        slots = [value for number in range(SLOTS) for value in _slot_values(states[number] if number < len(states) else None)]
        log = "\n".join(states[0].log[-LOG_SHOWN:]) if states else ""
        return [gr.update(visible=not states or more > 0, value=line), str(self._conversions.finished), log, *slots]

    async def _run_start(self, source: str | None, target: str | None, name: str) -> list[Any]:
        if not source or not target:
            raise gr.Error("Choose a model and a type first.", print_exception=False)
        try:
            await self._conversions.start(source, target, name)
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return [*await self._now(), "Under way; see below.", gr.update(interactive=True)]

    async def _cancel(self, id: str) -> list[Any]:
        try:
            await self._conversions.cancel(id)
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return await self._now()

    async def _models(self) -> list[Any]:
        """The lists of models, read anew."""
        return [value for _, make in self._page.lists for value in await make("")]


def _first(files: list[ModelFile]) -> str | None:
    """The largest kind of what there is: it makes the best results."""
    best = sorted(files, key=lambda file: file.format != "safetensors")
    return best[0].name if best else None


def _labels(files: list[ModelFile]) -> list[tuple[str, str]]:
    return [(f"{file.name} ({file.quantization}, {explain.size_words(file.size_bytes)})", file.name) for file in files]


def _plan_values(plan: Plan) -> list[Any]:
    if not plan.size:
        return [plan.problem, gr.update(interactive=False)]
    meanwhile = f", and {explain.size_words(plan.scratch)} more while it is made" if plan.scratch else ""
    memory = f" It takes up to {explain.size_words(plan.memory)} of memory." if plan.memory else ""
    words = f"About {explain.size_words(plan.size)}{meanwhile}; {explain.size_words(plan.free)} are free in {plan.place}.{memory}"
    return [f"{words}\n{plan.problem}".strip(), gr.update(interactive=not plan.problem)]


def _slot_values(state: ConversionState | None) -> list[Any]:
    if state is None:
        return [gr.update(visible=False), "", *[gr.skip()] * 3]
    percent = round(100 * state.fraction)
    is_active = state.status in ("waiting", "running")
    counted = f": {state.done} of {state.total} {state.unit}" if state.total and is_active else ""
    head = state.status.capitalize()
    # Numbers of ours alone: a model's name never reaches HTML.
    bar = f'<progress class="download-bar" max="100" value="{percent}" aria-label="{percent} percent converted"></progress>'
    return [gr.update(visible=True), state.id, gr.update(label=state.title, value=f"{head}\n{state.what}{counted}"),
            gr.update(visible=is_active, value=bar), gr.update(value="Cancel" if is_active else "Remove from the list")]
