"""The parts of the page that our own scripts draw: the chat, the list of chats, the notebook."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from .static_files import assets_version


class ScriptedPart(gr.HTML):  # type: ignore[misc]  # Gradio is not typed
    """An empty place that a script of ours fills. It has no value, so no text of a model or person ever passes through Gradio."""

    def __init__(self, part: Literal["chat", "chats", "notebook"], *, script: str = "chat_view.js", **arguments: Any) -> None:
        address = f"ui-static/{assets_version()}/{script}"
        super().__init__(
            value="", html_template=f'<div class="colloquy-{part}"></div>', apply_default_css=False,
            js_on_load=f'import(new URL("{address}", document.baseURI)).then((module) => module.mount(element, "{part}"))',
            **arguments)


class ChatView(ScriptedPart):
    """The open chat: messages, notices and the box to write in; fills the height it is given."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("chat", **arguments)


class ChatListView(ScriptedPart):
    """The list of chats with search, new chat and trash."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("chats", **arguments)


class NotebookView(ScriptedPart):
    """The notebook: a page of free text with its documents and buttons."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("notebook", script="notebook.js", **arguments)
