"""DRY ("don't repeat yourself"): a penalty on the token that would continue a sequence already written.

Designed by p-e-w (oobabooga/text-generation-webui#5677); meaning and sequence breakers as in llama.cpp, after pi6am's
LostRuins/koboldcpp#982. llama.cpp runs the Z-algorithm over the whole range for every token; here it runs once, over the
prompt, and each token then updates the lengths in place: a match at distance d grows by one or ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .vocabulary import MAX_TAIL_TOKENS, Breakers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOAT_MAX_LOG = 88.7228391  # of the largest float32: keeps the penalty finite


def suffix_matches(newest_first: Sequence[int]) -> list[int]:
    """How many of the last tokens also stand `d` tokens earlier, for d = 1, 2, ...; reads the text backwards.

    The Z-algorithm (Gusfield, Algorithms on Strings, Trees and Sequences, 1.3), linear in the length.
    """
    n = len(newest_first)
    lengths = [0] * n
    left = right = 0  # the match that reaches furthest is newest_first[left:right]
    for start in range(1, n):
        length = min(right - start, lengths[start - left]) if start < right else 0
        while start + length < n and newest_first[length] == newest_first[start + length]:
            length += 1
        lengths[start] = length
        if start + length > right:
            left, right = start, start + length
    return lengths[1:]


class Dry:
    """One run's DRY state, changed by `accept` alone. The work per token is a few vector operations over `last_n` tokens."""

    def __init__(self, prompt: Sequence[int], breakers: Breakers, *, last_n: int, multiplier: float, base: float,
                 allowed_length: int) -> None:
        import numpy as np

        self.last_n, self.multiplier, self.base, self.allowed_length = last_n, multiplier, base, allowed_length
        self.breakers = breakers
        recent = list(prompt[-last_n:])[::-1]
        self.room = 1024
        self.n_tokens = len(recent)
        # Newest first, growing to the left, so that `distance d` is always the same slice of both arrays.
        self.tokens: NDArray[np.int64] = np.zeros(self.n_tokens + self.room, dtype=np.int64)
        self.tokens[self.room:] = recent
        self.matches: NDArray[np.int32] = np.zeros(self.n_tokens + self.room, dtype=np.int32)
        if recent:
            self.matches[: self.n_tokens - 1] = suffix_matches(recent)
        self.since_breaker = self._scan(self.n_tokens)

    def accept(self, token: int) -> None:
        """Append a token: every match either grows by one or is over."""
        if self.room == 0:
            self._make_room()
        n = self.n_tokens
        earlier = self.tokens[self.room: self.room + n]
        self.matches[:n] += 1
        self.matches[:n] *= earlier == token
        self.room -= 1
        self.tokens[self.room] = token
        self.n_tokens = min(n + 1, self.last_n)
        near = self._scan(min(self.n_tokens, MAX_TAIL_TOKENS + 1))
        self.since_breaker = near if near is not None else None if self.since_breaker is None else self.since_breaker + 1

    def _make_room(self) -> None:
        import numpy as np

        n = self.n_tokens
        self.room = max(1024, n)
        self.tokens = np.concatenate([np.zeros(self.room, dtype=np.int64), self.tokens[:n]])
        self.matches = np.concatenate([self.matches[:n], np.zeros(self.room, dtype=np.int32)])

    def _scan(self, depth: int) -> int | None:
        """How many tokens follow the nearest sequence breaker that begins within the last `depth` tokens, or None."""
        if not self.breakers:
            return None
        newest_first = self.tokens[self.room: self.room + depth].tolist()
        for back, head in enumerate(newest_first):
            fitting = [len(tail) for tail in self.breakers.get(head, ())
                       if len(tail) <= back and tuple(newest_first[back - len(tail): back])[::-1] == tail]
            if fitting:
                return back - max(fitting)
        return None

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Write the penalties into `logits`, (vocab_size,) float32."""
        import numpy as np

        n = self.n_tokens
        limit = n if self.since_breaker is None else min(self.since_breaker, n)
        if n <= self.allowed_length or limit < self.allowed_length:
            return
        rows = (self.matches[: n - 1] >= self.allowed_length).nonzero()[0]
        if not len(rows):
            return
        # A match at distance d may not reach out of the window of n tokens, nor across a breaker.
        lengths = np.minimum(np.minimum(self.matches[rows], n - 1 - rows), limit)
        rows, lengths = rows[lengths >= self.allowed_length], lengths[lengths >= self.allowed_length]
        followers = self.tokens[self.room + rows]
        order = np.argsort(lengths, kind="stable")
        longest = dict(zip(followers[order].tolist(), lengths[order].tolist(), strict=True))
        most = int(FLOAT_MAX_LOG / math.log(self.base)) if self.base > 1.000001 else 0
        for token, length in longest.items():
            if () not in self.breakers.get(token, ()) and token < len(logits):
                power = length - self.allowed_length
                logits[token] -= self.multiplier * self.base ** (min(power, most) if most else power)
