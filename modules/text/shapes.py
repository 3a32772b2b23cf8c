"""Messages as the dicts that chat templates take, and the shapes they are brought into for templates that refuse them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.messages import Message, ToolCallPart, ToolResultPart

Dicts = list[dict[str, Any]]
Kind = Literal["content", "reasoning", "name"]
FIRST_TURN = "(The conversation begins.)"  # what the user says before a greeting, where a template wants the user first
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the keys under which templates look for reasoning
_REASONING_USES = tuple(form.format(key) for key in _REASONING for form in (".{}", "'{}'", '"{}"'))


@dataclass(frozen=True)
class Field:
    """One text that people or models wrote, as a template is given it: outer white space around a core."""

    message: int
    kind: Kind
    text: str

    @property
    def core(self) -> str:
        return self.text.strip()

    @property
    def lead(self) -> str:
        return self.text[:len(self.text) - len(self.text.lstrip())] if self.core else ""

    @property
    def trail(self) -> str:
        return self.text[len(self.text.rstrip()):] if self.core else ""


def fields_of(messages: Sequence[Message], template: str) -> list[Field]:
    """Every text that `message_dicts` writes, in its order."""
    return [Field(index, kind, text) for index, message in enumerate(messages) for kind, text in _texts(message, template)]


def message_dicts(messages: Sequence[Message], template: str, write: Callable[[int, str], str]) -> Dicts:
    """The messages for the template; field number n reads `write(n, text)`.

    Reasoning is given only where the template looks for it: then it decides what is sent back.
    """
    dicts: Dicts = []
    n = 0
    for message in messages:
        made: dict[str, Any] = {"role": message.role}
        for kind, text in _texts(message, template):
            written = write(n, text)
            n += 1
            made.update(dict.fromkeys(_REASONING, written) if kind == "reasoning" else {kind: written})
        calls = [_call(part) for part in message.content if isinstance(part, ToolCallPart)]
        if calls:
            made["tool_calls"] = calls
        results = [part.call_id for part in message.content if isinstance(part, ToolResultPart)]
        if results:
            made["tool_call_id"] = results[0]
        dicts.append(made)
    return dicts


def _texts(message: Message, template: str) -> list[tuple[Kind, str]]:
    result = "".join(part.text for part in message.content if isinstance(part, ToolResultPart))
    texts: list[tuple[Kind, str]] = [("content", message.text + result)]
    if message.reasoning and any(use in template for use in _REASONING_USES):
        texts.append(("reasoning", message.reasoning))
    if message.name:
        texts.append(("name", message.name))
    return texts


def _call(part: ToolCallPart) -> dict[str, Any]:
    """Templates expect the arguments as an object; what is not JSON stays text."""
    try:
        arguments = json.loads(part.arguments)
    except ValueError:
        arguments = part.arguments
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _as_is(dicts: Dicts) -> Dicts:
    return dicts


def _system_folded(dicts: Dicts) -> Dicts:
    """Each system message in front of the next message, as the user's words."""
    folded: Dicts = []
    pending = ""
    for item in dicts:
        if item["role"] == "system":
            pending += item["content"] + "\n\n"
        elif pending and item["role"] == "user":
            folded.append({**item, "content": pending + item["content"]})
            pending = ""
        else:
            if pending:
                folded.append({"role": "user", "content": pending.rstrip()})
                pending = ""
            folded.append(item)
    if pending:
        folded.append({"role": "user", "content": pending.rstrip()})
    return folded


def _alternating(dicts: Dicts) -> Dicts:
    """User first, then in turn: neighbours of one role are merged, a greeting gets something to answer."""
    turns: Dicts = []
    for item in dicts:
        last = turns[-1] if turns else None
        if last is not None and last["role"] == item["role"] and item["role"] in ("user", "assistant") \
                and "tool_calls" not in last and "tool_calls" not in item:
            turns[-1] = {**last, "content": last["content"] + "\n\n" + item["content"]}
        else:
            turns.append(item)
    first = next((n for n, item in enumerate(turns) if item["role"] != "system"), None)
    if first is not None and turns[first]["role"] == "assistant":
        turns.insert(first, {"role": "user", "content": FIRST_TURN})
    return turns


# Tried in this order until the template takes one. No text is left out in any of them.
SHAPES: tuple[Callable[[Dicts], Dicts], ...] = (
    _as_is, _alternating, _system_folded, lambda dicts: _alternating(_system_folded(dicts)))
