"""Mirostat 1 and 2: keep the surprise of the text, in bits as llama.cpp counts it, at tau (Basu et al., arXiv:2007.14966)."""

from __future__ import annotations

import math

from .candidates import Candidates, probabilities
from .filters import top_k

N_FOR_ESTIMATE = 100  # llama.cpp's m: how many of the most likely tokens the estimate of the distribution's shape uses


class Mirostat:
    """The running estimate `mu` of one run; `narrow` uses it before a draw, `observe` corrects it after."""

    def __init__(self, mode: int, *, tau: float, eta: float, vocab_size: int) -> None:
        self.mode, self.tau, self.eta, self.vocab_size = mode, tau, eta, vocab_size
        self.mu = 2 * tau

    def narrow(self, candidates: Candidates) -> Candidates:
        """The candidates that are not more surprising than mu allows; never none."""
        if len(candidates) < 2:
            return candidates
        if self.mode == 1:
            return top_k(candidates, self._wanted_k(candidates))
        mask = probabilities(candidates) >= 2.0 ** -self.mu
        return candidates.where(mask) if mask.any() else top_k(candidates, 1)

    def observe(self, chance: float) -> None:
        """Learn from a drawn token whose probability among the narrowed candidates was `chance`."""
        self.mu -= self.eta * (-math.log2(max(chance, 1e-300)) - self.tau)

    def _wanted_k(self, candidates: Candidates) -> int:
        """How many to keep, from Zipf's exponent estimated on the most likely tokens (the paper's equations 3 and 5)."""
        import numpy as np

        best = top_k(candidates, N_FOR_ESTIMATE).logits
        best = best[best > -np.inf].astype(np.float64)
        if len(best) < 2:
            return 1
        ranks = np.arange(1, len(best), dtype=np.float64)
        steps = np.log((ranks + 1) / ranks)
        exponent = float((steps * (best[:-1] - best[1:])).sum() / (steps * steps).sum())
        excess = exponent - 1
        if exponent <= 0 or excess == 0:
            return len(candidates)
        try:
            k = (excess * 2.0 ** self.mu / (1 - self.vocab_size ** -excess)) ** (1 / exponent)
        except (OverflowError, ZeroDivisionError):
            return len(candidates)
        return min(max(int(k), 1), len(candidates))
