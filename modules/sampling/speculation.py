"""Speculation: tokens guessed ahead are checked in one forward pass, and each is kept only where the sampler chooses it too.

The reply's distribution is the model's own, whatever is guessed (Leviathan et al. 2023, "Fast Inference from Transformers via
Speculative Decoding"): each position is sampled from the model's logits with the run's own samplers, and what was guessed after
the first difference is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .draft_model import Draft, DraftModel

SIZES = (3, 2)  # tokens that have to agree, the longer first
MOST_SHIFT = 21  # bits of one token id in a key: vocabularies of up to two million
FIRST_CHANCE = 0.7  # that a guess is right, before any was checked
LEARNING = 0.1  # the share of what was seen last in the averages
DRIFT = 0.005  # how much of the way back to FIRST_CHANCE the chance goes with each guess that was not worth checking
FIRST_COST = 0.1  # of a plain step, for each guess that is checked with it


class Drafter(Protocol):
    """Guesses how one run goes on. On the loader's thread. is_free: asking costs no time worth counting."""

    is_free: bool

    def add(self, token: int) -> None:
        """The run goes on with this token."""

    def draft(self, n: int) -> list[int] | None:
        """At most n tokens that may follow; [] where there is no guess, None while it is not ready to guess. Asked again before
        `add`, it may guess again."""


class Lookup:
    """Guesses that what followed the last few tokens before follows them again: quotes, code, lists, names.

    Prompt lookup (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding), with an index, so that neither a token nor a
    guess costs more in a long chat: some 300 bytes a token.
    """

    is_free = True

    def __init__(self, ids: Sequence[int]) -> None:
        """ids: the prompt."""
        self._ids: list[int] = []
        self._after: dict[int, int] = {}  # by the last tokens, where the one after them stands
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        for size in SIZES:
            if len(self._ids) >= size:
                self._after[_key(self._ids, size)] = len(self._ids)
        self._ids.append(token)

    def draft(self, n: int) -> list[int]:
        for size in SIZES:
            found = self._after.get(_key(self._ids, size)) if len(self._ids) >= size else None
            if found is not None:
                return self._ids[found:found + n]
        return []


def _key(ids: list[int], size: int) -> int:
    key = size
    for token in ids[-size:]:
        key = key << MOST_SHIFT | token
    return key


class Costs:
    """What a step takes with and without guesses, from the loader's own steps; one for all runs of a model."""

    def __init__(self) -> None:
        self._plain = 0.0  # seconds
        self._each = 0.0  # seconds more for each guess

    def took(self, n_guesses: int, seconds: float) -> None:
        """A step of one run alone, with so many guesses; making them counts too."""
        if not n_guesses:
            self._plain = _average(self._plain, seconds)
        elif self._plain:
            self._each = _average(self._each, max(0.0, seconds - self._plain) / n_guesses)

    def of(self, n_guesses: int) -> float:
        """In plain steps."""
        if not self._plain:
            return 1 + FIRST_COST * n_guesses
        each = self._each / self._plain if self._each else FIRST_COST
        return 1 + each * n_guesses


class Guesses:
    """One run's guesses: how many are worth their while, by how often they were right and what checking them costs."""

    def __init__(self, drafter: Drafter, costs: Costs, *, most: int) -> None:
        """most: guesses at once."""
        self._drafter = drafter
        self._costs = costs
        self._most = most
        self._chance = FIRST_CHANCE
        self.n_guessed = self.n_right = self.n_last = 0  # n_last: in the last step
        self._in_vain: bool | None = False  # the drafter was asked for the last step and knew nothing; None: it was not ready

    def next(self, room: int) -> list[int]:
        """What to check with the next step, at most `room` tokens."""
        self._in_vain = False
        wanted = self._worthwhile(min(self._most, room))
        if not wanted:
            self._chance += DRIFT * (FIRST_CHANCE - self._chance)
            return []
        found = self._drafter.draft(wanted)
        if not found and not self._drafter.is_free:
            self._in_vain = None if found is None else True
            self._chance -= LEARNING * self._chance if self._in_vain else 0.0
        return found or []

    def took(self, guesses: Sequence[int], sampled: Sequence[int]) -> None:
        """A step has sampled these, of which the first may be guesses that were right."""
        n_right = 0
        for guess, token in zip(guesses, sampled, strict=False):
            if guess != token:
                break
            n_right += 1
        # A guess after a wrong one was never looked at.
        n_seen = min(len(guesses), n_right + 1)
        for i in range(n_seen):
            self._chance += LEARNING * ((i < n_right) - self._chance)
        self.n_last = len(guesses)
        self.n_guessed += len(guesses)
        self.n_right += n_right
        for token in sampled:
            self._drafter.add(token)

    def lasted(self, seconds: float) -> None:
        """The last step of this run, written alone, took so long, with what asking the drafter took."""
        if self._in_vain is not None:
            self._costs.took(1 if self._in_vain else self.n_last, seconds)

    def _worthwhile(self, most: int) -> int:
        """The number of guesses with the most tokens to be expected for the time; 0 where plain steps are the fastest."""
        best, best_rate, expected, chance = 0, 1.0, 1.0, 1.0
        for n in range(1, most + 1):
            chance *= self._chance
            expected += chance
            rate = expected / self._costs.of(n)
            if rate > best_rate:
                best, best_rate = n, rate
        return best


def _average(average: float, seen: float) -> float:
    return average + LEARNING * (seen - average) if average else seen


class Speculation:
    """Who guesses for the runs of a loaded model."""

    def __init__(self, *, most: int, draft: DraftModel | None = None) -> None:
        """most: guesses at once; 0: nobody guesses. draft: who does; None looks them up in the text."""
        self.costs = Costs()
        self._most = most
        self._draft = draft

    def guesses(self, prompt: Sequence[int]) -> Guesses | None:
        """A run's, or None where nobody guesses."""
        if not self._most:
            return None
        drafter = Draft(self._draft, prompt) if self._draft is not None else Lookup(prompt)
        return Guesses(drafter, self.costs, most=self._most)
