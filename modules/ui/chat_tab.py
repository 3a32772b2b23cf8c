"""The Chat tab: the open chat, and whom the model plays."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from ..core.errors import AppError
from .page_frame import SESSION_JS, Page
from .scripted import chat_view

NOBODY = "No character"
STARTER_LINE = ("You are talking to the starter model: tiny, made by this project, for trying things out. "
                "Load a larger one in the [Model tab](#tab-model).")  # the link is followed by chat_view.js
LOADING_LINE = "The model is still being loaded."
FAILED_LINE = "No model is loaded: the last one could not be. The Model tab says why."
RESTING_LINE = "{name} was idle and is unloaded; your next message loads it again."
NO_MODEL_LINE = "No model is loaded. Choose one in the Model tab."
# Draws the chat again after Gradio changed it on the server.
REDRAW = "() => { window.colloquyChat && window.colloquyChat.load(); }"
# Between the two the chat may move on: then another filling follows, and the form waits for that one (assets/chat_form.js).
FORM_IS_ASKED = f"""async () => {{
  const form = document.getElementById("chat-form");
  form.dataset.asked = form.dataset.moves;
  return ({SESSION_JS})();
}}"""
FORM_IS_FILLED = """() => {
  const form = document.getElementById("chat-form");
  if (form.dataset.asked === form.dataset.moves) form.inert = false;
}"""


class ChatTab:
    """The script draws the chat; Gradio draws the form of character, persona and system prompt."""

    TITLE = "Chat"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._choosing = asyncio.Lock()

    def build(self) -> None:
        self._about = gr.Markdown(STARTER_LINE, visible=False, elem_id="model-line")
        self._view = chat_view(elem_id="chat-view")

    def build_side(self) -> None:
        """The form that stands above the parameters in the panel at the right."""
        with gr.Accordion("Character and system prompt", open=True, elem_id="chat-form"):
            self._character = gr.Dropdown(label="Character", info="Choosing one begins a new chat.", choices=[NOBODY],
                                          value=NOBODY, interactive=True, elem_id="character")
            self._system = gr.Textbox(label="System prompt", lines=3,
                                      info="What the model is told before the chat; from the next message on.",
                                      max_lines=12, interactive=True, elem_id="system-prompt")
            self._name = gr.Textbox(label="Your name", lines=1, interactive=True, elem_id="user-name")
            self._persona = gr.Textbox(label="About you", info="For characters: who they are talking to.", lines=2, max_lines=6,
                                       interactive=True, elem_id="persona")
            # What the boxes were filled with, and of which chat: only a text that differs from it is a person's.
            self._filled = gr.JSON(visible=False)

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [self._about, self._character, self._system, self._name, self._persona, self._filled]

    async def state(self, session: str) -> list[Any]:
        """The session's character and prompts, and what the loaded model is."""
        saved = await self._page.services.sessions.get(session)
        names = await self._page.services.character_names()
        chosen = saved.character if saved.character in names else NOBODY
        choice = gr.update(choices=[NOBODY, *names], value=chosen)
        filled = {"conversation": saved.conversation, "system_prompt": saved.system_prompt, "user_name": saved.user_name,
                  "persona": saved.persona}
        return [self._model_line(saved.model), choice, saved.system_prompt, saved.user_name, saved.persona, filled]

    def wire(self) -> None:
        session = self._page.session
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self._character.input(self._play, [session, self._character], self.outputs, **quiet).then(None, None, None, js=REDRAW)
        for box, field in ((self._system, "system_prompt"), (self._name, "user_name"), (self._persona, "persona")):
            box.blur(self._keeper(field), [session, box, self._filled], [self._filled], **quiet)
        moved = self._view.moved(self.state, [session], self.outputs, trigger_mode="always_last", js=FORM_IS_ASKED, **quiet)
        moved.then(None, None, None, js=FORM_IS_FILLED)

        self._page.follows.append(([self._about], self._lines))

    async def _lines(self, session: str) -> list[Any]:
        return [self._model_line((await self._page.services.sessions.get(session)).model)]

    async def _play(self, session: str, name: str) -> list[Any]:
        character = "" if name == NOBODY else name
        async with self._choosing:  # Gradio tells of one choice twice; a second chat would take the first one's place
            if (await self._page.services.sessions.get(session)).character != character:
                try:
                    await self._page.services.chat.new_chat(session, character=character)
                except AppError as error:
                    gr.Warning(error.message)
        return await self.state(session)

    def _keeper(self, field: str) -> Any:
        async def keep(session: str, text: str, filled: dict[str, str] | None) -> Any:
            filled = filled or {}
            if text == filled.get(field):
                return gr.skip()
            try:
                await self._page.services.chat.describe(session, conversation=filled.get("conversation"), **{field: text})
            except AppError as error:
                gr.Warning(error.message)
                return gr.skip()
            return {**filled, field: text}

        return keep

    def _model_line(self, chosen: str) -> Any:
        """Says who answers where that is not plain: the starter model, one of several, another than was chosen, or nobody."""
        engine = self._page.services.engine
        held = engine.answering(chosen)
        if held is None:
            why = {"loading": LOADING_LINE, "failed": FAILED_LINE}
            if engine.resting and engine.watch.state.status not in why:
                return gr.update(visible=True, value=RESTING_LINE.format(name=_plain(engine.resting[0])))
            return gr.update(visible=True, value=why.get(engine.watch.state.status, NO_MODEL_LINE))
        lines = [STARTER_LINE] if held.name.startswith("starter") else []
        if chosen and chosen != held.name:
            lines.append(f"{_plain(held.name)} answers: {_plain(chosen)}, which was chosen here, is not loaded.")
        elif chosen and len(engine.models) > 1:
            lines.append(f"{_plain(held.name)} answers here. To change that, choose another model in the Model tab.")
        elif len(engine.models) > 1:
            lines.append("Of the loaded models the one used last answers. To change that, choose one in the Model tab.")
        return gr.update(visible=bool(lines), value=" ".join(lines))


def _plain(name: str) -> str:
    """A name as Markdown that shows just its letters: whoever named the file may have meant more."""
    return "".join(f"&#{ord(letter)};" if not letter.isalnum() else letter for letter in name)
