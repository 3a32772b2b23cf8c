"""A run's samplers as one llama.cpp chain, in the order that GenerationParams documents."""

from __future__ import annotations

import ctypes
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modules.core.errors import BadRequest
from modules.core.params import GenerationParams

from .grammar import check_grammar
from .library import overhear

if TYPE_CHECKING:
    from .vocabulary import Vocabulary

FORBIDDEN = -100.0  # a bias this low or lower forbids the token, as OpenAI's API has it
MIROSTAT_M = 100  # tokens mirostat 1 estimates Zipf's exponent from, as in the paper (arXiv 2007.14966)
MAX_BREAKER_BYTES = 40  # llama.cpp cuts longer ones
KEPT_DRY = 4

PARAMS = frozenset({
    "logit_bias", "ban_eos", "grammar", "repetition_penalty", "frequency_penalty", "presence_penalty", "repetition_penalty_range",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "top_n_sigma", "top_k",
    "typical_p", "top_p", "min_p", "xtc_probability", "xtc_threshold", "temperature", "mirostat_mode", "mirostat_tau",
    "mirostat_eta"})


class Chain:
    """One run's sampler chain. Its owner calls `sample` after each decode and `close` once.

    sample(ctx, index) is llama.cpp's own sampling over the batch's output `index`, or the careful way where a grammar or
    forbidden tokens could leave nothing: llama.cpp would then end the process.
    """

    def __init__(self, c: Any, handle: Any, n_vocab: int, *, is_careful: bool) -> None:
        self._c = c
        self._handle = handle
        self._n_vocab = n_vocab
        self._is_careful = is_careful
        self._candidates: Any = None

    def sample(self, ctx: Any, index: int) -> int:
        """The next token, accepted by every sampler; raises BadRequest where grammar and bans leave none."""
        if not self._is_careful:
            return int(self._c.llama_sampler_sample(self._handle, ctx, index))
        return self._sample_carefully(ctx, index)

    def _sample_carefully(self, ctx: Any, index: int) -> int:
        import numpy as np

        c = self._c
        if self._candidates is None:
            self._candidates = np.empty(self._n_vocab, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]))
        candidates = self._candidates
        candidates["id"] = np.arange(self._n_vocab, dtype=np.int32)
        candidates["logit"] = np.ctypeslib.as_array(c.llama_get_logits_ith(ctx, index), (self._n_vocab,))
        pointer = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(c.llama_token_data))
        array = c.llama_token_data_array(data=pointer, size=self._n_vocab, selected=-1, sorted=False)
        c.llama_sampler_apply(self._handle, ctypes.byref(array))
        chosen = array.data[array.selected] if 0 <= array.selected < array.size else None
        if chosen is None or not math.isfinite(chosen.logit):
            raise BadRequest("The grammar, banned tokens and ban_eos together leave no token to go on with. Loosen the grammar, "
                             "or let the model end its reply.", param="grammar")
        token = int(chosen.id)
        c.llama_sampler_accept(self._handle, token)
        return token

    def close(self) -> None:
        """Free the chain and its samplers; a second call does nothing."""
        if self._handle:
            self._c.llama_sampler_free(self._handle)
            self._handle = None


class Samplers:
    """Builds chains for one model, and keeps what is costly to build.

    DRY's breakers are looked up in the whole vocabulary (tens of milliseconds each): the last few are kept and cloned.
    """

    def __init__(self, c: Any, vocabulary: Vocabulary, context: int) -> None:
        self._c = c
        self._vocabulary = vocabulary
        self._context = context
        self._dry: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def chain(self, params: GenerationParams, prompt: Sequence[int]) -> Chain:
        """One run's chain; penalties and DRY have seen the prompt's last tokens. Raises BadRequest for a bad grammar or bias."""
        c = self._c
        settings = c.llama_sampler_chain_default_params()
        settings.no_perf = True
        handle = c.llama_sampler_chain_init(settings)
        try:
            for sampler in self._steps(params, prompt):
                c.llama_sampler_chain_add(handle, sampler)
        except BaseException:
            c.llama_sampler_free(handle)
            raise
        n_forbidden = sum(bias <= FORBIDDEN for bias in params.logit_bias.values())
        is_careful = bool(params.grammar) or n_forbidden + len(self._vocabulary.eog_ids) >= self._vocabulary.size
        return Chain(c, handle, self._vocabulary.size, is_careful=is_careful)

    def close(self) -> None:
        """Free what is kept."""
        while self._dry:
            self._c.llama_sampler_free(self._dry.popitem()[1])

    def _steps(self, params: GenerationParams, prompt: Sequence[int]) -> list[Any]:
        """Samplers in order; a neutral parameter adds none."""
        c, p = self._c, params
        steps: list[Any] = []
        try:
            if p.logit_bias or p.ban_eos:
                steps.append(self._biases(p))
            if p.grammar:
                steps.append(self._grammar(p.grammar))
            steps += self._penalties(p, prompt)
            seed = p.seed if p.seed >= 0 else secrets.randbits(32) % (2**32 - 1)  # 2**32 - 1 means "any" to llama.cpp
            if p.temperature == 0:
                return [*steps, c.llama_sampler_init_greedy()]
            if not p.mirostat_mode:
                steps += self._truncation(p, seed)
                return [*steps, c.llama_sampler_init_temp(p.temperature), c.llama_sampler_init_dist(seed)]
            steps.append(c.llama_sampler_init_temp(p.temperature))
            if p.mirostat_mode == 1:
                size = self._vocabulary.size
                return [*steps, c.llama_sampler_init_mirostat(size, seed, p.mirostat_tau, p.mirostat_eta, MIROSTAT_M)]
            return [*steps, c.llama_sampler_init_mirostat_v2(seed, p.mirostat_tau, p.mirostat_eta)]
        except BaseException:
            for step in steps:
                c.llama_sampler_free(step)
            raise

    def _truncation(self, p: GenerationParams, seed: int) -> list[Any]:
        c = self._c
        table: list[tuple[bool, Callable[[], Any]]] = [
            (p.top_n_sigma > 0, lambda: c.llama_sampler_init_top_n_sigma(p.top_n_sigma)),
            (p.top_k > 0, lambda: c.llama_sampler_init_top_k(p.top_k)),
            (p.typical_p < 1, lambda: c.llama_sampler_init_typical(p.typical_p, 1)),
            (p.top_p < 1, lambda: c.llama_sampler_init_top_p(p.top_p, 1)),
            (p.min_p > 0, lambda: c.llama_sampler_init_min_p(p.min_p, 1)),
            (p.xtc_probability > 0, lambda: c.llama_sampler_init_xtc(p.xtc_probability, p.xtc_threshold, 1, seed))]
        return [make() for is_on, make in table if is_on]

    def _biases(self, p: GenerationParams) -> Any:
        biases = dict(p.logit_bias)
        bad = next((i for i in biases if not 0 <= i < self._vocabulary.size), None)
        if bad is not None:
            raise BadRequest(f"logit_bias names token {bad}; this model has tokens 0 to {self._vocabulary.size - 1}.",
                             param="logit_bias")
        if p.ban_eos:
            biases.update(dict.fromkeys(self._vocabulary.eog_ids, -math.inf))
        array = (self._c.llama_logit_bias * len(biases))()
        for place, (token, bias) in enumerate(biases.items()):
            array[place].token, array[place].bias = token, bias if bias > FORBIDDEN else -math.inf
        return self._c.llama_sampler_init_logit_bias(self._vocabulary.size, len(biases), array)

    def _grammar(self, text: str) -> Any:
        check_grammar(text)

        def read() -> Any:
            return self._c.llama_sampler_init_grammar(self._vocabulary.handle, text.encode("utf-8", "replace"), b"root")

        sampler = read()
        if not sampler:
            raise BadRequest("The grammar cannot be read: it needs a rule called root and every rule it names, and no rule may "
                             "begin with itself (left recursion). The log says where.", param="grammar", log=overhear(read))
        return sampler

    def _penalties(self, p: GenerationParams, prompt: Sequence[int]) -> list[Any]:
        """Repetition, frequency and presence penalties, then DRY; told of the prompt's end."""
        c = self._c
        found: list[tuple[Any, int]] = []
        if p.repetition_penalty != 1 or p.frequency_penalty or p.presence_penalty:
            n = min(p.repetition_penalty_range or self._context, self._context)
            found.append((c.llama_sampler_init_penalties(
                self._vocabulary.size, n, p.repetition_penalty, p.frequency_penalty, p.presence_penalty), n))
        if p.dry_multiplier:
            n = min(p.dry_penalty_last_n or self._context, self._context)
            try:
                found.append((self._dry_sampler(p, n), n))
            except BaseException:
                for sampler, _ in found:
                    c.llama_sampler_free(sampler)
                raise
        for sampler, n in found:
            for token in prompt[-n:]:
                c.llama_sampler_accept(sampler, token)
        return [sampler for sampler, _ in found]

    def _dry_sampler(self, p: GenerationParams, n: int) -> Any:
        breakers = [text.encode("utf-8", "replace") for text in p.dry_sequence_breakers if text]
        too_long = next((text for text in breakers if len(text) > MAX_BREAKER_BYTES), None)
        if too_long is not None:
            raise BadRequest(f"A DRY sequence breaker has {len(too_long)} bytes; at most {MAX_BREAKER_BYTES} are used. "
                             "Shorten it.", param="dry_sequence_breakers")
        kind = (p.dry_multiplier, p.dry_base, p.dry_allowed_length, n, *breakers)
        if kind not in self._dry:
            if len(self._dry) >= KEPT_DRY:
                self._c.llama_sampler_free(self._dry.popitem(last=False)[1])
            array = (ctypes.c_char_p * max(1, len(breakers)))(*breakers)
            self._dry[kind] = self._c.llama_sampler_init_dry(
                self._vocabulary.handle, p.dry_multiplier, p.dry_base, p.dry_allowed_length, n, array, len(breakers))
        self._dry.move_to_end(kind)
        return self._c.llama_sampler_clone(self._dry[kind])
