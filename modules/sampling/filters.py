"""The steps that drop unlikely (or too likely) tokens: each takes candidates and returns those that stay, at least one.

Their meaning is llama.cpp's (src/llama-sampler.cpp), and tests compare them with it step by step, so that a preset does the same
on every loader. A neutral value returns the candidates it was given.
"""

from __future__ import annotations

from .candidates import Candidates, best_rows, probabilities, rows_reaching, sort, weights_of


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k most likely, best first; 0 keeps all."""
    if k <= 0 or (candidates.is_sorted and k >= len(candidates)):
        return candidates
    if candidates.is_sorted:
        return candidates.first(k)
    return candidates.take(best_rows(candidates.logits, k), is_sorted=True)


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of the most likely whose probabilities reach p (Holtzman et al., arXiv:1904.09751); 1 keeps all."""
    if p >= 1:
        return candidates
    weights = weights_of(candidates)
    wanted = p * float(weights.sum(dtype="float64"))
    return candidates.take(rows_reaching(-weights, weights, wanted, (-1e-2, -1e-3, -1e-4, -1e-6)), is_sorted=True)


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Those at least p times as likely as the most likely one (llama.cpp#3841); 0 keeps all."""
    if p <= 0:
        return candidates
    import math

    return candidates.where(candidates.logits >= candidates.logits.max() + math.log(p))


def typical_p(candidates: Candidates, p: float) -> Candidates:
    """Those whose surprise is closest to the expected one, up to mass p (Meister et al., arXiv:2202.00666); 1 keeps all."""
    if p >= 1:
        return candidates
    import numpy as np

    chances = probabilities(candidates)
    surprise = -np.log(np.maximum(chances, np.float32(1e-38)))
    distance = np.abs(surprise - np.float32(np.dot(chances, surprise)))
    rows = rows_reaching(distance, chances, p, (0.5, 1.0, 2.0, 4.0), beyond=True)
    return candidates.take(np.sort(rows))


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Those within n standard deviations of the highest logit (Tang et al., arXiv:2411.07641); 0 keeps all."""
    if n <= 0:
        return candidates
    import numpy as np

    logits = candidates.logits
    finite = logits[logits > -np.inf]
    deviation = float(finite.std(dtype=np.float64)) if len(finite) else 0.0
    return candidates.where(logits >= float(logits.max()) - n * deviation)


def exclude_top_choices(candidates: Candidates, threshold: float) -> Candidates:
    """XTC when its chance has come up: drops all tokens at least `threshold` likely but the least likely of them.

    Described in oobabooga/text-generation-webui#6335. Over 0.5 at most one token can be that likely, so nothing happens.
    """
    if threshold > 0.5 or len(candidates) < 2:
        return candidates
    import numpy as np

    ordered = sort(candidates)
    chances = probabilities(ordered)
    n_likely = int(((chances >= threshold) & (chances > 0)).sum())  # a forbidden token is not a choice, also at threshold 0
    return ordered.take(np.arange(n_likely - 1, len(ordered))) if n_likely > 1 else ordered


def temperature(candidates: Candidates, value: float) -> Candidates:
    """Logits divided by `value`, which is over 0; 1 changes nothing. Temperature 0 is `greedy`."""
    if value == 1:
        return candidates
    import numpy as np

    return Candidates(candidates.logits / np.float32(value), candidates.ids, candidates.is_sorted)


def greedy(candidates: Candidates) -> Candidates:
    """The most likely token alone; of equal ones the first."""
    import numpy as np

    return candidates.take(np.array([candidates.logits.argmax()]), is_sorted=True)
