"""What is already computed is not computed again, for the same person and chat only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from modules.core.loader import Loader
from modules.core.params import GenerationParams
from tests.contract.play import GREEDY, Stage, prompt_of

Name = Callable[..., str]
HOT = GenerationParams(temperature=1.5, max_tokens=8)


@pytest.fixture(autouse=True)
def reuses(loader: Loader) -> Iterator[None]:
    if "prefix_reuse" not in loader.facts.features:
        pytest.skip("no prefix_reuse: nothing of an earlier turn can be kept here")
    yield


def test_each_later_turn_evaluates_only_what_is_new_and_one_more(stage: Stage, fresh: Name) -> None:
    """Six turns at temperature 1.5, whose text tokenized again would seldom give the sampled ids."""
    key, ids = fresh("chat"), prompt_of(stage.loader)
    new = prompt_of(stage.loader, "\nuser\nWhat is the name of the town?\nassistant\n")
    for turn in range(6):
        played = stage.alone(fresh(), ids, dataclasses.replace(HOT, seed=turn), key)
        if turn:
            assert played.evaluated <= len(new) + 1, f"turn {turn}"
        ids = [*ids, *played.ids, *new]


def test_a_regenerated_reply_evaluates_one_token(stage: Stage, fresh: Name) -> None:
    key, prompt = fresh("chat"), prompt_of(stage.loader, n_tokens=200)
    stage.alone(fresh(), prompt, key=key)
    again = stage.alone(fresh(), prompt, dataclasses.replace(HOT, seed=2), key)
    assert again.evaluated == 1
    assert again.prefilled[-1].cached == 199


def test_nothing_is_reused_under_another_key(stage: Stage, fresh: Name) -> None:
    prompt = prompt_of(stage.loader, n_tokens=100)
    stage.alone(fresh(), prompt, key=fresh("mine"))
    assert stage.alone(fresh(), prompt, key=fresh("yours")).cached == 0


def test_a_prompt_that_turns_off_reuses_what_is_common_and_writes_as_if_cold(stage: Stage, fresh: Name) -> None:
    key, first = fresh("chat"), prompt_of(stage.loader, n_tokens=160)
    stage.alone(fresh(), first, key=key)
    for n_common in (150, 40, 1):
        other = first[:n_common] + prompt_of(stage.loader, "def add(a, b): return", n_tokens=30)
        while other[n_common] == first[n_common]:
            del other[n_common]
        warm = stage.alone(fresh(), other, key=key)
        assert warm.cached <= n_common
        stage.agree(warm, stage.alone(fresh(), other))


def test_a_stopped_reply_is_reused_as_far_as_it_went(stage: Stage, fresh: Name) -> None:
    key, prompt, name = fresh("chat"), prompt_of(stage.loader), fresh()
    stopped = stage.add(name, prompt, dataclasses.replace(GREEDY, max_tokens=50, ban_eos=True), key)
    stage.play(lambda: len(stopped.tokens) >= 10)
    stage.remove(name)
    new = prompt_of(stage.loader, " and then")
    assert stage.alone(fresh(), [*prompt, *stopped.ids, *new], key=key).evaluated <= len(new) + 1


def test_two_live_runs_of_one_chat_do_not_share_a_tail(stage: Stage, fresh: Name) -> None:
    """Two swipes made at once: equal prompt and key, parted at their first token; each as if alone.

    Greedy, for a batch's logits may differ from a single run's in their last bits, and a draw may fall just there.
    """
    prompt, key = prompt_of(stage.loader, n_tokens=60), fresh("chat")
    first = stage.alone(fresh(), prompt).ids[0]
    params = [GREEDY, dataclasses.replace(GREEDY, logit_bias={first: -100.0})]
    alone = [stage.alone(fresh(), prompt, one) for one in params]
    together = [stage.add(fresh(), prompt, one, key) for one in params]
    stage.play()
    for played, right in zip(together, alone, strict=True):
        stage.agree(played, right)


def test_more_chats_than_slots_stay_right(stage: Stage, fresh: Name) -> None:
    """Prefixes are evicted; what is written never changes by it."""
    loader = stage.loader
    texts = [f"Numbers: {n} {n + 1}. Quotes" for n in range(loader.facts.slots + 2)]
    prompts = [prompt_of(loader, text, n_tokens=60) for text in texts]
    right = [stage.alone(fresh(), prompt) for prompt in prompts]
    keys = [fresh("chat") for _ in prompts]
    for _ in range(2):
        for prompt, key, cold in zip(prompts, keys, right, strict=True):
            stage.agree(stage.alone(fresh(), prompt, key=key), cold)
