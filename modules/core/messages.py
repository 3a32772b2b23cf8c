"""A message: who speaks, and what, as an ordered tuple of parts; no id and no time, so equality is content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadRequest

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MediaKind = Literal["image", "audio", "video", "document"]


@dataclass(frozen=True)
class TextPart:
    text: str


@dataclass(frozen=True)
class ReasoningPart:
    """What the model thought before its reply; `seconds` is how long it thought, or None where not measured."""

    text: str
    seconds: float | None = None


@dataclass(frozen=True)
class MediaPart:
    kind: MediaKind
    sha256: str


@dataclass(frozen=True)
class ToolCallPart:
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolResultPart:
    call_id: str
    text: str


Part = TextPart | ReasoningPart | MediaPart | ToolCallPart | ToolResultPart
_KINDS: dict[str, type] = {"text": TextPart, "reasoning": ReasoningPart, "media": MediaPart, "tool_call": ToolCallPart,
                           "tool_result": ToolResultPart}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Message:
    """One message. `name` is the speaker's name where it is not the role's own, else None."""

    role: Role
    content: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined: what a person reads and a template is given."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, ReasoningPart))


def message(role: Role, text: str, *, name: str | None = None) -> Message:
    """A message of one text part."""
    return Message(role, (TextPart(text),), name)


def message_to_json(value: Message) -> dict[str, Any]:
    parts = [{"type": _NAMES[type(part)], **vars(part)} for part in value.content]
    return {"role": value.role, "name": value.name, "content": parts}


def message_from_json(body: Mapping[str, Any]) -> Message:
    """The message that `message_to_json` wrote; raises BadRequest where the object is not one."""
    try:
        role = body["role"]
        parts = []
        for item in body["content"]:
            fields = dict(item)
            parts.append(_KINDS[fields.pop("type")](**fields))
        if role not in ROLES:
            raise ValueError(role)
        return Message(role, tuple(parts), body.get("name"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"This is not a message: {error!r}.") from error


def transcript(messages: Sequence[Message]) -> str:
    """The messages as `Name: text` lines, for logs, exports and models without a template."""
    return "\n".join(f"{m.name or m.role}: {m.text}" for m in messages)
