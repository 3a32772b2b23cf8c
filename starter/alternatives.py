"""Phrasings put together from parts: "I (like|love) it( very much|)" stands for four sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

MOST_OF_ONE = 24  # or the patterns with many small words would be most of what is drawn
_GROUP = re.compile(r"\(([^()]*)\)")


def expand(pattern: str) -> list[str]:
    """All sentences of a pattern, each once; groups may stand inside groups. Runs of spaces become one, outer ones go."""
    found = _GROUP.search(pattern)
    if found is None:
        return [" ".join(pattern.split()).replace(" ,", ",")]
    before, after = pattern[:found.start()], pattern[found.end():]
    made = [sentence for part in found[1].split("|") for sentence in expand(before + part + after)]
    return list(dict.fromkeys(made))


def expanded(patterns: Iterable[str]) -> tuple[str, ...]:
    """The sentences of all patterns, MOST_OF_ONE of each at most, in an order that is mixed and always the same."""
    chance = random.Random(0)
    made: dict[str, None] = {}
    for pattern in patterns:
        sentences = expand(pattern)
        made.update(dict.fromkeys(chance.sample(sentences, min(MOST_OF_ONE, len(sentences)))))
    mixed = list(made)
    chance.shuffle(mixed)
    return tuple(mixed)
