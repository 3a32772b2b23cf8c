"""The Convert tab: a model's whole weights written as GGUF of any type, with what the type costs and saves."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import gradio as gr

from ..conversions import Target, convertible, targets, usual_name, why_not
from ..core.errors import AppError
from ..core.loader import ModelFile
from ..jobs import JobState
from ..models import explain
from ..models.architectures import ARCHITECTURES
from ..models.save_nf4 import KIND as NF4
from .page_frame import Page

SLOTS = 4  # conversions that are shown
DEFAULT = "Q4_K_M"
WHAT = ("Takes a model whose weights are whole (a folder of safetensors in F32, BF16 or F16, or such a GGUF file) and "
        "writes it as GGUF, which llama.cpp loads, or in 4-bit for Transformers: smaller types need less memory, are "
        "faster, and lose some of what the model knows. The model itself stays as it is. GPTQ files are not made here "
        "yet.")
KNOWN = ", ".join(sorted({name.partition("For")[0] for name in ARCHITECTURES}))
NOTHING = ("No model here can be converted: that takes one with whole weights. The Download tab finds them under the format "
           f"safetensors; known are {KNOWN}.")
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class _Slot:
    """One conversion. `id` holds which one it shows, so that a click means what was seen."""

    def __init__(self, number: int) -> None:
        with gr.Group(visible=False) as self.group:
            self.id = gr.Textbox(visible=False)
            self.text = gr.Textbox(show_label=True, interactive=False, lines=1, max_lines=12, elem_id=f"conversion-{number}")
            self.bar = gr.HTML("", elem_id=f"conversion-bar-{number}")
            self.cancel = gr.Button("Cancel", size="sm", min_width=80, elem_id=f"conversion-cancel-{number}")

    @property
    def outputs(self) -> list[Any]:
        return [self.group, self.id, self.text, self.bar, self.cancel]


class ConvertTab:
    """Built first, wired after all tabs are built. Model names are untrusted: they only go into text boxes and choices."""

    TITLE = "Convert"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._conversions = page.services.conversions
        self._engine = page.services.engine

    def build(self) -> None:
        gr.Markdown(WHAT)
        self._none = gr.Textbox(NOTHING, show_label=False, interactive=False, visible=False, lines=2, elem_id="convert-none")
        with gr.Row():
            self._model = gr.Dropdown(label="Model", choices=[], interactive=True, scale=3, min_width=220,
                                      elem_id="convert-model")
            self._kind = gr.Dropdown(label="Type", choices=[], interactive=True, scale=5, min_width=220, elem_id="convert-kind")
            self._name = gr.Textbox(label="Name of the new file", max_length=130, scale=3, min_width=220, elem_id="convert-name")
        self._about = gr.Textbox(show_label=False, interactive=False, lines=1, max_lines=4, elem_id="convert-about")
        self._start = gr.Button("Convert", variant="primary", elem_id="convert-start")
        self._slots = [_Slot(number) for number in range(SLOTS)]

    def build_side(self) -> None:
        """Not a control: its value changes with each conversion that ends, and with it the lists of models on this page."""
        self._finished = gr.Textbox("0", visible="hidden", elem_id="conversions-finished")

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [*self._choices, *self._shows]

    @property
    def _choices(self) -> list[Any]:
        return [self._none, self._model, self._start, *self._details]

    @property
    def _details(self) -> list[Any]:
        """What follows from the chosen model."""
        return [self._kind, self._name, self._about]

    @property
    def _shows(self) -> list[Any]:
        """What `_now` fills, in order."""
        return [self._finished, *(output for slot in self._slots for output in slot.outputs)]

    async def state(self, _: str = "") -> list[Any]:
        return [*await self._listed(), *await self._now()]

    def wire(self) -> None:
        self._model.input(self._detail, [self._model], self._details, **QUIET)
        self._kind.input(self._kind_chosen, [self._model, self._kind], [self._name, self._about], **QUIET)
        self._start.click(self._begin, [self._model, self._kind, self._name], self._shows, **QUIET)
        for slot in self._slots:
            slot.cancel.click(self._cancel, [slot.id], self._shows, **QUIET)
        self._page.follows.append((self._shows, self._now))
        self._page.progress.append((self._shows, self._now))
        self._page.lists.append((self._choices, self._listed))
        lists = list(self._page.lists)

        async def read_anew() -> list[Any]:
            return [value for _, make in lists for value in await make("")]

        self._finished.change(read_anew, None, [output for outputs, _ in lists for output in outputs], **QUIET)

    async def _listed(self, _: str = "") -> list[Any]:
        """The models that can be converted; the first is chosen."""
        files = convertible(await self._engine.files())
        names = [file.name for file in files]
        chosen = names[0] if names else None
        return [gr.update(visible=not names), gr.update(choices=names, value=chosen), gr.update(interactive=bool(names)),
                *await self._detail(chosen)]

    async def _detail(self, name: str | None) -> list[Any]:
        """The types for a model, each with what it means."""
        file = await self._file(name)
        if file is None:
            return [gr.update(choices=[], value=None), "", ""]
        found = targets(file)
        kind = next((one.kind for one in found if one.kind == DEFAULT), found[0].kind)
        return [gr.update(choices=[(_label(one), one.kind) for one in found], value=kind), usual_name(file, kind),
                await self._words(file, kind)]

    async def _kind_chosen(self, name: str | None, kind: str | None) -> list[Any]:
        file = await self._file(name)
        if file is None or not kind:
            return ["", ""]
        return [usual_name(file, kind), await self._words(file, kind)]

    async def _words(self, file: ModelFile, kind: str) -> str:
        """What it will take, and where it goes."""
        target = next(one for one in targets(file) if one.kind == kind)
        free = await asyncio.to_thread(_free, self._conversions.models)
        return (f"About {explain.size_words(target.size_bytes)} from {explain.size_words(file.size_bytes)}. It goes to "
                f"{self._conversions.models}, where {explain.size_words(free)} are free.")

    async def _begin(self, name: str | None, kind: str | None, target: str) -> list[Any]:
        file = await self._file(name)
        if file is None or not kind:
            raise gr.Error("Choose a model and a type first.")
        try:
            self._conversions.start(file, kind, target or "")
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return await self._now()

    async def _cancel(self, id: str) -> list[Any]:
        try:
            self._conversions.cancel(id)
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return await self._now()

    async def _now(self, _: str = "") -> list[Any]:
        """Every conversion as it stands."""
        jobs = self._conversions.list()[:SLOTS]
        values = [value for number in range(SLOTS) for value in _slot_values(jobs[number] if number < len(jobs) else None)]
        return [str(self._conversions.finished), *values]

    async def _file(self, name: str | None) -> ModelFile | None:
        return next((file for file in await self._engine.files() if file.name == name and not why_not(file)), None)


def _label(target: Target) -> str:
    if target.kind == NF4:
        return f"nf4: 4-bit of bitsandbytes, a folder for Transformers, about {explain.size_words(target.size_bytes)}"
    found = explain.quantization(target.kind)
    loss = f", {found.loss}" if found.loss else ""
    return f"{target.kind}: {found.words}{loss}, about {explain.size_words(target.size_bytes)}"


def _free(folder: Any) -> int:
    """Bytes free on the folder's disk, also where the folder itself is not there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _slot_values(job: JobState | None) -> list[Any]:
    if job is None:
        return [gr.update(visible=False), "", gr.skip(), gr.skip(), gr.skip()]
    percent = int(100 * job.fraction)
    is_running = job.status == "running"
    amount = f", {job.done} of {job.total} {job.unit}" if job.total else ""
    head = {"running": f"{job.what or 'Starting'}{amount}", "done": job.what, "failed": job.what, "cancelled": "Cancelled."}
    # Numbers of ours alone: a model's name never reaches HTML.
    bar = f'<progress class="download-bar" max="100" value="{percent}" aria-label="{percent} percent converted"></progress>'
    return [gr.update(visible=True), job.id, gr.update(label=job.title, value=head[job.status]),
            gr.update(visible=is_running, value=bar), gr.update(visible=is_running)]
