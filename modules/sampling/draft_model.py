"""A second, smaller model that guesses how a reply goes on; what it says is only ever a guess (speculation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

LEAST_CHANCE = 0.4  # of a guess, by the draft model; less likely ones are not worth the model's look


class Evaluator(Protocol):
    """A model with one text in its cache, on the loader's thread."""

    def keep(self, length: int) -> int:
        """Forget all but the first `length` tokens of the text; returns how many are left, `length` or 0."""

    def evaluate(self, ids: Sequence[int], n_held: int) -> np.ndarray | None:
        """Add these ids to the text, which has n_held; (vocab,) float32 logits after the last, or None where that failed and the
        text is now empty. The array may be overwritten by the next call."""


class DraftModel:
    """Holds the text of the run that asked last.

    size: tokens that its context holds; capacity: ids that it evaluates at once; n_usable: its tokens from 0 to here are the
    model's own too.
    """

    def __init__(self, evaluator: Evaluator, *, size: int, capacity: int, n_usable: int) -> None:
        self._evaluator = evaluator
        self._size, self._capacity, self._n_usable = size, capacity, n_usable
        self._held: list[int] = []
        self._owner: Draft | None = None

    def guess(self, draft: Draft, n: int) -> list[int] | None:
        """Up to n tokens that are likely to follow the draft's ids; None while it catches up with a long text, or cannot."""
        import numpy as np

        ids = draft.ids
        if len(ids) + n > self._size:
            return None
        self._turn_to(draft)
        waiting = ids[len(self._held):][:self._capacity]
        is_behind = len(self._held) + len(waiting) < len(ids)
        found: list[int] = []
        while True:
            row = self._evaluate(waiting)
            if row is None or is_behind:
                return None
            token = int(row.argmax())
            if 1 / float(np.exp(row - row[token]).sum(dtype=np.float64)) < LEAST_CHANCE:
                return found
            found.append(token)
            if len(found) == n:
                return found
            waiting = [token]

    def _turn_to(self, draft: Draft) -> None:
        """Keep of what is held what the draft's ids begin with, but not the last of them: its logits are wanted."""
        n = draft.n_same if self._owner is draft else 0
        while n < min(len(self._held), len(draft.ids)) and self._held[n] == draft.ids[n]:
            n += 1
        n = min(n, len(draft.ids) - 1)
        if n < len(self._held):
            n = self._evaluator.keep(n)
            del self._held[n:]
        self._owner, draft.n_same = draft, n

    def _evaluate(self, ids: Sequence[int]) -> np.ndarray | None:
        row = self._evaluator.evaluate(ids, len(self._held))
        if row is None:
            self._held = []
            return None
        self._held += ids
        return row[:self._n_usable]


class Draft:
    """One run's text for the draft model (speculation.Drafter). n_same: how much of it the model is known to hold."""

    is_free = False

    def __init__(self, model: DraftModel, prompt: Sequence[int]) -> None:
        self.ids = list(prompt)
        self.n_same = 0
        self._model = model

    def add(self, token: int) -> None:
        self.ids.append(token)

    def draft(self, n: int) -> list[int] | None:
        return self._model.guess(self, n)


def other_token(mine: Sequence[bytes], others: Sequence[bytes]) -> int | None:
    """The first id that does not mean the same in two vocabularies, as far as both go; None where all do."""
    return next((i for i, (one, other) in enumerate(zip(mine, others, strict=False)) if one != other), None)
