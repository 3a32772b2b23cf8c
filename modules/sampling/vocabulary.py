"""What samplers must know of the model's tokens: their bytes, and how a text becomes tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_BREAKER_BYTES = 40
MAX_TAIL_TOKENS = 20

Breakers = dict[int, tuple[tuple[int, ...], ...]]
"""Head token -> the token sequences that may follow it to complete a DRY sequence breaker; () is a breaker by itself."""


@dataclass(frozen=True)
class Vocabulary:
    """pieces: each token's bytes by id. tokenize(text): ids without BOS, control tokens not recognised."""

    pieces: Sequence[bytes]
    tokenize: Callable[[str], list[int]]
    _known: dict[str, Breakers] = field(default_factory=dict, repr=False)

    def breakers(self, strings: Sequence[str]) -> Breakers:
        """Every token that holds, or begins at its end, one of the strings, with the tails that complete it.

        A string of over 40 bytes is cut there and a tail at 20 tokens, as in llama.cpp, so that a run's work stays bounded.
        """
        merged: dict[int, dict[tuple[int, ...], None]] = {}
        for string in strings:
            if string and string not in self._known:
                if len(self._known) >= 256:
                    self._known.clear()
                self._known[string] = self._find(string)
            for head, tails in self._known.get(string, {}).items():
                merged.setdefault(head, {}).update(dict.fromkeys(tails))
        return {head: tuple(tails) for head, tails in merged.items()}

    def _find(self, string: str) -> Breakers:
        wanted = string.encode()[:MAX_BREAKER_BYTES]
        tails = {cut: self._tail(wanted[cut:]) for cut in range(1, len(wanted))}
        found: Breakers = {}
        for token, piece in enumerate(self.pieces):
            if wanted in piece:
                found[token] = ((),)
                continue
            cuts = [cut for cut in range(1, len(wanted)) if piece.endswith(wanted[:cut])]
            ends = {tail: None for cut in cuts if (tail := tails[cut])}
            if ends:
                found[token] = tuple(ends)
        return found

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        """Tokens of the rest of a breaker; () where the cut is inside a character, which no tail of text can complete."""
        try:
            return tuple(self.tokenize(rest.decode())[:MAX_TAIL_TOKENS])
        except UnicodeDecodeError:
            return ()
