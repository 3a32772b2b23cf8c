"""Random choices for the generators, which keep the training part and the held-out part of every list apart."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Literal, TypeVar

from . import words

Split = Literal["train", "held_out"]
T = TypeVar("T")

# Of made-up words. The usual vowels stand there twice.
ONSETS = (
    "b", "bl", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "g", "gl", "gr", "h", "j", "k", "l", "m", "n", "p",
    "pl", "qu", "r", "s", "sh", "sk", "sl", "sn", "sp", "st", "t", "th", "tr", "v", "w", "wh", "y", "z")
VOWELS = (
    "a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ee", "oo", "ea", "ai", "ou", "y")
CODAS = (
    "b", "ck", "d", "g", "l", "ll", "lt", "m", "mp", "n", "nd", "ng", "nt", "p", "r", "rd", "rk", "rn", "rt", "s", "sh",
    "sk", "ss", "st", "t", "th", "tt", "w", "x")
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
            name = self.invented().capitalize() if self.chance(0.4) else name
            if len(name) > 3 and is_held_out_name(name) == (self.split == "held_out"):
                return name, pronoun

    def name(self) -> str:
        """A name without a pronoun."""
        return self.person()[0]

    def invented(self) -> str:
        """A made-up small word of one to three syllables; the training part alone asks for them."""
        text = "".join(self.any(ONSETS) + self.any(VOWELS) + (self.any(CODAS) if self.chance(0.5) else "")
                       for _ in range(self.any((1, 2, 2, 2, 3))))
        return text if len(text) > 3 else text + self.any(CODAS)

    def value(self, choices: Sequence[str], *, invented: float = 0.35) -> str:
        """A word to be copied: of the list, or in the training part sometimes made up, so that copying needs no known word."""
        if self.split == "held_out" or not self.chance(invented):
            return self.word(choices)
        last = self.word(choices).split(" ")[-1]
        return f"{self.invented()} {last}" if self.chance(0.25) else self.invented()

    def mark(self, choices: Sequence[str]) -> str:
        """Words that stand at a reply's beginning or end: of the list, or in the training part mostly made up in their form."""
        if self.split == "held_out" or not self.chance(0.7):
            return self.word(choices)
        pool = (words.OBJECTS, words.ANIMALS, words.FOODS, words.COLOURS, words.RELATIONS, words.WHENS, words.DRINKS)
        told = [self.value(self.any(pool), invented=0.3) for _ in range(self.any((1, 2)))]
        lead = self.any(("my", "dear", "and", "old", "so", "by", "what", "good", "little", "as", "mind the", "and the", "over",
                         ""))
        text = " ".join([*([lead] if lead else []), self.any((" and ", " ", " of the ", " as ")).join(told)])
        sample = self.any(choices)
        return text[0].upper() + text[1:] + sample[-1] if sample[-1] in "!:" else text

    def plan(self) -> str:
        """Something to do: of the list, or in the training part sometimes put together."""
        if self.split == "held_out" or not self.chance(0.4):
            return self.word(words.PLANS)
        verb = self.any(("visit", "paint", "fix", "buy", "find", "clean", "sell", "draw", "meet", "feed", "carry", "write about",
                         "look at", "wash", "move", "make", "see", "call", "cook for", "play with", "read about", "talk to",
                         self.invented()))
        which = self.any(("a", "the", "my", "some", "an old", "my new", "all the", "three", "our", "this"))
        noun = self.any((words.OBJECTS, words.ANIMALS, words.RELATIONS, tuple(words.TRADES)))
        where = self.any(("", "", "", "in the garden", "at home", "by the river", f"in {self.place()}", f"with {self.name()}"))
        return " ".join(part for part in (verb, which, self.value(noun), where) if part)

    def place(self) -> str:
        """A town: of the list, or in the training part sometimes made up."""
        if self.split == "held_out" or not self.chance(0.4):
            return self.word(words.PLACES)
        ends = ("bury", "ford", "ton", "field", "mouth", "wick", "port", " Hill", " Bay", "stad", "bridge", "")
        return self.invented().capitalize() + self.any(ends)


def a(noun: str) -> str:
    """The noun with a or an in front."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
