"""The list of models in the Model tab: a table with a filter, formats and an order."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from ..core.loader import ModelFile
from ..models import explain
from ..models.arrange import ORDERS, Listed, arranged, count_words

COLUMNS = ("Name", "Variants of", "Format", "Size", "Parameters", "Quantization", "Context", "Architecture", "About")
COLUMN_WIDTHS = ("240px", "270px", "110px", "100px", "110px", "130px", "90px", "120px", "420px")  # a phone scrolls sideways
ALL = "all"
EMPTY = ("No models yet. Get one in the Download tab, or put a GGUF file or a folder with safetensors into one of the model "
         "folders and press Refresh.")
MAX_FILTER = 200  # characters


class ModelList:
    """Names of models are untrusted: they only go into text boxes and table cells."""

    def build(self) -> None:
        with gr.Row():
            self.filter = gr.Textbox(label="Filter", placeholder="name or quantization", max_length=MAX_FILTER,
                                     max_lines=1, scale=4, min_width=200, elem_id="model-filter")
            self.format = gr.Dropdown([ALL], value=ALL, label="Format", interactive=True, scale=1, min_width=130,
                                      elem_id="model-format")
            self.order = gr.Dropdown(list(ORDERS), value=next(iter(ORDERS)), label="Sort", interactive=True, scale=1,
                                     min_width=160, elem_id="model-order")
        self.table = gr.Dataframe(headers=list(COLUMNS), datatype="str", interactive=False, elem_id="model-table",
                                  label="Models", max_height=320, value=[], column_widths=list(COLUMN_WIDTHS))
        self.nothing = gr.Textbox(interactive=False, visible=False, show_label=False, lines=2, elem_id="model-nothing")

    @property
    def asked(self) -> list[Any]:
        """What `shown` is asked with, in order."""
        return [self.filter, self.format, self.order]

    @property
    def outputs(self) -> list[Any]:
        """What `fresh` fills, in order."""
        return [*self.asked, self.table, self.nothing]

    async def fresh(self, files: list[ModelFile]) -> list[Any]:
        """All of them, without a filter."""
        formats = [ALL, *sorted({file.format for file in files})]
        first = next(iter(ORDERS))
        return ["", gr.update(choices=formats, value=ALL), first, *await self.shown(files, "", ALL, first)]

    async def shown(self, files: list[ModelFile], text: str, format: str, order: str) -> list[Any]:
        """The table, and what is said where it is empty."""
        order = order if order in ORDERS else next(iter(ORDERS))
        found = await asyncio.to_thread(arranged, files, (text or "")[:MAX_FILTER], "" if format == ALL else format, order)
        words = EMPTY if not files else f"None of the {len(files)} models matches; empty the filter to see them all."
        return [[_row(one) for one in found], gr.update(visible=not found, value=words)]


def _row(listed: Listed) -> list[str]:
    file = listed.file
    size = explain.size_words(file.size_bytes) if file.has_weights else ""
    return [file.name, listed.group, file.format, size, count_words(file.n_params), file.quantization,
            str(file.trained_context or ""), file.architecture, explain.sentence(file)]
