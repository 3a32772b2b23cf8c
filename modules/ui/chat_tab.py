"""The Chat tab: the open chat, and whom the model plays."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..core.errors import AppError
from .chat_view import ChatView
from .page_frame import Page

NOBODY = "No character"
STARTER_LINE = ("You are talking to the starter model: tiny, made by this project, for trying things out. "
                "Load a larger one in the [Model tab](#tab-model).")  # the link is followed by chat_view.js
# Draws the chat again after Gradio changed it on the server.
REDRAW = "() => { window.colloquyChat && window.colloquyChat.load(); }"


class ChatTab:
    """The script draws the chat; Gradio draws the form of character, persona and system prompt."""

    TITLE = "Chat"

    def __init__(self, page: Page) -> None:
        self._page = page

    def build(self) -> None:
        self._about = gr.Markdown(STARTER_LINE, visible=False, elem_id="model-line")
        ChatView(elem_id="chat-view")

    def build_side(self) -> None:
        """The form that stands above the parameters in the panel at the right."""
        with gr.Accordion("Character and system prompt", open=True):
            self._character = gr.Dropdown(label="Character", info="Choosing one begins a new chat.", choices=[NOBODY],
                                          value=NOBODY, interactive=True, elem_id="character")
            self._system = gr.Textbox(label="System prompt", lines=3,
                                      info="What the model is told before the chat; from the next message on.",
                                      max_lines=12, interactive=True, elem_id="system-prompt")
            self._name = gr.Textbox(label="Your name", lines=1, interactive=True, elem_id="user-name")
            self._persona = gr.Textbox(label="About you", info="For characters: who they are talking to.", lines=2, max_lines=6,
                                       interactive=True, elem_id="persona")

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [self._about, self._character, self._system, self._name, self._persona]

    async def state(self, session: str) -> list[Any]:
        """The session's character and prompts, and what the loaded model is."""
        saved = await self._page.services.sessions.get(session)
        names = await self._page.services.character_names()
        chosen = saved.character if saved.character in names else NOBODY
        choice = gr.update(choices=[NOBODY, *names], value=chosen)
        return [self._model_line(), choice, saved.system_prompt, saved.user_name, saved.persona]

    def wire(self) -> None:
        session = self._page.session
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self._character.input(self._play, [session, self._character], self.outputs, **quiet).then(None, None, None, js=REDRAW)
        for box, field in ((self._system, "system_prompt"), (self._name, "user_name"), (self._persona, "persona")):
            box.blur(self._keeper(field), [session, box], None, **quiet)

    async def _play(self, session: str, name: str) -> list[Any]:
        character = "" if name == NOBODY else name
        try:
            await self._page.services.chat.new_chat(session, character=character)
        except AppError as error:
            gr.Warning(error.message)
        return await self.state(session)

    def _keeper(self, field: str) -> Any:
        async def keep(session: str, text: str) -> None:
            try:
                await self._page.services.chat.describe(session, **{field: text})
            except AppError as error:
                gr.Warning(error.message)

        return keep

    def _model_line(self) -> Any:
        """Says what the starter model is while it is the one loaded; nothing for others."""
        held = next(iter(self._page.services.engine.models), None)
        is_starter = held is not None and held.name.startswith("starter")
        return gr.update(visible=is_starter)
