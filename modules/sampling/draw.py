"""The draw: which of the candidates is taken, decided by noise that belongs to (seed, step, token id) alone.

An exponential race (Gumbel-max): token i finishes at E_i / weight_i, and the first one wins, with exactly its probability.
Because each token has noise of its own, a change in the last bits of the logits (another chunking of the prompt, a warm instead
of a cold KV cache, a longer list of candidates) alters the winner about as seldom as it alters the distribution; inverting a
cumulative sum would pass every such change on to all tokens after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .candidates import Candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MASK = 0xFFFFFFFFFFFFFFFF
COIN = -1  # the noise "id" of a step's yes-or-no decision


def mix64(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood, 2014): every bit of the input moves every bit of the output."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def uniform(ids: NDArray[np.int64], key: int) -> NDArray[np.float32]:
    """(n,) float32 over 0 and at most 1 - 2^-24, a pure function of each id and the 64-bit key; fine steps near 0.

    Two rounds of a 32-bit finaliser (MurmurHash3's fmix32), each with half of the key.
    """
    import numpy as np

    x = ids.astype(np.uint32)
    for half in (key & 0xFFFFFFFF, key >> 32):
        x += np.uint32(half)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
    found = x.astype(np.float32)
    found += np.float32(0.5)
    found *= np.float32(2.0**-32)
    np.minimum(found, np.float32(1 - 2.0**-24), out=found)
    return found


class Draw:
    """One run's stream of decisions: `next_step` before each token, then `pick` and, where needed, `coin`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = -1
        self.key = 0

    def next_step(self) -> None:
        self.step += 1
        self.key = mix64(mix64(self.seed & MASK) ^ self.step)

    def coin(self) -> float:
        """A number in (0, 1) for this step."""
        return (mix64(self.key ^ (COIN & MASK)) >> 11) * 2.0**-53

    def pick(self, candidates: Candidates) -> int:
        """The row of the winner."""
        import numpy as np

        if len(candidates) == 1:
            return 0
        finish = uniform(candidates.id_array(), self.key)
        # log(weight) - log(E) with E = -log(1 - u): the greatest is the first to finish. An unlikely token wins by a tiny E,
        # which a tiny u gives to full precision.
        np.negative(finish, out=finish)
        np.log1p(finish, out=finish)
        np.negative(finish, out=finish)
        np.log(finish, out=finish)
        return int((candidates.logits - finish).argmax())
