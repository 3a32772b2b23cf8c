"""The adapters in the Model tab: which there are, which are chosen with what weight, and what the loaded model has of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from ..core.adapters import MAX_ADAPTERS, WEIGHT, AdapterFile
from ..core.errors import AppError, BadRequest
from ..engine import Engine, Held
from ..models.explain import size_words
from .page_frame import Page
from .widgets import read, widget

COLUMNS = ("Name", "Format", "Rank", "Alpha", "Made for", "Size", "About")
COLUMN_WIDTHS = ("220px", "110px", "70px", "80px", "220px", "90px", "420px")  # a phone scrolls sideways
FORMATS = {"gguf": "GGUF", "safetensors": "PEFT folder"}


class AdaptersPart:
    """Built and wired by the Model tab. Names are untrusted: they only go into text boxes, table cells, choices and labels.

    `model` is the list that the model is chosen in.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._engine: Engine = page.services.engine

    def build(self) -> None:
        with gr.Accordion("Adapters (LoRA)", open=False, elem_id="adapters"):
            self.state = gr.Textbox(label="Attached", interactive=False, lines=1, max_lines=6, elem_id="adapters-state")
            self._nothing = gr.Textbox(interactive=False, visible=False, show_label=False, lines=2, max_lines=6,
                                       elem_id="adapters-nothing")
            self._table = gr.Dataframe(headers=list(COLUMNS), datatype="str", interactive=False, visible=False,
                                       label="Adapters found", max_height=240, value=[], column_widths=list(COLUMN_WIDTHS),
                                       elem_id="adapters-table")
            self._chosen = gr.Dropdown(label="Adapters", choices=[], value=[], multiselect=True, interactive=True,
                                       max_choices=MAX_ADAPTERS, elem_id="adapters-choice",
                                       info="Small trained changes to the chosen model; they are kept with it.")
            self._order = gr.Textbox(visible=False)  # whose weights the fields hold, as JSON
            self._weights = [widget(WEIGHT, visible=False, elem_id=f"adapter-weight-{n}") for n in range(MAX_ADAPTERS)]
            self._problem = gr.Textbox(label="Why they were not attached", interactive=False, visible=False, lines=1,
                                       max_lines=8, elem_id="adapters-problem")
            self._apply = gr.Button("Apply", elem_id="adapters-apply")

    @property
    def outputs(self) -> list[Any]:
        """What `fresh` fills, in order."""
        return [self.state, *self._list, self._chosen, *self._shows_weights, self._problem]

    @property
    def _shows_weights(self) -> list[Any]:
        """What `_fields` fills, in order."""
        return [self._order, *self._weights]

    @property
    def listed(self) -> list[Any]:
        """What `found` fills, in order."""
        return [*self._list, self._chosen]

    @property
    def _list(self) -> list[Any]:
        return [self._nothing, self._table]

    async def fresh(self, model: str | None) -> list[Any]:
        """All of it, with what the model has attached, or would get when it is loaded."""
        files = await self._engine.adapter_files()
        held = self._held(model)
        saved = await self._page.services.saved_options.adapters(model) if model and not held else []
        attached = {one.name: one.weight for one in held.adapters} if held else dict(saved)
        choices = list(dict.fromkeys([*_choices(files), *attached]))
        return [*await self.told(), *self._found(files), gr.update(choices=choices, value=list(attached)),
                *self._fields(attached), gr.update(visible=False, value="")]

    async def found(self, _: str = "") -> list[Any]:
        """The list read anew; what is chosen in it stays."""
        files = await self._engine.adapter_files()
        return [*self._found(files), gr.update(choices=_choices(files))]

    async def told(self, _: str = "") -> list[str]:
        """What each loaded model has attached."""
        lines = [_line(held) for held in self._engine.models]
        return ["\n".join(lines) or "No model is loaded; load one, then attach adapters to it."]

    def wire(self, model: Any) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asked = {self._chosen, *self._shows_weights}
        self._chosen.input(self._choose, asked, self._shows_weights, trigger_mode="always_last", **quiet)
        self._apply.click(self._run_apply(model), {model, *asked}, [self.state, self._problem], concurrency_limit=None, **quiet)
        self._page.follows.append(([self.state], self.told))

    def _run_apply(self, model: Any) -> Any:
        async def apply(values: Mapping[Any, Any]) -> list[Any]:
            """Attach what is chosen with the weights beside it, or say what came in the way."""
            try:
                held = self._engine.held(values[model] or "")
                wanted = list(self._wanted(values).items())
                await self._engine.set_adapters(wanted, model=held.name)
                await self._page.services.saved_options.save_adapters(held.name, wanted)
            except AppError as error:
                return [*await self.told(), gr.update(visible=True, value=error.message)]
            return [*await self.told(), gr.update(visible=False, value="")]

        return apply

    def _choose(self, values: Mapping[Any, Any]) -> list[Any]:
        """A field for each that is chosen."""
        return self._fields(self._wanted(values))

    def _wanted(self, values: Mapping[Any, Any]) -> dict[str, float]:
        """The weight of each that is chosen; it stays with its adapter where others come and go."""
        try:
            order = json.loads(values[self._order] or "[]")
        except ValueError as error:
            raise BadRequest("The page no longer knows whose weights these are; reload it.") from error
        fields = {str(name): read(WEIGHT, values[field]) for name, field in zip(order, self._weights, strict=False)}
        return {name: fields.get(name, WEIGHT.default) for name in values[self._chosen]}

    def _fields(self, weights: Mapping[str, float]) -> list[Any]:
        shown = [gr.update(visible=True, label=f"Weight of {name}", value=weight) for name, weight in weights.items()]
        hidden = [gr.update(visible=False, value=WEIGHT.default) for _ in range(MAX_ADAPTERS - len(shown))]
        return [json.dumps(list(weights)), *shown, *hidden]

    def _held(self, model: str | None) -> Held | None:
        return next((held for held in self._engine.models if held.name == model), None)

    def _found(self, files: list[AdapterFile]) -> list[Any]:
        folders = " or ".join(str(folder) for folder in self._engine.adapters.dirs) or "a model folder"
        words = (f"No adapters yet. Put a GGUF adapter, or a folder with adapter_config.json and adapter_model.safetensors, into "
                 f"{folders} and press Refresh.")
        return [gr.update(visible=not files, value=words), gr.update(visible=bool(files), value=[_row(file) for file in files])]


def _choices(files: list[AdapterFile]) -> list[str]:
    return [file.name for file in files if not file.problem]


def _row(file: AdapterFile) -> list[str]:
    known = not file.problem
    return [file.name, FORMATS[file.format], str(file.rank or ""), f"{file.alpha:g}" if known else "", file.base,
            size_words(file.size_bytes) if file.size_bytes else "", file.problem or f"changes {file.layers} matrices"]


def _line(held: Held) -> str:
    if "adapters" not in held.facts.features:
        return f"{held.name}: none, for {held.spec.title} takes no adapters."
    attached = ", ".join(f"{one.name} × {one.weight:.2f}" for one in held.adapters)
    return f"{held.name}: {attached or 'none'}. {held.adapters_problem}".rstrip()
