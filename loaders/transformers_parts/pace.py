"""How many prompt tokens one forward pass evaluates, from the time the last ones took."""

from __future__ import annotations

SMALLEST, LARGEST = 16, 4096
ALONE_SECONDS = 0.4
BESIDE_SECONDS = 0.13
# While others decode, a chunk may take two of their steps: no gap of theirs is then over three times the usual one.
BESIDE_STEPS = 2.0


class Pace:
    """Chunk sizes, alone and beside decoding runs. Powers of two that move only when the time is clearly missed, so that equal
    prompts are cut equally and their float sums come out equal."""

    def __init__(self) -> None:
        self._sizes = {True: 256, False: 32}
        self._decode_seconds = 0.0
        self._late: dict[bool, tuple[int, float]] = {}  # tokens and seconds of the last chunk that was late

    def size(self, *, alone: bool) -> int:
        return self._sizes[alone]

    def decoded(self, seconds: float) -> None:
        """All decoding runs together took this long for a token each."""
        before = self._decode_seconds or seconds
        self._decode_seconds = before + 0.2 * (min(seconds, 3 * before) - before)

    def prefilled(self, n_tokens: int, seconds: float, *, alone: bool) -> None:
        """A chunk of n_tokens took this long."""
        budget = ALONE_SECONDS if alone else min(BESIDE_SECONDS, max(BESIDE_STEPS * self._decode_seconds, 0.01))
        size = self._sizes[alone]
        if seconds > budget:
            n_before, seconds_before = self._late.get(alone, (0, 0.0))
            if n_tokens <= n_before // 2 and seconds > 0.8 * seconds_before:
                # Half the tokens took as long: the time is not theirs (other programs have the cores), and ever smaller chunks
                # would only make the prompt take ever longer.
                self._sizes[alone] = n_before
            else:
                self._sizes[alone] = max(size // 2, SMALLEST)
            self._late[alone] = (n_tokens, seconds)
        elif seconds < 0.4 * budget and n_tokens >= size:
            self._sizes[alone] = min(size * 2, LARGEST)
