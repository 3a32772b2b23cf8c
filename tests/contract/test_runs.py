"""Runs end as they should, at any moment, and do not disturb each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from modules.core.errors import BadRequest, Busy
from modules.core.loader import Loader
from modules.core.params import GenerationParams
from tests.contract.play import GREEDY, Stage, needs_own_tokens, prompt_of

Name = Callable[..., str]
Make = Callable[..., Loader]


def long(n: int, **others: Any) -> GenerationParams:
    """Greedy, and not ended by the model itself where the loader can keep it from that."""
    return dataclasses.replace(GREEDY, max_tokens=n, ban_eos=True, **others)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_max_tokens_is_obeyed_and_finish_is_on_the_last_token_only(stage: Stage, fresh: Name, n: int) -> None:
    played = stage.alone(fresh(), prompt_of(stage.loader), long(n))
    assert played.finish == "length" and all(token.finish is None for token in played.tokens[:-1])
    needs_own_tokens(stage.loader)
    assert len(played.tokens) == n


def test_counts_agree(stage: Stage, fresh: Name) -> None:
    prompt = prompt_of(stage.loader, n_tokens=300)
    played = stage.alone(fresh(), prompt)
    assert played.cached == 0
    assert (played.prefilled[-1].done, played.prefilled[-1].total, played.prefilled[-1].cached) == (300, 300, 0)
    assert all(0 <= id_ < stage.loader.facts.vocab_size for id_ in played.ids)


def test_a_prompt_of_one_token_works(stage: Stage, fresh: Name) -> None:
    assert stage.alone(fresh(), prompt_of(stage.loader)[:1], long(3)).finish == "length"


def test_greedy_is_the_same_each_time(stage: Stage, fresh: Name) -> None:
    prompt = prompt_of(stage.loader)
    stage.agree(stage.alone(fresh(), prompt), stage.alone(fresh(), prompt))


def test_equal_seeds_give_equal_text_cold_and_warm(stage: Stage, fresh: Name) -> None:
    prompt, key = prompt_of(stage.loader), fresh("key")
    params = GenerationParams(temperature=1.0, seed=7, max_tokens=20)
    cold, warm, other = (stage.alone(fresh(), prompt, params, key_) for key_ in (key, key, fresh("key")))
    for again in (warm, other):
        stage.agree(again, cold)
        assert again.text == cold.text or again.ids != cold.ids


def test_different_seeds_differ_where_sampling_is_honoured(stage: Stage, fresh: Name, spec: Any) -> None:
    if "temperature" not in spec.params:
        pytest.skip(f"{spec.name} does not sample")
    prompt = prompt_of(stage.loader)
    all_params = [GenerationParams(temperature=1.5, seed=seed, max_tokens=12) for seed in range(4)]
    found = {tuple(stage.alone(fresh(), prompt, params).ids) for params in all_params}
    assert len(found) > 1


def test_a_seed_repeats_beside_others_where_the_model_says_so(stage: Stage, fresh: Name) -> None:
    if "repeatable" not in stage.loader.facts.features:
        pytest.skip("this loader says that a seed repeats alone only")
    prompts = [prompt_of(stage.loader, text) for text in ("The quick brown fox", "def add(a, b):", "What is the name?")]
    params = [GenerationParams(temperature=1.2, seed=seed, max_tokens=16) for seed in (3, 4, 5)]
    alone = [stage.alone(fresh(), prompt, one) for prompt, one in zip(prompts, params, strict=True)]
    played = [stage.add(fresh(), prompt, one) for prompt, one in zip(prompts, params, strict=True)]
    stage.play()
    for one, right in zip(played, alone, strict=True):
        stage.agree(one, right)


def test_a_run_ends_at_the_contexts_end_with_length(make: Make, fresh: Name) -> None:
    loader = make(context=256, slots=1)
    stage = Stage(loader)
    needs_own_tokens(loader)
    for n_prompt in (loader.facts.context - 20, loader.facts.context - 1):
        played = stage.alone(fresh(), prompt_of(loader, n_tokens=n_prompt), long(0))
        assert played.finish == "length"
        # The last token sampled needs no cell of its own, so one more than fits may come.
        assert n_prompt + len(played.tokens) - loader.facts.context in (0, 1)


def test_a_cancelled_run_is_silent_and_the_others_go_on_as_if_alone(stage: Stage, fresh: Name) -> None:
    prompts = [prompt_of(stage.loader, text) for text in ("The quick brown fox", "def add(a, b):", "What is the name?")]
    alone = [stage.alone(fresh(), prompt, long(16)) for prompt in prompts]
    names = [fresh() for _ in prompts]
    played = [stage.add(name, prompt, long(16)) for name, prompt in zip(names, prompts, strict=True)]
    stage.play(lambda: len(played[1].tokens) >= 5)
    stage.remove(names[1])
    n = len(played[1].tokens)
    stage.play()
    assert len(played[1].tokens) == n
    stage.agree(played[0], alone[0])
    stage.agree(played[2], alone[2])


def test_runs_join_and_leave_between_steps_and_write_as_if_alone(stage: Stage, fresh: Name) -> None:
    loader = stage.loader
    texts = ["The quick brown fox", "Numbers: 0 1 2 3", "Où est la gare ?", "Once upon", "今日は", "user\nWhat", "def", "sea"]
    lengths = [16, 8, 11, 3, 12, 16, 1, 9]
    prompts = [prompt_of(loader, text, n_tokens=5 + 9 * n) for n, text in enumerate(texts)]
    alone = [stage.alone(fresh(), prompt, long(n)) for prompt, n in zip(prompts, lengths, strict=True)]
    together: list[Any] = []
    for prompt, n in zip(prompts, lengths, strict=True):
        stage.play(lambda: sum(not played.is_over for played in together) < loader.facts.slots)
        together.append(stage.add(fresh(), prompt, long(n)))
        stage.step()
        stage.step()
    stage.play()
    for played, right in zip(together, alone, strict=True):
        stage.agree(played, right)


def test_a_run_removed_in_its_prefill_leaves_nothing_wrong_behind(stage: Stage, fresh: Name) -> None:
    prompt, key = prompt_of(stage.loader, n_tokens=500), fresh("key")
    right = stage.alone(fresh(), prompt)
    for n_steps in (0, 1, 2):
        name = fresh()
        stage.add(name, prompt, key=key)
        for _ in range(n_steps):
            stage.step()
        stage.remove(name)
        stage.loader.step()
        stage.agree(stage.alone(fresh(), prompt, key=key), right)


def test_a_prefill_does_not_disturb_those_who_decode(stage: Stage, fresh: Name) -> None:
    prompt = prompt_of(stage.loader, "The quick brown fox")
    right = stage.alone(fresh(), prompt, long(16))
    played = stage.add(fresh(), prompt, long(16))
    stage.play(lambda: len(played.tokens) >= 3)
    stage.add(fresh(), prompt_of(stage.loader, n_tokens=500), long(2))
    stage.play()
    stage.agree(played, right)


def test_more_than_fits_is_refused_as_busy_and_works_afterwards(make: Make, fresh: Name) -> None:
    """Whether all slots fit a whole context is the loader's choice; an arrival never kills a running reply."""
    stage = Stage(make(context=256))
    prompt = prompt_of(stage.loader, n_tokens=200)
    played, refused = [], 0
    for _ in range(stage.loader.facts.slots):
        try:
            played.append(stage.add(fresh(), prompt, long(50)))
        except Busy:
            refused += 1
    assert played
    stage.play()
    assert all(one.error is None and one.finish == "length" for one in played)
    if refused:
        stage.alone(fresh(), prompt, long(50))
    needs_own_tokens(stage.loader)
    assert all(len(one.tokens) == 50 for one in played)


def test_removing_what_is_unknown_or_over_is_harmless(stage: Stage, fresh: Name) -> None:
    name = fresh()
    right = stage.alone(name, prompt_of(stage.loader))
    stage.loader.remove(name)
    stage.loader.remove("nobody")
    stage.loader.remove("")
    stage.agree(stage.alone(fresh(), prompt_of(stage.loader)), right)


@pytest.mark.parametrize("wrong", [-1, 2**31 - 1, "vocab_size"])
def test_an_unknown_token_id_is_a_bad_request(stage: Stage, fresh: Name, wrong: Any) -> None:
    id_ = stage.loader.facts.vocab_size if wrong == "vocab_size" else wrong
    with pytest.raises(BadRequest):
        stage.add(fresh(), [*prompt_of(stage.loader), id_])
    with pytest.raises(BadRequest):
        stage.loader.detokenize([id_])
    stage.alone(fresh(), prompt_of(stage.loader))


def test_close_twice_is_harmless_with_and_without_runs(make: Make, fresh: Name) -> None:
    for is_running in (False, True):
        loader = make()
        if is_running:
            Stage(loader).add(fresh(), prompt_of(loader))
            loader.step()
        loader.close()
        loader.close()
