"""The sampler of one run: logits in, token id out, by the steps that the run's parameters ask for, in their declared order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modules.core.params import GenerationParams

from . import filters
from .candidates import Candidates, probabilities
from .draw import Draw
from .dry import Dry
from .mirostat import Mirostat
from .penalties import UsedTokens
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Step = Callable[[Candidates], Candidates]

# The parameters that this chain honours; a loader that samples with it puts them into its spec.
HONOURED = frozenset({
    "logit_bias", "ban_eos", "repetition_penalty", "frequency_penalty", "presence_penalty", "repetition_penalty_range",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "top_n_sigma", "top_k",
    "typical_p", "top_p", "min_p", "xtc_probability", "xtc_threshold", "temperature", "mirostat_mode", "mirostat_tau",
    "mirostat_eta"})
FORBIDDEN = -100.0


@dataclass(frozen=True)
class Alternatives:
    """What the model itself thought of a token: log-probabilities before any sampler. top: (id, logprob), best first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Draws the tokens of one run. Not shared between runs; `choose` for a token, then the next logits.

    seed: 0 or more (the caller has replaced -1). prompt: the run's prompt ids, which the penalties and DRY count too. context:
    the model's context length, what a range of 0 means. Equal arguments and logits give equal tokens.
    """

    def __init__(self, params: GenerationParams, prompt: Sequence[int], *, seed: int, vocabulary: Vocabulary, vocab_size: int,
                 context: int, eog_ids: Sequence[int]) -> None:
        self.params = params
        self.draw = Draw(seed)
        self.bias = {token: float("-inf") if bias <= FORBIDDEN else bias for token, bias in params.logit_bias.items()}
        if params.ban_eos:
            self.bias.update(dict.fromkeys(eog_ids, float("-inf")))
        self.used = self._count_used(prompt, vocab_size)
        self.dry = None
        if params.dry_multiplier > 0:
            self.dry = Dry(prompt, vocabulary.breakers(params.dry_sequence_breakers),
                           last_n=min(params.dry_penalty_last_n or context, context), multiplier=params.dry_multiplier,
                           base=params.dry_base, allowed_length=params.dry_allowed_length)
        self.mirostat = None
        if params.mirostat_mode and params.temperature > 0:
            self.mirostat = Mirostat(params.mirostat_mode, tau=params.mirostat_tau, eta=params.mirostat_eta,
                                     vocab_size=vocab_size)
        self.steps = self._filter_steps()

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Draw the next token from (vocab_size,) float32 logits, which may be overwritten, and count it as used."""
        candidates = self.narrow(logits)
        row = self.draw.pick(candidates)
        if self.mirostat is not None:
            self.mirostat.observe(float(probabilities(candidates)[row]))
        token = candidates.id_at(row)
        if self.used is not None:
            self.used.accept(token)
        if self.dry is not None:
            self.dry.accept(token)
        return token

    def narrow(self, logits: NDArray[np.float32]) -> Candidates:
        """All that comes before the draw: the tokens that may be drawn, their logits scaled by the temperature."""
        self.draw.next_step()
        for token, bias in self.bias.items():
            if token < len(logits):
                logits[token] += bias
        if self.used is not None:
            self.used.apply(logits)
        if self.dry is not None:
            self.dry.apply(logits)
        candidates = Candidates(logits)
        for step in self.steps:
            candidates = step(candidates)
        return candidates

    def _count_used(self, prompt: Sequence[int], vocab_size: int) -> UsedTokens | None:
        params = self.params
        if params.repetition_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0:
            return None
        used = UsedTokens(vocab_size, params.repetition_penalty_range, repetition=params.repetition_penalty,
                          frequency=params.frequency_penalty, presence=params.presence_penalty)
        used.accept_all(prompt[-params.repetition_penalty_range:])
        return used

    def _filter_steps(self) -> list[Step]:
        """The steps over candidates whose value is not neutral, in their order."""
        params = self.params
        scale: Step = lambda c: filters.temperature(c, params.temperature)  # noqa: E731
        if self.mirostat is not None:
            # As in llama.cpp, mirostat follows the temperature: it must see the probabilities that are drawn from.
            return [scale, self.mirostat.narrow]
        if params.temperature == 0 and params.typical_p == 1 and params.xtc_probability == 0:
            return [filters.greedy]  # the other steps keep the best token
        table: list[tuple[bool, Step]] = [
            (params.top_n_sigma > 0, lambda c: filters.top_n_sigma(c, params.top_n_sigma)),
            (params.top_k > 0, lambda c: filters.top_k(c, params.top_k)),
            (params.typical_p < 1, lambda c: filters.typical_p(c, params.typical_p)),
            (params.top_p < 1, lambda c: filters.top_p(c, params.top_p)),
            (params.min_p > 0, lambda c: filters.min_p(c, params.min_p)),
            (params.xtc_probability > 0, self._maybe_exclude_top_choices),
            (params.temperature == 0, filters.greedy),
            (params.temperature not in (0, 1), scale)]
        return [step for is_on, step in table if is_on]

    def _maybe_exclude_top_choices(self, candidates: Candidates) -> Candidates:
        if self.draw.coin() >= self.params.xtc_probability:
            return candidates
        return filters.exclude_top_choices(candidates, self.params.xtc_threshold)


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(vocab_size,) float32 natural logarithms of the softmax."""
    import numpy as np

    shifted = logits - logits.max()
    found: NDArray[np.float32] = shifted - np.float32(np.log(np.exp(shifted).sum(dtype=np.float64)))
    return found


def alternatives(log_chances: NDArray[np.float32], token: int, count: int) -> Alternatives:
    """The token's log-probability and the `count` most likely tokens beside it."""
    from .candidates import best_rows

    rows = best_rows(log_chances, count)
    return Alternatives(float(log_chances[token]), tuple((int(row), float(log_chances[row])) for row in rows))
