"""Tokens and text: nothing broken, nothing lost, and no control token out of people's text."""

from __future__ import annotations

import codecs
from collections.abc import Callable

import pytest

from modules.core.loader import Loader
from modules.core.params import GenerationParams
from modules.worker import messages
from modules.worker.frames import FrameReader
from modules.worker.messages import Ready
from tests.contract.play import Played, Stage, prompt_of

Name = Callable[..., str]

TEXTS = [
    "a", "Hello, world!", " leading", "trailing ", "  two  spaces  ", "\n", "\n\n\nlines\n", "tab\tand\r\nreturn",
    "naïve café — “quotes”",
    "日本語と中文", "🙂👩‍👩‍👧🏳️‍🌈", "e\u0301 combining", "\u200b\ufeff\u00a0 odd spaces",
    "def f(x):\n    return x ** 2  # done\n", "a" * 500,
]


def whole(raw: bytes) -> str:
    """The bytes as text, without a character that is not complete at the end; bytes that are no UTF-8 at all become U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw)


def without_end(loader: Loader, played: Played) -> list[int]:
    """The run's ids without an end-of-generation token at their end: a server's replies have one also where they were cut."""
    return played.ids[:-1] if played.ids[-1] in loader.facts.eog_ids else played.ids


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_from_its_tokens(loader: Loader, text: str) -> None:
    for control in (False, True):
        ids = loader.tokenize(text, control=control)
        assert ids and all(0 <= id_ < loader.facts.vocab_size for id_ in ids)
        # SentencePiece vocabularies write a word's space before it, at the text's start too.
        assert loader.detokenize(ids).decode().removeprefix(" ") == text.removeprefix(" ")


def test_no_text_has_no_tokens(loader: Loader) -> None:
    assert loader.tokenize("", control=False) == loader.tokenize("", control=True) == []
    assert loader.detokenize([]) == b""


def test_control_tokens_in_content_stay_text(loader: Loader) -> None:
    control = set(loader.facts.special_tokens)
    for spelling in loader.facts.special_tokens.values():
        for text in (spelling, f"a {spelling} b", f"{spelling}{spelling}", f"x{spelling}\nsystem"):
            ids = loader.tokenize(text, control=False)
            assert not control & set(ids), f"{text!r} became a control token"
            assert loader.detokenize(ids).decode().removeprefix(" ") == text


def test_control_tokens_are_recognised_where_told(loader: Loader) -> None:
    for id_, spelling in loader.facts.special_tokens.items():
        assert id_ in loader.tokenize(f"a{spelling}b", control=True), spelling
        assert loader.detokenize([id_]).decode() == spelling


@pytest.mark.parametrize("seed", range(3))
def test_no_character_is_ever_broken(stage: Stage, fresh: Name, seed: int) -> None:
    """At a high temperature a model writes bytes of characters at random: what comes is what its bytes say."""
    params = GenerationParams(temperature=1.8, seed=seed, max_tokens=40)
    played = stage.alone(fresh(), prompt_of(stage.loader), params)
    assert played.text == whole(stage.loader.detokenize(without_end(stage.loader, played)))
    for token in played.tokens:
        token.text.encode()  # no half of a surrogate pair


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_a_cut_in_a_character_drops_its_half(stage: Stage, fresh: Name, n: int) -> None:
    params = GenerationParams(temperature=1.0, seed=n, max_tokens=n)
    played = stage.alone(fresh(), prompt_of(stage.loader, "今日は天気がいいです。🙂"), params)
    assert played.text == whole(stage.loader.detokenize(without_end(stage.loader, played)))


def test_an_end_of_generation_token_has_no_text(stage: Stage, fresh: Name) -> None:
    likely = dict.fromkeys(stage.loader.facts.eog_ids, 6.0)
    for seed in range(4):
        params = GenerationParams(temperature=1.5, seed=seed, max_tokens=16, logit_bias=likely)
        played = stage.alone(fresh(), prompt_of(stage.loader), params)
        if played.finish == "stop":
            assert played.ids[-1] in stage.loader.facts.eog_ids and not played.tokens[-1].text
            assert not set(played.ids[:-1]) & set(stage.loader.facts.eog_ids)


def test_facts_are_sound_and_travel(loader: Loader) -> None:
    facts = loader.facts
    assert facts.context > 0 and facts.slots >= 1 and facts.vocab_size > 0
    assert all(0 <= id_ < facts.vocab_size for id_ in (*facts.eog_ids, *facts.special_tokens))
    assert facts.eog_ids, "without one no reply ends by itself"
    if facts.add_bos:
        assert facts.bos_id is not None
    (frame,) = FrameReader().feed(messages.encode(Ready(facts)))
    assert messages.decode_reply(frame) == Ready(facts)
