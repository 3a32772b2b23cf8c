"""The parts of the page that our own scripts draw, the chat, its list and the notebook, and two that only listen.

Functions, not classes: at the definition of a component's class Gradio writes a stub file beside the source, and mypy then reads
that instead.
"""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from .static_files import import_of


def scripted_part(part: Literal["chat", "chats", "notebook"], *, script: str = "chat_view.js", then: str = "",
                  **arguments: Any) -> gr.HTML:
    """An empty place that a script of ours fills. It has no value, so no text of a model or person ever passes through Gradio.

    then: what runs once the part is in its place; the events that it triggers are listened to by their names.
    """
    mount = f'{import_of(script)}.then((module) => module.mount(element, "{part}"))'
    return gr.HTML(value="", html_template=f'<div class="colloquy-{part}"></div>', apply_default_css=False,
                   js_on_load=f"{mount}.then({then})" if then else mount, **arguments)


def chat_view(**arguments: Any) -> gr.HTML:
    """The open chat: messages, notices and the box to write in; fills the height it is given. Its event `moved` tells that
    another chat is shown."""
    # Imported beside the first, so that no change between the two is missed.
    form = import_of("chat_form.js")
    follow = f'(form => () => form.then((module) => module.follow(() => trigger("moved"))))({form})'
    return scripted_part("chat", then=follow, **arguments)


def chat_list_view(**arguments: Any) -> gr.HTML:
    """The list of chats with search, new chat and trash."""
    return scripted_part("chats", **arguments)


def notebook_view(**arguments: Any) -> gr.HTML:
    """The notebook: a page of free text with its documents and buttons."""
    return scripted_part("notebook", script="notebook.js", **arguments)


def model_watch() -> gr.HTML:
    """Shows nothing: its event `changed` tells that a model came or went or a load began or ended, `progress` of its steps."""
    watch = f"{import_of('model_watch.js')}.then((module) => module.watch(() => trigger('changed'), () => trigger('progress')))"
    return gr.HTML(value="", html_template="<span></span>", apply_default_css=False, js_on_load=watch)


def edits(fields: str) -> gr.HTML:
    """Shows nothing: tells what a person does to the fields whose element ids begin with `fields`.

    Its event `typed` comes with each change, however it was made, and `left` when a field is left or reset, which also is when a
    number out of its range has been set right. Gradio's own `input` misses pastes, deletions, compositions and resets.
    """
    told = "(what) => trigger('typed', what), (what) => trigger('left', what)"
    watch = f"{import_of('edits.js')}.then((module) => module.watch('{fields}', {told}))"
    return gr.HTML(value="", html_template="<span></span>", apply_default_css=False, js_on_load=watch)
