"""Rows of logits and samplers for the tests of sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modules.core.params import GenerationParams
from modules.sampling.candidates import Candidates, probabilities
from modules.sampling.chain import Sampler
from modules.sampling.vocabulary import Vocabulary

VOCAB = 1000


def random_logits(seed: int, size: int = VOCAB, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def plain_vocabulary() -> Vocabulary:
    return Vocabulary([bytes([n]) for n in range(256)], lambda text: list(text.encode()))


def sampler(params: GenerationParams, prompt: Sequence[int] = (), *, seed: int = 1, size: int = VOCAB) -> Sampler:
    return Sampler(params, prompt, seed=seed, vocabulary=plain_vocabulary(), vocab_size=size, context=4096, eog_ids=(2,))


def chances(candidates: Candidates) -> dict[int, float]:
    return dict(zip(candidates.id_array().tolist(), probabilities(candidates).tolist(), strict=True))
