"""Sampling: neutral values do nothing, draws have the right chances, equal seeds are equal, state is kept token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.params import PARAM_KNOBS, RUN_FIELDS, GenerationParams
from modules.sampling import filters
from modules.sampling.candidates import Candidates, probabilities
from modules.sampling.chain import HONOURED, alternatives, log_probabilities
from modules.sampling.draw import Draw, uniform
from modules.sampling.dry import Dry, suffix_matches
from modules.sampling.vocabulary import Vocabulary

from .logits import VOCAB, random_logits, sampler


def test_every_sampling_parameter_but_the_grammar_is_honoured() -> None:
    assert set(PARAM_KNOBS) - RUN_FIELDS - {"grammar"} == HONOURED


@given(st.integers(0, 10_000))
def test_neutral_values_change_nothing(seed: int) -> None:
    candidates = Candidates(random_logits(seed, 50))
    for step in (lambda c: filters.top_k(c, 0), lambda c: filters.top_p(c, 1), lambda c: filters.min_p(c, 0),
                 lambda c: filters.typical_p(c, 1), lambda c: filters.top_n_sigma(c, 0), lambda c: filters.temperature(c, 1)):
        assert step(candidates) is candidates
    neutral = sampler(GenerationParams(), [1, 2, 3], size=50)
    assert (neutral.steps, neutral.used, neutral.dry, neutral.mirostat, neutral.bias) == ([], None, None, None, {})


@settings(max_examples=200)
@given(st.data())
def test_any_parameters_leave_at_least_one_token_with_a_finite_chance(data: st.DataObject) -> None:
    """Also where logits are equal, enormous or minus infinity, and whatever is combined."""
    number = st.sampled_from([-1e30, -50.0, 0.0, 0.0, 1.0, 1.0, 20.0, 1e30, float("-inf")])
    logits = np.array([*data.draw(st.lists(number, min_size=1, max_size=40)), 0.0], dtype=np.float32)
    values: dict[str, Any] = {}
    for name in sorted(HONOURED - {"logit_bias", "ban_eos", "dry_sequence_breakers"}):
        knob = PARAM_KNOBS[name]
        assert knob.minimum is not None and knob.maximum is not None
        ends = [knob.minimum, knob.maximum, (knob.minimum + knob.maximum) / 2]
        given_ends = [int(end) if knob.kind == "int" else end for end in ends]
        values[name] = data.draw(st.sampled_from([knob.default, knob.default, *given_ends]))
    made = sampler(GenerationParams(**values), [0, 0, 0, 0], size=len(logits))
    for _ in range(3):
        row = logits.copy()
        token = made.choose(row)
        assert 0 <= token < len(logits)
        assert logits[token] > -np.inf


def test_equal_seeds_draw_equal_tokens_and_others_do_not() -> None:
    rows = [random_logits(n) for n in range(50)]

    def draws(seed: int) -> list[int]:
        made = sampler(GenerationParams(xtc_probability=0.5, xtc_threshold=0.05), seed=seed)
        return [made.choose(row.copy()) for row in rows]

    assert draws(4) == draws(4)
    assert draws(4) != draws(5)


def test_draws_have_the_right_chances() -> None:
    """Chi-square over 20 tokens and 40,000 draws; 19 degrees of freedom exceed 60 with chance 4e-6."""
    logits = random_logits(1, 20, spread=1.5)
    expected = probabilities(Candidates(logits)).astype(np.float64) * 40_000
    made = Draw(99)
    counts = np.zeros(20)
    for _ in range(40_000):
        made.next_step()
        counts[made.pick(Candidates(logits))] += 1
    assert ((counts - expected) ** 2 / expected).sum() < 60


def test_an_unlikely_tail_is_drawn_as_often_as_it_should_be() -> None:
    """30,000 tokens of 1e-7 each weigh 0.003 together: of 100,000 draws about 300 (deviation 17)."""
    logits = np.full(30_001, np.log(1e-7), dtype=np.float32)
    logits[0] = 0.0
    made, n_tail = Draw(5), 0
    for _ in range(10_000):
        made.next_step()
        n_tail += made.pick(Candidates(logits)) != 0
    assert 5 < n_tail < 75, "expected 30, deviation 5.5"


def test_a_change_in_the_last_bits_seldom_changes_the_draw() -> None:
    """Logits that differ by 1e-6 differ in total variation by less; over 5,000 draws not one should come out otherwise."""
    chance = np.random.default_rng(0)
    one, other = sampler(GenerationParams()), sampler(GenerationParams())
    n_different = 0
    for n in range(5_000):
        logits = random_logits(n % 50)
        near = logits + (chance.standard_normal(VOCAB) * 1e-6).astype(np.float32)
        n_different += one.choose(logits) != other.choose(near)
    assert n_different <= 1


def test_noise_of_neighbouring_ids_steps_and_seeds_is_not_correlated() -> None:
    ids = np.arange(20_000)
    rows = np.stack([uniform(ids, key) for key in (0, 1, 2, 1 << 32, 1 << 63)])
    shifted = np.stack([rows[0][:-1], rows[0][1:]])
    for table in (rows, shifted):
        off_diagonal = np.corrcoef(table) - np.eye(len(table))
        assert abs(off_diagonal).max() < 0.04, "20,000 pairs: deviation 0.007"
    assert rows.min() > 0 and rows.max() < 1


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_suffix_matches_are_what_comparing_one_by_one_finds(tokens: list[int]) -> None:
    expected = []
    for distance in range(1, len(tokens)):
        length = 0
        while distance + length < len(tokens) and tokens[length] == tokens[distance + length]:
            length += 1
        expected.append(length)
    assert suffix_matches(tokens) == expected


@given(st.lists(st.integers(0, 2), min_size=2, max_size=80), st.integers(1, 79), st.integers(2, 50))
def test_dry_updated_token_by_token_equals_dry_made_from_the_whole(tokens: list[int], cut: int, last_n: int) -> None:
    breakers = {1: ((0, 2),)}
    options: dict[str, Any] = {"last_n": last_n, "multiplier": 1.0, "base": 1.5, "allowed_length": 2}
    grown, whole = Dry(tokens[:cut], breakers, **options), Dry(tokens, breakers, **options)
    for token in tokens[cut:]:
        grown.accept(token)
    one, other = np.zeros(3, np.float32), np.zeros(3, np.float32)
    grown.apply(one)
    whole.apply(other)
    assert one.tolist() == other.tolist()


def test_ban_eos_never_draws_an_end_token_and_a_bias_of_minus_100_forbids() -> None:
    made = sampler(GenerationParams(ban_eos=True, logit_bias={7: -100.0}))
    row = np.zeros(VOCAB, np.float32)
    row[[2, 7]] = 1e9
    assert all(made.choose(row.copy()) not in (2, 7) for _ in range(200))


def test_temperature_0_takes_the_best_token_that_typical_p_and_xtc_leave() -> None:
    row = np.array([3.0, 2.9, 0.0, -1.0], np.float32)
    assert sampler(GenerationParams(temperature=0, top_k=3, top_p=0.5), size=4).choose(row.copy()) == 0
    assert sampler(GenerationParams(temperature=0, xtc_probability=1.0), size=4).choose(row.copy()) == 1


def test_alternatives_are_the_models_own_log_probabilities_best_first() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    found = alternatives(log_probabilities(logits), 0, 2)
    assert [token for token, _ in found.top] == [1, 2]
    assert np.allclose([found.logprob, *(value for _, value in found.top)], np.log([0.2, 0.5, 0.3]), atol=1e-6)


def test_breakers_are_the_tokens_that_hold_or_begin_a_breaker() -> None:
    pieces = [b"a", b"x:", b"b: c", b"ab", b"c\n", b"\n"]
    vocabulary = Vocabulary(pieces, lambda text: [pieces.index(text.encode())])
    assert vocabulary.breakers([":", "b\n"]) == {1: ((),), 2: ((),), 3: ((5,),)}
