"""Character cards as YAML: our own keys, and those of text-generation-webui; keys nobody knows survive an edit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.character import Character
from ..core.errors import BadRequest, NotFound
from .shelf import Shelf

MAX_LIST = 256
_LISTS = ("alternate_greetings", "tags")
_TEXTS = tuple(f.name for f in dataclasses.fields(Character) if f.name not in (*_LISTS, "raw"))

# Other spellings of a field, best first; the ones after `context` are text-generation-webui's older keys.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "name": ("char_name", "bot"), "description": ("context", "char_persona"), "scenario": ("world_scenario",),
    "greeting": ("char_greeting",),
}


def character_from(values: Mapping[str, Any], name: str) -> Character:
    """The character of a card's keys; `name` is its file's, for a card without one. Raises BadRequest naming a bad key."""
    fields: dict[str, Any] = {}
    used: set[str] = set()
    for field in (*_TEXTS, *_LISTS):
        key = _spelling(values, field)
        used.add(key)
        value = values.get(key)
        if value is not None:
            fields[field] = _as_list(key, value) if field in _LISTS else _as_text(key, value)
    fields["name"] = fields.get("name", "").strip() or name
    return Character(**fields, raw={key: value for key, value in values.items() if key not in used})


def card_of(character: Character, *, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The card's keys, empty fields left out, in the spelling that the card `like` uses."""
    card: dict[str, Any] = {}
    for field in (*_TEXTS, *_LISTS):
        value = getattr(character, field)
        if value:
            card[_spelling(like or {}, field)] = list(value) if field in _LISTS else value
    return {**card, **{key: value for key, value in character.raw.items() if key not in card}}


def character_to_json(character: Character) -> dict[str, Any]:
    """A JSON object that `character_from_json` reads back, for the copy that a chat keeps."""
    return {**card_of(character), "raw": character.raw}


def character_from_json(body: Mapping[str, Any]) -> Character:
    raw = dict(body.get("raw", {}))
    own = {key: value for key, value in body.items() if key in (*_TEXTS, *_LISTS)}
    return dataclasses.replace(character_from(own, ""), raw=raw)


def _spelling(values: Mapping[str, Any], field: str) -> str:
    """The key under which `values` holds the field: its own name first."""
    return next((key for key in (field, *SPELLINGS.get(field, ())) if key in values), field)


def _as_text(key: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise BadRequest(f"{key} must be text; the card has {type(value).__name__}.", param=key)
    return str(value)


def _as_list(key: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or len(items) > MAX_LIST:
        raise BadRequest(f"{key} must be a list of at most {MAX_LIST} texts.", param=key)
    return tuple(_as_text(key, item) for item in items)


@dataclass(frozen=True)
class Cards:
    """The characters on a shelf, by file name, which may differ from the name in the card."""

    shelf: Shelf

    def names(self) -> list[str]:
        return self.shelf.names()

    def load(self, name: str) -> Character:
        """Raises NotFound, or BadRequest naming the file and what is wrong with it."""
        values = self.shelf.read(name)
        try:
            return character_from(values, name)
        except BadRequest as error:
            raise BadRequest(f"Character {name}: {error.message}", param=error.param) from error

    def save(self, name: str, character: Character) -> None:
        """Write the card as the person's own, in the spelling of the one it replaces.

        A card that is there but cannot be read is not written over: its error is raised.
        """
        try:
            like = self.shelf.read(name)
        except NotFound:
            like = {}
        self.shelf.write(name, card_of(character, like=like))

    def delete(self, name: str) -> None:
        self.shelf.delete(name)
