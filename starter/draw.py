"""Random choices for the generators, which keep the training part and the held-out part of every list apart."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Literal, TypeVar

from . import words

Split = Literal["train", "held_out"]
T = TypeVar("T")

MIN_SPLIT = 4  # shorter lists of phrasings are used whole in both parts: a lone phrasing cannot be held out


def is_held_out_name(name: str) -> bool:
    """Whether a made-up name belongs to the held-out part: one in eight, by its spelling."""
    return zlib.crc32(name.encode()) % 8 == 0


class Draw:
    """One seeded source of choices for one part of the corpus; not shared between threads."""

    def __init__(self, seed: str, split: Split) -> None:
        self.random = random.Random(seed)
        self.split: Split = split

    def frame(self, frames: Sequence[str]) -> str:
        """A phrasing: every fourth of a list is held out, so that evaluation asks in sentences never trained on."""
        if len(frames) < MIN_SPLIT:
            return self.random.choice(frames)
        held_out = frames[3::4]
        if self.split == "held_out":
            return self.random.choice(held_out)
        return self.random.choice([frame for i, frame in enumerate(frames) if i % 4 != 3])

    def word(self, choices: Sequence[str]) -> str:
        """A word from a wide list: every eighth is held out."""
        if self.split == "held_out":
            return self.random.choice(choices[7::8])
        return self.random.choice([word for i, word in enumerate(choices) if i % 8 != 7])

    def any(self, choices: Sequence[T]) -> T:
        """A choice where nothing is held out."""
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        """True in `share` of the calls."""
        return self.random.random() < share

    def person(self, *, invented: float = 0.6) -> tuple[str, str]:
        """A name with the pronoun she or he; invented ones are spelled from syllables, so that copying must be learned."""
        pronoun = self.any(("she", "he"))
        if not self.chance(invented):
            return self.word(words.GIRLS if pronoun == "she" else words.BOYS), pronoun
        while True:
            first, middle, last = words.SYLLABLES
            name = self.any(first) + (self.any(middle) if self.chance(0.75) else "") + self.any(last)
            if len(name) > 3 and is_held_out_name(name) == (self.split == "held_out"):
                return name, pronoun

    def name(self) -> str:
        """A name without a pronoun."""
        return self.person()[0]


def a(noun: str) -> str:
    """The noun with a or an in front."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
