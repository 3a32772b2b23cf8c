"""Replaces `{{char}}`, `{{user}}`, `{{roll:2d6}}` and their like in card texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import regex

MAX_DICE = 1000
MAX_SIDES = 1_000_000
_MACRO = regex.compile(r"\{\{([^{}]*)\}\}|<(USER|BOT|CHAR)>", regex.IGNORECASE)
_DICE = regex.compile(r"(\d{0,4})d?(\d{1,7})", regex.IGNORECASE)
_CHOICES = regex.compile(r"(?<!\\),")


@dataclass(frozen=True)
class Names:
    """What the macros stand for. now and seed are given, so that equal values give equal text.

    seed: of `{{random}}`, `{{roll}}` and `{{pick}}`; give one for each expansion, and one for each chat as pick_seed.
    """

    char: str
    user: str
    persona: str = ""
    now: datetime = datetime.min
    seed: int = 0
    pick_seed: int = 0


def expand(text: str, names: Names) -> str:
    """`text` with its macros replaced, once: what a macro brings in is not read again. Unknown macros stay as they are."""
    chance = random.Random(names.seed)

    def replace(match: regex.Match[str]) -> str:
        body = match[1] if match[1] is not None else {"user": "user"}.get(match[2].lower(), "char")
        name, _, argument = body.strip().partition(":")
        if name.startswith("//"):
            return ""
        macro = _MACROS.get(name.strip().lower())
        found = macro(names, argument.removeprefix(":"), chance, match.start()) if macro is not None else None
        return match[0] if found is None else found

    return str(_MACRO.sub(replace, text))


Macro = Callable[[Names, str, random.Random, int], str | None]


def _choices(argument: str) -> list[str]:
    """`a,b` or `a::b`; `\\,` is a comma within a choice."""
    parts = argument.split("::") if "::" in argument else _CHOICES.split(argument)
    return [part.strip().replace("\\,", ",") for part in parts]


def _roll(argument: str, chance: random.Random) -> str | None:
    """`d6`, `2d6` or `6`; None where it is no dice or too many."""
    match = _DICE.fullmatch(argument.strip())
    if match is None:
        return None
    count, sides = (int(match[1] or 1), int(match[2])) if "d" in argument.lower() else (1, int(argument))
    if not 1 <= count <= MAX_DICE or not 1 <= sides <= MAX_SIDES:
        return None
    return str(sum(chance.randint(1, sides) for _ in range(count)))


_MACROS: dict[str, Macro] = {
    "char": lambda names, _, __, ___: names.char,
    "user": lambda names, _, __, ___: names.user,
    "persona": lambda names, _, __, ___: names.persona,
    "time": lambda names, _, __, ___: names.now.strftime("%H:%M"),
    "date": lambda names, _, __, ___: names.now.strftime("%Y-%m-%d"),
    "weekday": lambda names, _, __, ___: names.now.strftime("%A"),
    "random": lambda _, argument, chance, __: chance.choice(_choices(argument)),
    "pick": lambda names, argument, _, place: random.Random(f"{names.pick_seed}/{place}").choice(_choices(argument)),
    "roll": lambda _, argument, chance, __: _roll(argument, chance),
    "reverse": lambda _, argument, __, ___: argument[::-1],
    "comment": lambda _, __, ___, ____: "",
    "hidden_key": lambda _, __, ___, ____: "",
    "newline": lambda _, __, ___, ____: "\n",
}
