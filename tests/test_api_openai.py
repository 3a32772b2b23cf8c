"""The OpenAI dialect as its own SDK and plain HTTP see it, over a real server and a real worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from modules.api.app import make_api
from modules.engine import Engine

from .echo_models import echo_engine
from .test_engine import until


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """The API on a port of this machine, for as long as the block runs."""
    server = uvicorn.Server(uvicorn.Config(make_api(engine), port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def api(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, httpx.AsyncClient, Engine]]:
    async with (echo_engine(tmp_path, **options) as engine, serving(engine) as url,
                httpx.AsyncClient(base_url=url, timeout=30) as plain,
                openai.AsyncOpenAI(base_url=url + "/v1", api_key="none") as sdk):
        yield sdk, plain, engine


USER = [{"role": "user", "content": "Hello"}]


async def test_chat_answers_whole_and_streamed_with_the_same_text(tmp_path: Path) -> None:
    async with api(tmp_path, script="One two three four.") as (sdk, _, engine):
        whole = await sdk.chat.completions.create(model="echo", messages=USER)
        assert whole.choices[0].message.content == "One two three four."
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        stream = await sdk.chat.completions.create(model="echo", messages=USER, stream=True,
                                                   stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "One two three four."
    assert len({(c.id, c.created) for c in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert not engine.live_runs


async def test_reasoning_is_its_own_field(tmp_path: Path) -> None:
    async with api(tmp_path, script="<think>let me see</think>Yes.") as (_, plain, _):
        body = (await plain.post("/v1/chat/completions", json={"messages": USER})).json()
    message = body["choices"][0]["message"]
    # The echo loader's template has no reasoning marks, but its vocabulary has them as control tokens.
    assert message["content"] == "Yes."
    assert message["reasoning_content"] == "let me see"


async def test_completions_take_every_form_of_prompt(tmp_path: Path) -> None:
    async with api(tmp_path, script="yes") as (sdk, plain, engine):
        ids = await engine.tokenize("Say")
        for prompt, n in (("Say", 1), (["Say", "Do"], 2), (ids, 1), ([ids, ids], 2)):
            answer = await sdk.completions.create(model="echo", prompt=prompt)
            assert [c.text for c in answer.choices] == ["yes"] * n
        assert (await plain.post("/v1/completions", json={"prompt": {"no": 1}})).status_code == 400


async def test_n_choices_come_with_their_index(tmp_path: Path) -> None:
    async with api(tmp_path, script="abc") as (sdk, _, _):
        answer = await sdk.chat.completions.create(model="echo", messages=USER, n=3)
        assert [c.index for c in answer.choices] == [0, 1, 2]
        chunks = [c async for c in await sdk.chat.completions.create(model="echo", messages=USER, n=3, stream=True)]
    texts = ["".join(c.choices[0].delta.content or "" for c in chunks if c.choices[0].index == i) for i in range(3)]
    assert texts == ["abc"] * 3


async def test_stop_strings_as_one_or_several_are_never_emitted(tmp_path: Path) -> None:
    async with api(tmp_path, script="ab cd\nef gh") as (sdk, _, _):
        for stop, expected in (("\n", "ab cd"), (["gh", "cd"], "ab "), (["d\ne"], "ab c")):
            answer = await sdk.chat.completions.create(model="echo", messages=USER, stop=stop)
            assert answer.choices[0].message.content == expected
            assert answer.choices[0].finish_reason == "stop"


async def test_max_tokens_ends_with_length(tmp_path: Path) -> None:
    async with api(tmp_path, script="word " * 50) as (sdk, _, _):
        answer = await sdk.chat.completions.create(model="echo", messages=USER, max_completion_tokens=4)
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 4)


async def test_a_client_that_leaves_stops_the_model(tmp_path: Path) -> None:
    async with api(tmp_path, script="word " * 50_000, rate=200, context=300_000) as (_, plain, engine):
        async with plain.stream("POST", "/v1/chat/completions", json={"messages": USER, "stream": True}) as answer:
            assert answer.status_code == 200
            await until(lambda: bool(engine.live_runs))
        await until(lambda: not engine.live_runs)
        with pytest.raises(httpx.ReadTimeout):
            await plain.post("/v1/chat/completions", json={"messages": USER}, timeout=0.3)
        await until(lambda: not engine.live_runs)


async def test_a_failure_after_the_first_byte_is_an_error_the_sdk_raises(tmp_path: Path) -> None:
    async with api(tmp_path, script="word " * 50, fail="step") as (sdk, _, _):
        with pytest.raises(openai.APIError):
            async for _ in await sdk.chat.completions.create(model="echo", messages=USER, stream=True):
                pass


@pytest.mark.parametrize(("body", "status", "word"), [
    ({"messages": []}, 400, "messages"),
    ({"messages": USER, "temperature": 9}, 400, "0 to 5"),
    ({"messages": USER, "n": 0}, 400, "n must"),
    ({"messages": USER, "model": "gone"}, 404, "gone"),
    ({"messages": [{"role": "ghost", "content": "x"}]}, 400, "role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, "image_url"),
    ({"messages": USER, "response_format": {"type": "json_object"}}, 400, "json_object"),
    ({"messages": USER, "tools": [{"type": "function"}]}, 400, "tools"),
    ({"messages": USER, "stream": "yes"}, 400, "stream"),
    ({"messages": USER, "max_tokens": -1}, 400, "max_tokens"),
])
async def test_what_is_wrong_is_named_in_openais_shape(tmp_path: Path, body: dict[str, Any], status: int, word: str) -> None:
    async with api(tmp_path) as (_, plain, _):
        answer = await plain.post("/v1/chat/completions", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert word in error["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_unknown_routes_and_broken_json_are_json_errors(tmp_path: Path) -> None:
    async with api(tmp_path) as (sdk, plain, _):
        assert (await plain.get("/v1/nothing")).status_code == 404
        assert "error" in (await plain.get("/v1/nothing")).json()
        assert (await plain.post("/v1/completions", content=b"{")).status_code == 400
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("org/name:tag")
        assert [m.id for m in (await sdk.models.list()).data] == ["echo"]


async def test_a_prompt_over_the_context_is_refused_before_the_first_byte_with_the_counts(tmp_path: Path) -> None:
    async with api(tmp_path, context=64) as (_, plain, _):
        answer = await plain.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "word " * 200}],
                                                                "stream": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "64" in answer.json()["error"]["message"]


async def test_what_the_loader_ignores_is_said(tmp_path: Path) -> None:
    async with api(tmp_path, script="x") as (_, plain, _):
        answer = await plain.post("/v1/chat/completions", json={"messages": USER, "min_p": 0.1, "frobnicate": 1})
    assert answer.json()["ignored"] == ["frobnicate", "min_p"]
    assert answer.headers["x-colloquy-ignored"] == "frobnicate,min_p"


async def test_echo_puts_the_prompt_first(tmp_path: Path) -> None:
    async with api(tmp_path, script=" there") as (sdk, _, _):
        assert (await sdk.completions.create(model="echo", prompt="Hello", echo=True)).choices[0].text == "Hello there"


async def test_models_are_loaded_and_unloaded_and_tokens_counted_over_http(tmp_path: Path) -> None:
    async with api(tmp_path, script="one") as (_, plain, _):
        loaded = await plain.post("/v1/internal/model/load", json={"model_name": "other", "options": {"script": "two"}})
        assert loaded.json()["model_name"] == "other"
        info = (await plain.get("/v1/internal/model/info")).json()
        assert (info["model_name"], info["loader"]) == ("other", "echo")
        text = "Grüße 世界"
        ids = (await plain.post("/v1/internal/encode", json={"text": text})).json()
        assert (await plain.post("/v1/internal/decode", json={"tokens": ids["tokens"]})).json()["text"] == text
        assert (await plain.post("/v1/internal/token-count", json={"text": text})).json()["length"] == ids["length"]
        assert (await plain.post("/v1/internal/model/unload", json={})).json() == {"unloaded": "other"}
        assert (await plain.get("/v1/internal/model/info")).json()["model_name"] is None
        refused = await plain.post("/v1/completions", json={"prompt": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_model")
        assert (await plain.get("/health")).json()["status"] == "ok"
        assert (await plain.post("/v1/internal/model/load", json={"model_name": "none such"})).status_code == 404
        lines = json.dumps({"model_name": "echo", "trust_remote_code": True})
        assert (await plain.post("/v1/internal/model/load", content=lines)).status_code == 400


@pytest.mark.parametrize("fits", [True, False])
async def test_a_model_is_loaded_when_a_request_names_it_and_no_reply_is_cut_off(
        fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: fits)
    async with api(tmp_path, script="word " * 60, rate=200, autoload=True) as (sdk, plain, engine):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(sdk.chat.completions.create(model="echo", messages=USER))
            await until(lambda: bool(engine.live_runs))
            second, third = (group.create_task(sdk.chat.completions.create(model=name, messages=USER))
                             for name in ("other", "third"))
        assert first.result().choices[0].message.content == "word " * 60
        assert "Hello" in second.result().choices[0].message.content and second.result().model == "other"
        assert "Hello" in third.result().choices[0].message.content
        listed = (await plain.get("/v1/models")).json()["data"]
        assert {card["id"]: card.get("loaded", True) for card in listed}[engine.models[0].name] is True
        assert [card["id"] for card in listed if card.get("loaded") is False] == sorted(
            {"echo", "other", "third"} - {engine.models[0].name}, key=["echo", "other", "third"].index)
        with pytest.raises(openai.NotFoundError, match="no model 'fourth'"):
            await sdk.chat.completions.create(model="fourth", messages=USER)
    async with api(tmp_path) as (sdk, _, _):
        with pytest.raises(openai.NotFoundError, match="not loaded"):
            await sdk.chat.completions.create(model="other", messages=USER)
