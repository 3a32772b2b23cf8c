"""Each sampling step keeps the tokens and probabilities that llama.cpp's own sampler keeps on the same logits."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from modules.core.params import GenerationParams
from modules.sampling import filters
from modules.sampling.candidates import Candidates
from modules.sampling.dry import Dry
from modules.sampling.mirostat import Mirostat
from modules.sampling.penalties import UsedTokens
from modules.sampling.vocabulary import Vocabulary

from .logits import VOCAB, chances, random_logits, sampler
from .tiny_models import tiny_gguf

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")


class Llama:
    """llama.cpp's sampler on one row of logits, through its low-level API."""

    def __init__(self, pointer: Any) -> None:
        import llama_cpp

        self.api, self.pointer = llama_cpp, pointer

    def accept(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self.api.llama_sampler_accept(self.pointer, token)

    def apply(self, logits: np.ndarray) -> tuple[dict[int, float], int]:
        """Probabilities by id of the tokens that survive, and the selected token's id or -1."""
        rows = (self.api.llama_token_data * len(logits))(*[(n, float(value), 0.0) for n, value in enumerate(logits)])
        array = self.api.llama_token_data_array(rows, len(logits), -1, False)
        self.api.llama_sampler_apply(self.pointer, ctypes.byref(array))
        found = [(array.data[n].id, array.data[n].logit) for n in range(array.size)]
        selected = array.data[array.selected].id if array.selected >= 0 else -1
        kept = [(token, logit) for token, logit in found if logit > -np.inf]
        weights = np.exp(np.array([logit for _, logit in kept]) - max(logit for _, logit in kept))
        return dict(zip([token for token, _ in kept], (weights / weights.sum()).tolist(), strict=True)), selected

    def free(self) -> None:
        self.api.llama_sampler_free(self.pointer)


def assert_equal_chances(ours: dict[int, float], theirs: dict[int, float]) -> None:
    """Equal to 1e-4. llama.cpp adds up in float32, so that a cut in a long flat tail may fall a token or two from ours."""
    only_one = set(ours) ^ set(theirs)
    assert len(only_one) <= (3 if len(ours) > 200 else 0)
    assert all(abs(ours.get(token, 0) - theirs.get(token, 0)) < 1e-4 for token in set(ours) | set(theirs))


STEPS: dict[str, tuple[Callable[[Any], Any], Callable[[Candidates], Candidates]]] = {
    "top_k 1": (lambda api: api.llama_sampler_init_top_k(1), lambda c: filters.top_k(c, 1)),
    "top_k 40": (lambda api: api.llama_sampler_init_top_k(40), lambda c: filters.top_k(c, 40)),
    "top_k over all": (lambda api: api.llama_sampler_init_top_k(100_000), lambda c: filters.top_k(c, 100_000)),
    "top_p 0.95": (lambda api: api.llama_sampler_init_top_p(0.95, 1), lambda c: filters.top_p(c, 0.95)),
    "top_p 0.3": (lambda api: api.llama_sampler_init_top_p(0.3, 1), lambda c: filters.top_p(c, 0.3)),
    "top_p 0": (lambda api: api.llama_sampler_init_top_p(0.0, 1), lambda c: filters.top_p(c, 0.0)),
    "min_p 0.05": (lambda api: api.llama_sampler_init_min_p(0.05, 1), lambda c: filters.min_p(c, 0.05)),
    "min_p 1": (lambda api: api.llama_sampler_init_min_p(1.0, 1), lambda c: filters.min_p(c, 1.0)),
    "typical_p 0.9": (lambda api: api.llama_sampler_init_typical(0.9, 1), lambda c: filters.typical_p(c, 0.9)),
    "typical_p 0.2": (lambda api: api.llama_sampler_init_typical(0.2, 1), lambda c: filters.typical_p(c, 0.2)),
    "top_n_sigma 1": (lambda api: api.llama_sampler_init_top_n_sigma(1.0), lambda c: filters.top_n_sigma(c, 1.0)),
    "top_n_sigma 2.5": (lambda api: api.llama_sampler_init_top_n_sigma(2.5), lambda c: filters.top_n_sigma(c, 2.5)),
    "xtc 0.1": (lambda api: api.llama_sampler_init_xtc(1.0, 0.1, 1, 7), lambda c: filters.exclude_top_choices(c, 0.1)),
    "xtc 0.01": (lambda api: api.llama_sampler_init_xtc(1.0, 0.01, 1, 7), lambda c: filters.exclude_top_choices(c, 0.01)),
    "xtc 0.6": (lambda api: api.llama_sampler_init_xtc(1.0, 0.6, 1, 7), lambda c: filters.exclude_top_choices(c, 0.6)),
    "temperature 0.7": (lambda api: api.llama_sampler_init_temp(0.7), lambda c: filters.temperature(c, 0.7)),
    "temperature 0": (lambda api: api.llama_sampler_init_temp(0.0), filters.greedy),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("size", [VOCAB, 32_000])
def test_a_step_keeps_what_llama_cpp_keeps(name: str, size: int) -> None:
    import llama_cpp

    theirs, ours = STEPS[name]
    for seed in range(6):
        logits = random_logits(seed, size, spread=1.0 + seed)
        reference = Llama(theirs(llama_cpp))
        expected, _ = reference.apply(logits)
        reference.free()
        assert_equal_chances(chances(ours(Candidates(logits))), expected)


@pytest.mark.parametrize("last_n", [0, 16])
def test_the_penalties_equal_llama_cpps(last_n: int) -> None:
    import llama_cpp

    chance = np.random.default_rng(3)
    history = chance.integers(0, 60, 200).tolist()
    theirs = Llama(llama_cpp.llama_sampler_init_penalties(VOCAB, last_n or len(history) + 50, 1.3, 0.4, 0.6))
    ours = UsedTokens(VOCAB, last_n, repetition=1.3, frequency=0.4, presence=0.6)
    for n, token in enumerate(history):
        theirs.accept([token])
        ours.accept(token)
        if n % 20 == 19:
            logits = random_logits(n)
            expected, _ = theirs.apply(logits)
            ours.apply(logits)
            assert_equal_chances(chances(Candidates(logits)), expected)
    theirs.free()


def test_logit_bias_equals_llama_cpps() -> None:
    import llama_cpp

    bias = {3: 2.5, 500: -4.0, 999: 1.0}
    rows = (llama_cpp.llama_logit_bias * len(bias))(*bias.items())
    theirs = Llama(llama_cpp.llama_sampler_init_logit_bias(VOCAB, len(bias), rows))
    logits = random_logits(5)
    expected, _ = theirs.apply(logits)
    theirs.free()
    assert_equal_chances(chances(sampler(GenerationParams(logit_bias=bias)).narrow(logits)), expected)


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat_narrows_and_learns_as_llama_cpp_does(mode: int) -> None:
    """Both see the same logits; ours then learns from the token that llama.cpp drew, so that mu must stay equal."""
    import llama_cpp

    pointer = (llama_cpp.llama_sampler_init_mirostat(VOCAB, 11, 4.0, 0.3, 100) if mode == 1
               else llama_cpp.llama_sampler_init_mirostat_v2(11, 4.0, 0.3))
    theirs, ours = Llama(pointer), Mirostat(mode, tau=4.0, eta=0.3, vocab_size=VOCAB)
    for seed in range(20):
        logits = random_logits(seed)
        expected, selected = theirs.apply(logits)
        found = chances(ours.narrow(Candidates(logits)))
        assert_equal_chances(found, expected)
        ours.observe(found[selected])
    theirs.free()


@pytest.fixture(scope="module")
def vocabulary_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """llama.cpp's vocabulary of the tiny model, and ours made from its answers."""
    import llama_cpp

    path = tiny_gguf(tmp_path_factory.mktemp("vocabulary") / "tiny.gguf")
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    vocab = llama_cpp.llama_model_get_vocab(model)

    def piece(token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_token_to_piece(vocab, token, room, 256, 0, True)
        return room.raw[:length]

    def tokenize(text: str) -> list[int]:
        room = (llama_cpp.llama_token * 256)()
        return list(room[: llama_cpp.llama_tokenize(vocab, text.encode(), len(text.encode()), room, 256, False, False)])

    n_tokens = llama_cpp.llama_vocab_n_tokens(vocab)
    yield vocab, Vocabulary([piece(token) for token in range(n_tokens)], tokenize), n_tokens
    llama_cpp.llama_model_free(model)


BREAKERS = ("\n", ":", '"', "*", " the lamps", "again")


@pytest.mark.parametrize("last_n", [400, 37])
@pytest.mark.parametrize("breakers", [(), BREAKERS])
def test_dry_equals_llama_cpps(vocabulary_model: Any, last_n: int, breakers: tuple[str, ...]) -> None:
    """llama.cpp computes the matches anew for each token; ours are updated, from a prompt of any length on."""
    import llama_cpp

    vocab, vocabulary, n_tokens = vocabulary_model
    chance = np.random.default_rng(9)
    text = vocabulary.tokenize("the evening comes and the lamps are lit, again: and again\n")
    history = [int(t) for _ in range(20) for t in (text if chance.random() < 0.6 else chance.integers(3, 30, 12).tolist())]
    names = (ctypes.c_char_p * max(len(breakers), 1))(*[b.encode() for b in breakers])
    theirs = Llama(llama_cpp.llama_sampler_init_dry(vocab, 0.8, 1.75, 2, last_n, names, len(breakers)))
    n_prompt = int(chance.integers(1, 60))
    theirs.accept(history[:n_prompt])
    ours = Dry(history[:n_prompt], vocabulary.breakers(breakers), last_n=last_n, multiplier=0.8, base=1.75, allowed_length=2)
    n_hits = 0
    for n, token in enumerate([*history[n_prompt:], 5]):
        logits = random_logits(n, n_tokens)
        plain = logits.copy()
        expected, _ = theirs.apply(logits)
        ours.apply(logits)
        n_hits += int((logits != plain).sum())
        assert_equal_chances(chances(Candidates(logits)), expected)
        theirs.accept([token])
        ours.accept(token)
    assert n_hits > 30, "the history must repeat itself for this test to say anything"
    theirs.free()


@pytest.mark.parametrize("extra", [{"top_n_sigma": 2.0}, {"typical_p": 0.95}], ids=["sigma", "typical"])
def test_the_whole_chain_keeps_its_declared_order(extra: dict[str, float]) -> None:
    import llama_cpp as api

    # Sigma and typical-p apart: llama.cpp leaves sigma's dropped tokens in as minus infinity, of which typical-p makes NaN.
    values: dict[str, Any] = {"top_k": 60, "top_p": 0.9, "min_p": 0.02, "xtc_probability": 1.0, "xtc_threshold": 0.05,
                              "temperature": 0.6, "repetition_penalty": 1.2, **extra}
    extra_step = (api.llama_sampler_init_top_n_sigma(2.0) if "top_n_sigma" in extra else api.llama_sampler_init_typical(0.95, 1))
    steps = [api.llama_sampler_init_penalties(VOCAB, 4096, 1.2, 0.0, 0.0), api.llama_sampler_init_top_k(60),
             api.llama_sampler_init_top_p(0.9, 1), api.llama_sampler_init_min_p(0.02, 1),
             api.llama_sampler_init_xtc(1.0, 0.05, 1, 3), api.llama_sampler_init_temp(0.6)]
    steps.insert(1 if "top_n_sigma" in extra else 2, extra_step)
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for step in steps:
        api.llama_sampler_chain_add(chain, step)
    history = list(range(40))
    theirs, ours = Llama(chain), sampler(GenerationParams(**values), history)
    theirs.accept(history)
    for seed in range(10):
        logits = random_logits(seed)
        expected, _ = theirs.apply(logits)
        assert_equal_chances(chances(ours.narrow(logits)), expected)
    theirs.free()
