"""A character card as the messages that open a chat: a system message, and example talk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import regex

from ..core.character import Character
from ..core.messages import Message, Role, message
from .macros import Names, expand

DEFAULT_SYSTEM = "You are {{char}}, in a conversation with {{user}}. Stay in character and write only {{char}}'s next reply."
_BLOCK = regex.compile(r"^[ \t]*<START>[ \t]*$", regex.IGNORECASE | regex.MULTILINE)


def character_messages(character: Character, *, user: str = "You", persona: str = "", system_prompt: str = "",
                       now: datetime | None = None, seed: int = 0) -> list[Message]:
    """The system message, and the example talk as messages after it; none where the card and the prompts are empty.

    The card's own system prompt wins over the person's, and may hold that one as `{{original}}` (card spec V2).
    now is given by tests; seed makes `{{random}}` and `{{roll}}` the same at each turn of a chat, or the prompt's start would
    change and be computed again.
    """
    write = _writer(character, user, persona, now, seed)
    system = character.system_prompt or system_prompt or DEFAULT_SYSTEM
    system = regex.sub(r"\{\{original\}\}", lambda _: system_prompt or DEFAULT_SYSTEM, system, flags=regex.IGNORECASE)
    parts = [system, character.description]
    parts += [f"{{{{char}}}}'s personality: {character.personality}"] if character.personality.strip() else []
    parts += [f"Scenario: {character.scenario}"] if character.scenario.strip() else []
    parts += [f"About {{{{user}}}}: {persona}"] if persona.strip() else []
    text = "\n\n".join(written for written in (write(part).strip() for part in parts) if written)
    opening = [message("system", text)] if text else []
    return opening + _example_messages(character, user, write)


def greetings(character: Character, *, user: str = "You", persona: str = "", now: datetime | None = None,
              seed: int = 0) -> list[str]:
    """The first messages to choose from, the main one first; without empty ones."""
    write = _writer(character, user, persona, now, seed)
    written = (write(text).strip() for text in (character.greeting, *character.alternate_greetings))
    return [text for text in written if text]


def _writer(character: Character, user: str, persona: str, now: datetime | None, seed: int) -> Callable[[str], str]:
    names = Names(_called(character), user, now=now or datetime.now(), seed=seed, pick_seed=seed)
    names = replace(names, persona=expand(persona, names))
    return lambda text: expand(text, names)


def _called(character: Character) -> str:
    """What `{{char}}` becomes: the nickname of a V3 card, else the name."""
    data: Any = character.raw.get("data", character.raw)
    nickname = data.get("nickname") if isinstance(data, dict) else None
    return nickname if isinstance(nickname, str) and nickname.strip() else character.name


def _example_messages(character: Character, user: str, write: Callable[[str], str]) -> list[Message]:
    """Lines `{{user}}: ...` and `{{char}}: ...` as messages; text before the first such line of a block is the character's."""
    roles: dict[str, Role] = {"{{user}}": "user", "<user>": "user", user.lower(): "user", "{{char}}": "assistant",
                              "<bot>": "assistant", "<char>": "assistant", _called(character).lower(): "assistant"}
    turns: list[tuple[Role, list[str]]] = []
    for block in _BLOCK.split(character.example_dialogue):
        turns.append(("assistant", []))
        for line in block.strip().split("\n"):
            name, colon, rest = line.partition(":")
            role = roles.get(name.strip().lower()) if colon else None
            if role is None:
                turns[-1][1].append(line)
            else:
                turns.append((role, [rest.strip()]))
    written = [(role, write("\n".join(lines)).strip()) for role, lines in turns]
    return [message(role, text) for role, text in written if text]
