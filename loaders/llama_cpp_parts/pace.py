"""How many prompt tokens to evaluate in one step, from the measured speed: a controller without a clock of its own."""

from __future__ import annotations

# A step alone aims below the 500 ms it may take, so that Stop is quick and noise has room.
ALONE_SECONDS = 0.35
# Beside decoding runs a step may take 2.2 plain decode steps: the prompt then gets about half of the machine, the gap the other
# streams see stays even and below 3 of their usual ones, and never above 150 ms.
BESIDE_STEPS = 2.2
BESIDE_SECONDS = 0.14
SMOOTHING = 0.25


class Pace:
    """Chunk sizes for steps with and without decoding runs; fed with every step's duration."""

    def __init__(self, largest: int, decode_seconds: float) -> None:
        """largest: most tokens a batch takes; decode_seconds: one measured decode step of one token."""
        self._largest = largest
        self._decode = {1: max(decode_seconds, 1e-5)}
        self._alone = min(float(largest), max(8.0, ALONE_SECONDS / 2 / self._decode[1]))
        self._beside = 4.0

    def chunk(self, n_decoding: int) -> int:
        """Prompt tokens for the next step beside `n_decoding` tokens of other runs: at least 1.

        From 64 on it is a multiple of 32: kernels work in blocks, and equal runs are then cut equally more often.
        """
        size = int(self._beside if n_decoding else self._alone)
        return max(1, size - size % 32 if size >= 64 else size)

    def decoded(self, n_decoding: int, seconds: float) -> None:
        """A step without prompt tokens took this long."""
        before = self._decode.get(n_decoding)
        # A first or one very slow step (a page fault, another program) must not set the pace.
        self._decode[n_decoding] = seconds if before is None else before + SMOOTHING * (min(seconds, 3 * before) - before)

    def prefilled(self, n_decoding: int, n_tokens: int, seconds: float) -> None:
        """A step with `n_tokens` of a prompt took this long."""
        if n_decoding:
            aim = min(BESIDE_SECONDS, BESIDE_STEPS * self._decode_seconds(n_decoding))
            self._beside = self._next(self._beside, n_tokens, aim / seconds, growth=1.3)
        else:
            self._alone = self._next(self._alone, n_tokens, ALONE_SECONDS / seconds, growth=4.0)

    def _next(self, size: float, n_tokens: int, ratio: float, *, growth: float) -> float:
        """The next size after n_tokens took aim / ratio; a prompt's short last chunk may only lower it."""
        wanted = n_tokens * min(max(ratio, 0.5), growth)
        if n_tokens < int(size) - 32 and wanted > size:
            return size
        return min(max(wanted, 1.0), float(self._largest))

    def _decode_seconds(self, n_decoding: int) -> float:
        """Measured for that many runs, or for the nearest smaller number: an underestimate only makes chunks smaller."""
        return self._decode[max((n for n in self._decode if n <= n_decoding), default=min(self._decode))]
