"""Repetition, frequency and presence penalty over the last tokens, counted as they come and never recounted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class UsedTokens:
    """How often each token stands among the last `last_n` ones (0: all). One run's own, changed by `accept` alone.

    The three penalties mean what llama.cpp's do: a used token's logit is divided by `repetition` where positive and
    multiplied where not, then loses count * frequency + presence.
    """

    def __init__(self, vocab_size: int, last_n: int, *, repetition: float, frequency: float, presence: float) -> None:
        import numpy as np

        self.repetition, self.frequency, self.presence = repetition, frequency, presence
        self.window: deque[int] | None = deque(maxlen=last_n) if last_n else None
        self.counts: NDArray[np.int32] = np.zeros(vocab_size, dtype=np.int32)
        self.was_used: NDArray[np.bool_] = np.zeros(vocab_size, dtype=np.bool_)
        self.used: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self.n_used = 0

    def accept(self, token: int) -> None:
        """Count one more token, and forget the one that leaves the window."""
        if token >= len(self.counts):
            return
        if self.window is not None:
            if len(self.window) == self.window.maxlen:
                self.counts[self.window[0]] -= 1
            self.window.append(token)
        self.counts[token] += 1
        if not self.was_used[token]:
            self.was_used[token] = True
            self._note_first_use(token)

    def accept_all(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.accept(token)

    def _note_first_use(self, token: int) -> None:
        import numpy as np

        if self.n_used == len(self.used):
            self.used = np.concatenate([self.used, np.zeros_like(self.used)])
        self.used[self.n_used] = token
        self.n_used += 1

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Write the penalties into `logits`, (vocab_size,) float32."""
        import numpy as np

        ids = self.used[: self.n_used]
        counts = self.counts[ids]
        if self.window is not None:
            ids, counts = ids[counts > 0], counts[counts > 0]
        found = logits[ids]
        found = np.where(found <= 0, found * np.float32(self.repetition), found / np.float32(self.repetition))
        logits[ids] = found - (counts * np.float32(self.frequency) + np.float32(self.presence))
