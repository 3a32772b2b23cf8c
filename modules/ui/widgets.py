"""Knobs to Gradio widgets and back: the one place that knows how a setting is drawn."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr

from ..core.knobs import Knob

MAX_SLIDER_STEPS = 5000  # beyond that a slider cannot be aimed; a number field is drawn


def _within_range(slider: Any, payload: float | None) -> float | None:
    return None if payload is None else gr.Slider.preprocess(slider, min(max(payload, slider.minimum), slider.maximum))


# Takes a number typed beyond its range as the end of the range, as its field shows it once it is left; Gradio's refuses. A class,
# because Gradio makes its components anew from their classes; made past Gradio's metaclass, which would write a stub file beside
# this one that mypy then reads instead. is_template: it is drawn as Gradio's.
Slider: Any = ABCMeta.__new__(type(gr.Slider), "Slider", (gr.Slider,), {
    "__module__": __name__, "preprocess": _within_range, "is_template": True})


def widget(knob: Knob, **rest: Any) -> gr.components.Component:
    """The widget of a knob, with its default shown and its help beneath."""
    common: dict[str, Any] = {"label": knob.label, "info": knob.help, "interactive": True, "value": shown(knob, knob.default)}
    common |= rest
    if knob.kind == "bool":
        return gr.Checkbox(**common)
    if knob.kind == "choice":
        return gr.Dropdown(choices=list(knob.choices), **common)
    if knob.kind == "model":  # the names are filled in by who knows them
        return gr.Dropdown(choices=[("none", "")], allow_custom_value=True, **common)
    if knob.kind in ("int", "float"):
        low, high = knob.minimum, knob.maximum
        step = knob.step or (1 if knob.kind == "int" else 0.01)
        if low is not None and high is not None and (high - low) / step <= MAX_SLIDER_STEPS:
            return Slider(minimum=low, maximum=high, step=step, **common)
        return gr.Number(precision=0 if knob.kind == "int" else None, minimum=low, maximum=high, **common)
    lines = {"str": 1, "text": 4, "list": 2, "map": 2}[knob.kind]
    hint = {"list": "one per line; \\n is a line break", "map": "token id: bias, one per line"}.get(knob.kind, "")
    return gr.Textbox(lines=lines, max_lines=8, placeholder=hint, **common)


def shown(knob: Knob, value: Any) -> Any:
    """The value as the widget holds it: lists one a line with escapes, maps as `id: bias` lines."""
    if knob.kind == "list":
        return "\n".join(_escaped(item) for item in value)
    if knob.kind == "map":
        return "\n".join(f"{key}: {number:g}" for key, number in value.items())
    return value


def read(knob: Knob, value: Any) -> Any:
    """The knob's value from what the widget holds; an emptied field is the default. Raises BadRequest naming the range."""
    if value is None or (value == "" and knob.kind in ("int", "float")):
        return knob.default
    if knob.kind == "list":
        return knob.parse([_unescaped(line) for line in str(value).split("\n") if line])
    return knob.parse(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _unescaped(line: str) -> str:
    out = []
    characters = iter(line)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            out.append({"n": "\n", "t": "\t", "\\": "\\"}.get(following, "\\" + following))
        else:
            out.append(character)
    return "".join(out)
