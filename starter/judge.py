"""Judges replies by stated rules: the words that must and must not be there, from a word's start, and no broken word."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from itertools import islice

from . import words
from .chat import Check
from .corpus import documents

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
LEXICON_DOCUMENTS = 6000


def holds(text: str, spelling: str) -> bool:
    """Whether the text holds the spelling, from a word's start and in any case; a number must also end there."""
    return re.search(rf"(?<!\w){re.escape(spelling)}", text, re.IGNORECASE) is not None and (
        not spelling[-1].isdigit() or re.search(rf"(?<!\w){re.escape(spelling)}(?!\w)", text) is not None)


def passes(text: str, check: Check) -> bool:
    """Whether a reply holds a word of each wanted group and none of the unwanted."""
    return all(any(holds(text, spelling) for spelling in group) for group in check.wanted) and not any(
        holds(text, spelling) for spelling in check.unwanted)


def words_of(text: str) -> set[str]:
    """The words of a text, small, without a possessive ending."""
    return {re.sub(r"['’]s$", "", word.lower()) for word in _WORD.findall(text)}


@cache
def lexicon(seed: int) -> frozenset[str]:
    """Every word that the training part spells (its first documents) and every word of the wide lists, held-out ones too."""
    found: set[str] = set()
    for made in islice(documents(seed, "train"), LEXICON_DOCUMENTS):
        found |= words_of(made.text)
        for message in made.messages():
            found |= words_of(message["content"])
    for value in vars(words).values():
        if isinstance(value, (tuple, dict)):
            found |= words_of(" ".join(str(item) for item in (value.items() if isinstance(value, dict) else value)))
    return frozenset(found)


def broken_words(reply: str, prompt: str, known: frozenset[str]) -> set[str]:
    """Words of a reply that are neither known nor in the prompt."""
    return words_of(reply) - known - words_of(prompt)


def check_from(body: dict[str, list[list[str]] | list[str]], kind: str) -> Check:
    """A check written by hand as JSON: wanted (groups of spellings) and unwanted (spellings)."""
    unknown = set(body) - {field.name for field in fields(Check)}
    if unknown:
        raise ValueError(f"A check has wanted and unwanted, not {', '.join(sorted(unknown))}.")
    return Check(kind, tuple(tuple(group) for group in body.get("wanted", [])), tuple(map(str, body.get("unwanted", []))))
