"""A character: whom the model plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Character:
    """A card's own fields, named as the field names them.

    description is the persona; example_dialogue holds `{{user}}:`/`{{char}}:` lines, blocks parted by `<START>`.
    raw keeps the file's keys that we do not know, so that an edit or export loses none.
    """

    name: str
    description: str = ""
    personality: str = ""
    scenario: str = ""
    greeting: str = ""
    alternate_greetings: tuple[str, ...] = ()
    example_dialogue: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    creator_notes: str = ""
    tags: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)
