"""The parts of the page that our own scripts draw: the chat, the list of chats, the notebook."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from .static_files import import_of


class ScriptedPart(gr.HTML):  # type: ignore[misc]  # Gradio is not typed
    """An empty place that a script of ours fills. It has no value, so no text of a model or person ever passes through Gradio."""

    def __init__(self, part: Literal["chat", "chats", "notebook"], *, script: str = "chat_view.js", then: str = "",
                 **arguments: Any) -> None:
        """then: what runs once the part is in its place; the events that it triggers are listened to by their names."""
        mount = f'{import_of(script)}.then((module) => module.mount(element, "{part}"))'
        super().__init__(value="", html_template=f'<div class="colloquy-{part}"></div>', apply_default_css=False,
                         js_on_load=f"{mount}.then({then})" if then else mount, **arguments)


class ChatView(ScriptedPart):
    """The open chat: messages, notices and the box to write in; fills the height it is given. Its event `moved` tells that
    another chat is shown."""

    def __init__(self, **arguments: Any) -> None:
        # Imported beside the first, so that no change between the two is missed.
        form = import_of("chat_form.js")
        follow = f'(form => () => form.then((module) => module.follow(() => trigger("moved"))))({form})'
        super().__init__("chat", then=follow, **arguments)


class ChatListView(ScriptedPart):
    """The list of chats with search, new chat and trash."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("chats", **arguments)


class NotebookView(ScriptedPart):
    """The notebook: a page of free text with its documents and buttons."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("notebook", script="notebook.js", **arguments)


class ModelWatch(gr.HTML):  # type: ignore[misc]  # Gradio is not typed
    """Shows nothing: its event `changed` tells that a model came or went or a load began or ended, `progress` of its steps."""

    def __init__(self) -> None:
        super().__init__(value="", html_template="<span></span>", apply_default_css=False,
                         js_on_load=f"{import_of('model_watch.js')}.then((module) => "
                                    "module.watch(() => trigger('changed'), () => trigger('progress')))")


class Edits(gr.HTML):  # type: ignore[misc]  # Gradio is not typed
    """Shows nothing: tells what a person does to the fields whose element ids begin with `fields`.

    Its event `typed` comes with each change, however it was made, and `left` when a field is left or reset, which also is when a
    number out of its range has been set right. Gradio's own `input` misses pastes, deletions, compositions and resets.
    """

    def __init__(self, fields: str) -> None:
        told = "(what) => trigger('typed', what), (what) => trigger('left', what)"
        super().__init__(value="", html_template="<span></span>", apply_default_css=False,
                         js_on_load=f"{import_of('edits.js')}.then((module) => module.watch('{fields}', {told}))")
