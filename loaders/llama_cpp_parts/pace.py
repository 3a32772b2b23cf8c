"""How many prompt tokens to evaluate in one step, from the measured speed: a controller without a clock of its own."""

from __future__ import annotations

# A step alone aims below the 500 ms it may take, so that Stop is quick and noise has room.
ALONE_SECONDS = 0.35
# Beside decoding runs a step may take 2.2 times what their readers wait for a piece of text otherwise, so that the largest gap
# stays below 3 of the usual ones, but never above 150 ms. Readers get a piece about every 30 ms (modules/worker/outbox.py).
BESIDE_PIECES = 2.2
BESIDE_SECONDS = 0.14
PIECE_SECONDS = 0.030
# Quantized matrix products on the CPU take rows by four: 2 and 3 rows take longer than 4 (17 and 29 ms against 22, 125 M).
ROWS = 4
SMOOTHING = 0.25
# On the CPU, flash attention computes batches of 64 and more with one kernel, smaller ones with another, and matrix products
# single tokens with a third; within each, results are equal to the bit however a prompt is cut. So a prompt's pieces stay in one
# of these classes, and a prompt computed alone gives equal logits whatever the machine's speed was at that moment.
LARGE, SMALL = 64, 2


class Pace:
    """Chunk sizes for steps with and without decoding runs; fed with every step's duration."""

    def __init__(self, largest: int, decode_seconds: float) -> None:
        """largest: most tokens a batch takes; decode_seconds: one measured decode step of one token."""
        self._largest = largest
        self._decode = {1: max(decode_seconds, 1e-5)}
        self._alone = min(float(largest), max(8.0, ALONE_SECONDS / 2 / self._decode[1]))
        # A prompt's token takes at most as long as a token decoded by itself; what it really takes is learnt at each step.
        self._is_rest = False  # the last chunk was all that was left
        self._beside = max(float(ROWS), self._beside_aim(1) / self._decode[1])

    def chunk(self, n_decoding: int, n_left: int) -> int:
        """How many of the prompts' `n_left` tokens to evaluate beside `n_decoding` tokens of other runs: at least 1."""
        size = max(SMALL, int(self._beside if n_decoding else self._alone))
        if n_decoding:
            rows = size + n_decoding
            size = max(rows - rows % ROWS, -(-(n_decoding + 1) // ROWS) * ROWS) - n_decoding
        self._is_rest = n_left < size
        least = LARGE if size >= LARGE else SMALL
        if n_left - size < least:  # the rest would fall into another class: take all, or leave enough
            size = n_left if n_left < 2 * least or n_left <= size else n_left - least
        return min(size, self._largest)

    def decoded(self, n_decoding: int, seconds: float) -> None:
        """A step without prompt tokens took this long."""
        before = self._decode.get(n_decoding)
        # A first or one very slow step (a page fault, another program) must not set the pace.
        self._decode[n_decoding] = seconds if before is None else before + SMOOTHING * (min(seconds, 3 * before) - before)

    def prefilled(self, n_decoding: int, n: int, seconds: float) -> None:
        """A step with n prompt tokens beside those of n_decoding runs took this long."""
        if n_decoding:
            self._beside = self._next(self._beside, n, self._beside_aim(n_decoding) / seconds, growth=1.3)
        else:
            self._alone = self._next(self._alone, n, ALONE_SECONDS / seconds, growth=4.0)

    def _next(self, size: float, n: int, ratio: float, *, growth: float) -> float:
        """The next size after a step of n tokens that took aim / ratio. What was left of prompts counts for what it was: a step's
        fixed costs make n * ratio an underestimate, so it raises the size only where more would have fitted for certain."""
        wanted = max(size, n * ratio) if self._is_rest and ratio > 1 else size * max(ratio, 0.5)
        return max(min(wanted, size * growth, float(self._largest)), 1.0)

    def _beside_aim(self, n_decoding: int) -> float:
        return min(BESIDE_SECONDS, BESIDE_PIECES * piece_seconds(self._decode_seconds(n_decoding)))

    def _decode_seconds(self, n_decoding: int) -> float:
        """Measured for that many runs, or for the nearest smaller number: an underestimate only makes chunks smaller."""
        return self._decode[max((n for n in self._decode if n <= n_decoding), default=min(self._decode))]


def piece_seconds(decode_seconds: float) -> float:
    """How often a reader gets a piece of text where a step takes this long."""
    return max(decode_seconds, PIECE_SECONDS)
