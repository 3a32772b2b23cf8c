"""Log-probabilities of a reply that a server writes: read in both shapes, passed on as they are, missed in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loaders.openai_server_parts.likely import Likely, likely
from modules import registry
from modules.core.errors import BadRequest
from modules.core.events import Delta, Request
from modules.core.loader import Token
from modules.core.params import GenerationParams
from modules.engine import Engine, Run
from modules.models.catalog import Catalog

from .echo_models import say
from .running_app import ROOT, RunningApp
from .server_play import chat_lines, playing, servers_file
from .test_openai_server import remote

CAFE = [{"token": "ca", "logprob": -0.5, "bytes": [99, 97], "top_logprobs": [{"token": "ca", "logprob": -0.5},
                                                                           {"token": "tea", "logprob": -1.5}]},
        {"token": "f\\xc3", "logprob": -0.25, "bytes": [102, 195], "top_logprobs": []},
        {"token": "\\xa9s here", "logprob": -0.125, "bytes": [169, *b"s here"], "top_logprobs": None}]


def line(delta: dict[str, Any], logprobs: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "logprobs": logprobs}]}).encode()


def tokens_of(run: Run) -> list[Token]:
    return [token for event in run.events if isinstance(event, Delta) for token in event.tokens]


async def test_a_servers_tokens_keep_their_texts_and_log_probabilities(tmp_path: Path) -> None:
    with playing() as play:
        play.lines = [line({"content": "cafés here"}, {"content": CAFE}), *chat_lines()]
        async with remote(play, tmp_path) as engine:
            run = engine.start(say("What is here?", top_logprobs=2))
            await run.wait()
        assert run.text() == "cafés here"
        assert (play.asked[-1].body["logprobs"], play.asked[-1].body["top_logprobs"]) == (True, 2)
        told = [token for token in tokens_of(run) if token.logprob is not None]
        assert [(token.text, token.logprob) for token in told] == [("ca", -0.5), ("f", -0.25), ("és here", -0.125)]
        assert [(text, value) for _, text, value in told[0].top] == [("ca", -0.5), ("tea", -1.5)]


async def test_a_completion_has_them_in_its_own_shape(tmp_path: Path) -> None:
    said = {"tokens": ["On", "ce"], "token_logprobs": [-1, -2.5], "top_logprobs": [{"On": -1, "In": -3}, None]}
    with playing() as play:
        play.lines = [b"data: " + json.dumps({"choices": [{"text": "Once", "logprobs": said}]}).encode(),
                      b'data: {"choices": [{"text": "", "finish_reason": "stop"}]}', b"data: [DONE]"]
        async with remote(play, tmp_path) as engine:
            run = engine.start(Request(GenerationParams(top_logprobs=1), text="It was"))
            await run.wait()
        assert play.asked[-1].body["logprobs"] == 1
        assert [(token.text, token.logprob) for token in tokens_of(run) if token.text] == [("On", -1.0), ("ce", -2.5)]


async def test_a_server_without_them_fails_the_request_that_wants_them_and_no_other(tmp_path: Path) -> None:
    with playing() as play:
        play.lines = chat_lines("Hello", " there")
        async with remote(play, tmp_path) as engine:
            with pytest.raises(BadRequest, match="sends no log-probabilities with big; ask without"):
                await engine.start(say("Hi", top_logprobs=1)).wait()
            run = engine.start(say("Hi"))
            await run.wait()
            assert run.text() == "Hello there" and "logprobs" not in play.asked[-1].body


async def test_tokens_that_do_not_spell_the_text_are_not_believed(tmp_path: Path) -> None:
    with playing() as play:
        play.lines = [line({"content": "something else"}, {"content": CAFE}), *chat_lines()]
        async with remote(play, tmp_path) as engine:
            run = engine.start(say("Hi", top_logprobs=1))
            await run.wait()
        assert run.text() == "something else" and all(token.logprob is None for token in tokens_of(run))


@pytest.mark.parametrize("said", [None, 5, [], {}, {"content": None}, {"content": [None, 7, {"token": 3}]}, {"tokens": [None, 5]},
                                  {"tokens": "ab"}, {"content": [{"token": "a", "logprob": "x", "bytes": [900]}]},
                                  {"tokens": ["a"], "token_logprobs": 4, "top_logprobs": [[1]]},
                                  {"content": [{"token": "a", "logprob": float("nan"), "top_logprobs": [{"token": "b"}] * 99}]}])
def test_whatever_a_server_sends_is_read_or_left_out(said: Any) -> None:
    assert all(token == Likely(b"a", None) for token in likely(said))


async def test_through_another_colloquy_they_are_those_of_the_model_itself(tmp_path: Path) -> None:
    params = {"temperature": 0, "max_tokens": 12, "top_logprobs": 3}
    name, options = "starter/starter-Q8_0", {"context": 512, "threads": 1, "slots": 1}
    near = Engine(Catalog([ROOT / "models"]), registry.find_loaders(), log_dir=tmp_path)
    try:
        await near.load(name, options=options)
        run = near.start(say("Hello, who are you?", **params))
        await run.wait()
        expected = [(token.text, token.logprob, token.top) for token in tokens_of(run) if token.text]
    finally:
        await near.close()
    with RunningApp(tmp_path / "far", ROOT / "models", "--model", "none") as far:
        far.load(name, **options)
        file = servers_file(tmp_path, {"name": "far", "base_url": f"{far.url}v1", "model": name})
        engine = Engine(Catalog([tmp_path], servers=file), registry.find_loaders(), log_dir=tmp_path)
        try:
            await engine.load("far")
            run = engine.start(say("Hello, who are you?", **params))
            await run.wait()
        finally:
            await engine.close()
    found = [(token.text, token.logprob, token.top) for token in tokens_of(run) if token.text]
    assert len(found) == len(expected) > 8
    for (text, logprob, top), (its_text, its_logprob, its_top) in zip(found, expected, strict=True):
        assert text == its_text and logprob == pytest.approx(its_logprob, abs=1e-6)
        assert [other for _, other, _ in top] == [other for _, other, _ in its_top]
        assert [value for *_, value in top] == pytest.approx([value for *_, value in its_top], abs=1e-6)
