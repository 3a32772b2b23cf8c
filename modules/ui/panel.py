"""The parameter panel: one set of widgets made from the knobs, the same for chat and notebook, saved with the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ..core.errors import AppError
from ..core.params import PARAM_KNOBS, RUN_FIELDS, GenerationParams
from ..engine import Held
from .page_services import PageServices
from .scripted import edits
from .widgets import read, shown, widget

FIRST_GROUPS = ("Sampling", "Output")
FIELDS = "param-"  # with the parameter's name: its widget's element id


class Panel:
    """Widgets by parameter name, and the preset row above them. Built once; wired after everything is built."""

    def __init__(self, services: PageServices) -> None:
        self._services = services
        self.widgets: dict[str, Any] = {}
        self.preset: Any = None
        self.notes: Any = None

    def build(self) -> None:
        self.preset = gr.Dropdown(label="Preset", choices=[], interactive=True, elem_id="preset",
                                  info="A taste in sampling; it leaves length, seed and stop strings alone.")
        self._reset = gr.Button("Reset all to neutral", size="sm", variant="secondary", elem_id="neutral")
        with gr.Accordion("Save these parameters as a preset", open=False):
            self._save_name = gr.Textbox(label="Name", lines=1, elem_id="preset-name")
            self._save = gr.Button("Save", size="sm", elem_id="preset-save")
        self.notes = gr.Textbox(label="Ignored by the loaded model's loader", interactive=False, visible=False, lines=1,
                                max_lines=4)
        self._edits = edits(FIELDS)
        groups: dict[str, list[str]] = {}
        for name, knob in PARAM_KNOBS.items():
            groups.setdefault(knob.group, []).append(name)
        for group in [*FIRST_GROUPS, *(g for g in groups if g not in FIRST_GROUPS)]:
            with gr.Accordion(group, open=group in FIRST_GROUPS):
                for name in groups[group]:
                    self.widgets[name] = widget(PARAM_KNOBS[name], elem_id=f"{FIELDS}{name}")

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [self.preset, self.notes, *self.widgets.values()]

    async def state(self, session: str) -> list[Any]:
        """Values and greying for every output, from the session and the loaded model."""
        saved = await self._services.sessions.get(session)
        params = saved.generation_params()
        held = self._services.engine.answering(saved.model)
        names = await self._services.preset_names()
        updates = [gr.update(value=shown(PARAM_KNOBS[name], getattr(params, name)), **greying(name, held))
                   for name in self.widgets]
        return [gr.update(choices=names, value=saved.preset if saved.preset in names else None), _notes(params, held), *updates]

    @property
    def model_outputs(self) -> list[Any]:
        """What `model_state` fills, in order."""
        return [self.notes, *self.widgets.values()]

    async def model_state(self, session: str) -> list[Any]:
        """What depends on the loaded model alone: a person may be typing into the widgets, so their values are left alone."""
        saved = await self._services.sessions.get(session)
        params, held = saved.generation_params(), self._services.engine.answering(saved.model)
        return [_notes(params, held), *(gr.update(**greying(name, held)) for name in self.widgets)]

    def wire(self, session: Any) -> None:
        changed = {session, *self.widgets.values()}

        async def typed(values: Mapping[Any, Any]) -> Any:
            return await self._keep(values[session], values, is_done=False)

        async def left(values: Mapping[Any, Any]) -> Any:
            return await self._keep(values[session], values, is_done=True)

        quiet = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
        shows = [self.preset, self.notes]
        self._edits.typed(typed, changed, shows, **quiet)
        self._edits.left(left, changed, shows, **quiet)
        for choice in self.widgets.values():
            if isinstance(choice, gr.Dropdown):  # no field of the browser's own
                choice.input(left, changed, shows, **quiet)
        self.preset.input(self._choose, [session, self.preset], self.outputs, show_progress="hidden", api_visibility="private")
        self._reset.click(self._neutral, [session], self.outputs, show_progress="hidden", api_visibility="private")
        self._save.click(self._save_as, [session, self._save_name], [*self.outputs, self._save_name], api_visibility="private")

    async def _keep(self, session: str, values: Mapping[Any, Any], *, is_done: bool) -> Any:
        """Save what differs from neutral. The old value stays of what cannot be read, which is said once the person is done."""
        if not session:  # the page is not filled yet: its widgets hold nobody's values
            return gr.skip()
        saved = await self._services.sessions.get(session)
        kept: dict[str, Any] = {}
        for name, knob in PARAM_KNOBS.items():
            try:
                kept[name] = read(knob, values[self.widgets[name]])
            except AppError as error:
                if is_done:
                    gr.Warning(error.message)
                kept[name] = saved.params.get(name, knob.default)
        params = GenerationParams(**kept)
        if params.changed() == saved.generation_params().changed():
            return gr.skip()
        # Values that were changed by hand are no preset's any more, and a reply's record must not say that they are.
        preset = saved.preset if _taste(params) == _taste(saved.generation_params()) else ""
        await self._services.sessions.update(session, params=params.changed(), preset=preset)
        return [gr.skip() if preset == saved.preset else gr.update(value=None),
                _notes(params, self._services.engine.answering(saved.model))]

    async def _choose(self, session: str, name: str | None) -> list[Any]:
        if name:
            saved = await self._services.sessions.get(session)
            try:
                preset = await self._services.preset(name)
            except AppError as error:
                raise gr.Error(error.message) from error
            if preset.unknown:
                gr.Warning(f"This preset also sets {', '.join(sorted(preset.unknown))}, which Colloquy does not have.")
            # A preset is a taste: it leaves the seed, the length and the stop strings alone.
            own = {key: value for key, value in saved.params.items() if key in RUN_FIELDS}
            await self._services.sessions.update(session, preset=name, params={**own, **_taste(preset.params)})
        return await self.state(session)

    async def _neutral(self, session: str) -> list[Any]:
        await self._services.sessions.update(session, preset="", params={})
        return await self.state(session)

    async def _save_as(self, session: str, name: str) -> list[Any]:
        saved = await self._services.sessions.get(session)
        try:
            params = {key: value for key, value in saved.params.items() if key not in RUN_FIELDS}
            await self._services.save_preset(name.strip(), GenerationParams().with_values(params)[0])
        except AppError as error:
            raise gr.Error(error.message) from error
        await self._services.sessions.update(session, preset=name.strip())
        gr.Info("Preset saved.")
        return [*await self.state(session), gr.update(value="")]


def greying(name: str, held: Held | None) -> dict[str, Any]:
    """How a parameter's widget stands with the loaded model: greyed with the reason where its loader does not honour it."""
    knob = PARAM_KNOBS[name]
    if held is None or name in RUN_FIELDS or name in held.spec.params:
        return {"interactive": True, "info": knob.help}
    return {"interactive": False, "info": f"Not honoured by the {held.spec.title} loader. {knob.help}"}


def _taste(params: GenerationParams) -> dict[str, Any]:
    """The changed values that a preset sets: not length, seed and stop strings."""
    return {name: value for name, value in params.changed().items() if name not in RUN_FIELDS}


def _notes(params: GenerationParams, held: Held | None) -> Any:
    """The line that names changed parameters the loaded model ignores; hidden where there are none."""
    if held is None:
        return gr.update(visible=False)
    ignored = [PARAM_KNOBS[name].label for name in params.changed() if greying(name, held)["interactive"] is False]
    return gr.update(visible=bool(ignored), value=", ".join(ignored))
