"""What API clients rely on, trap by trap: errors, retries, stops, leaving, odd bodies; over a real server and worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from .echo_models import echo_engine
from .test_api_openai import USER, api, serving
from .test_engine import until


async def chunks(plain: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    """The JSON of each event of a stream; [DONE] stays a string."""
    async with plain.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, await answer.aread()
        lines = [line async for line in answer.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


# Errors and retries


async def test_a_full_queue_says_when_to_come_again_and_leaves_nothing_running(tmp_path: Path) -> None:
    """The choices begun before the one that was refused went on to their ends with nobody reading."""
    async with api(tmp_path, script="abc " * 50_000, rate=100, context=300_000, slots=1, max_queue=2) as (sdk, plain, engine):
        answer = await plain.post("/v1/chat/completions", json={"messages": USER, "n": 5})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1" and "x-should-retry" not in answer.headers
        assert answer.json()["error"]["code"] == "busy"
        await until(lambda: not engine.live_runs)
        with pytest.raises(openai.InternalServerError, match="waiting"):
            await sdk.with_options(max_retries=0).chat.completions.create(model="echo", messages=USER, n=5)


async def test_an_error_that_a_retry_cannot_mend_is_asked_once(tmp_path: Path) -> None:
    """openai repeats every 5xx twice unless told not to."""
    asked = 0

    async def count(request: httpx.Request) -> None:
        nonlocal asked
        asked += 1

    async with echo_engine(tmp_path) as engine, serving(engine) as url:
        await engine.unload("echo")
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="none",
                                      http_client=httpx.AsyncClient(event_hooks={"request": [count]})) as sdk:
            with pytest.raises(openai.InternalServerError, match="No model is loaded"):
                await sdk.chat.completions.create(model="echo", messages=USER)
    assert asked == 1


async def test_a_reply_cut_short_by_an_unload_is_an_error_and_no_ordinary_end(tmp_path: Path) -> None:
    """It ended with finish_reason stop, as if that were all."""
    async with api(tmp_path, script="abc " * 50_000, rate=100, context=300_000) as (sdk, plain, engine):
        stream = await sdk.chat.completions.create(model="echo", messages=USER, stream=True)
        whole = asyncio.create_task(plain.post("/v1/chat/completions", json={"messages": USER}))
        await until(lambda: len([run for run in engine.live_runs if run.text()]) == 2)
        await engine.unload("echo")
        with pytest.raises(openai.APIError, match="unloaded"):
            async for _ in stream:
                pass
        assert (await whole).status_code == 499 and "unloaded" in (await whole).json()["error"]["message"]


async def test_unknown_routes_and_methods_are_404_in_json(tmp_path: Path) -> None:
    async with api(tmp_path) as (sdk, plain, _):
        for method, path in (("GET", "/v1"), ("GET", "/v1/"), ("POST", "/v1/embeddings"), ("GET", "/v1/chat/completions"),
                             ("DELETE", "/v1/models/echo"), ("POST", "/v1/internal/nothing"), ("OPTIONS", "/v1/models"),
                             ("GET", "/v1/models/org/name:tag"), ("GET", "/v1/models/org%2Fname%3Atag")):
            answer = await plain.request(method, path)
            assert answer.status_code == 404, (method, path)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.models.retrieve("org/name:tag")
        assert caught.value.code == "model_not_found"
        assert (await sdk.models.retrieve("echo")).id == "echo"


BAD_VALUES: list[Any] = [-1, 0.5, 10**30, "word", True, [1], {"a": 1}, [], {}, "", [[["deep"]]]]
FIELDS = ["messages", "model", "n", "stream", "stream_options", "stop", "seed", "max_tokens", "max_completion_tokens",
          "temperature", "top_p", "top_k", "logit_bias", "logprobs", "top_logprobs", "response_format", "tools",
          "tool_choice", "user", "presence_penalty", "grammar", "prompt_cache_key"]


async def test_a_wrong_type_in_any_field_is_a_400_or_an_answer_never_a_failure(tmp_path: Path) -> None:
    """A list nested as deep as JSON can be read made the error message itself fail."""
    deep: Any = "x"
    for _ in range(880):
        deep = [deep]
    async with api(tmp_path, script="ok") as (_, plain, engine):
        for path, base in (("/v1/chat/completions", {"messages": USER}), ("/v1/completions", {"prompt": "Go"})):
            for name in [*FIELDS, "prompt", "echo", "suffix", "best_of", "frobnicate"]:
                for value in [*BAD_VALUES, deep]:
                    answer = await plain.post(path, json={**base, name: value})
                    assert answer.status_code in (200, 400, 404), (path, name, value, answer.text)
                    if answer.status_code != 200:
                        assert answer.json()["error"]["message"] and answer.headers["x-should-retry"] == "false"
        await until(lambda: not engine.live_runs)


ODD_BODIES = [b"", b"[]", b"null", b"{", b'{"messages": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}",
              b'{"messages": [{"role": "user"}], "messages": []}', b'"' + b"x" * 100_000 + b'"']


@pytest.mark.parametrize("raw", ODD_BODIES, ids=range(len(ODD_BODIES)))
async def test_an_odd_body_is_a_400_in_openais_shape(tmp_path: Path, raw: bytes) -> None:
    async with api(tmp_path) as (_, plain, _):
        answer = await plain.post("/v1/chat/completions", content=raw)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_odd_text_is_answered(tmp_path: Path) -> None:
    """A lone surrogate in the prompt made the answer that repeats it a 500, a line break in a field's name too."""
    async with api(tmp_path) as (_, plain, _):
        for text in ("lone \ud83d surrogate", "a\x00b", "\u2028\u0085", "<|im_end|>"):
            body = json.dumps({"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1})
            answer = await plain.post("/v1/completions", content=body)
            assert answer.status_code == 200, (text, answer.text)
            assert (await plain.post("/v1/chat/completions", content=json.dumps(
                {"messages": [{"role": "user", "content": text}]}))).status_code == 200
        odd = json.dumps({"prompt": "x", "a\r\nSet-Cookie: b": 1, "é": 2, "\ud83d": 3})
        answer = await plain.post("/v1/completions", content=odd)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert len(answer.json()["ignored"]) == 3


# What is ignored


async def test_every_name_of_a_parameter_counts(tmp_path: Path) -> None:
    """Our own default won over `max_new_tokens` and `stop_sequence`, which had no effect and were not reported."""
    async with api(tmp_path, script="one two three four five six seven") as (_, plain, _):
        for name in ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "num_predict"):
            body = (await plain.post("/v1/chat/completions", json={"messages": USER, name: 2})).json()
            assert body["usage"]["completion_tokens"] == 2, name
        for name in ("stop", "stop_sequence", "stopping_strings", "stop_sequences"):
            body = (await plain.post("/v1/completions", json={"prompt": "x", "max_tokens": 50, name: ["three"]})).json()
            assert body["choices"][0]["text"] == "one two ", name


async def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    async with api(tmp_path, script="ok") as (_, plain, _):
        message = {"role": "user", "content": "x", "audio": {"id": 1}, "cache_control": {"type": "ephemeral"}}
        body = {"messages": [message], "suffix": "x", "echo": True, "prompt": "y"}
        answer = await plain.post("/v1/chat/completions", json=body)
        assert answer.json()["ignored"] == ["echo", "messages.audio", "messages.cache_control", "prompt", "suffix"]
        answer = await plain.post("/v1/completions", json={"prompt": "x", "messages": USER, "top_logprobs": 3})
        assert answer.json()["ignored"] == ["messages", "top_logprobs"]
        for extra in ({"stream_options": {"include_usage": True}}, {"tool_choice": "required"}, {"max_tokens": 0},
                      {"stream": True, "stream_options": {"include_usage": "yes"}}):
            assert (await plain.post("/v1/chat/completions", json={"messages": USER, **extra})).status_code == 400, extra
        for path, body in (("encode", {"text": "x", "add_bos": True}), ("encode", {}), ("decode", {}), ("token-count", {}),
                           ("decode", {"tokens": [1], "skip_special": True}), ("model/unload", {"name": "echo"}),
                           ("decode", {"tokens": [-1]}), ("decode", {"tokens": [10**9]}), ("decode", {"tokens": ["1"]})):
            assert (await plain.post(f"/v1/internal/{path}", json=body)).status_code == 400, (path, body)


# Streams


async def test_a_stop_string_straddling_tokens_and_characters_is_never_sent(tmp_path: Path) -> None:
    script = "Grüße, 世界! 👋🏽 and the end"
    async with api(tmp_path, script=script, rate=300) as (_, plain, _):
        for stop in ("üß", "世界", "界! 👋", "👋🏽 a", "d the", "end", "nowhere"):
            for stops in ([stop], ["zzz", stop, script + "!"]):
                got = await chunks(plain, "/v1/completions", {"prompt": "x", "max_tokens": 99, "stop": stops})
                text = "".join(c["choices"][0]["text"] for c in got[:-1])
                assert text == script.partition(stop)[0]
                assert got[-1] == "[DONE]" and got[-2]["choices"][0]["finish_reason"] == "stop"


async def test_every_choice_of_every_prompt_comes_with_its_index_and_the_usage_is_theirs(tmp_path: Path) -> None:
    """The usage took prompt tokens in the order in which choices ended: a long prompt counted twice, a short one not at all."""
    async with api(tmp_path, slots=2) as (_, plain, engine):
        prompts = ["long " * 60, "b"]
        body = {"prompt": prompts, "n": 2, "max_tokens": 99, "seed": 1, "stream_options": {"include_usage": True}}
        got = await chunks(plain, "/v1/completions", body)
        assert len({(c["id"], c["created"]) for c in got[:-1]}) == 1
        texts = ["".join(c["choices"][0]["text"] for c in got[:-2] if c["choices"][0]["index"] == i) for i in range(4)]
        assert all(texts) and "long" in texts[0] and "long" in texts[1] and texts[2].endswith("b")
        assert sum(c["choices"][0]["finish_reason"] is not None for c in got[:-2]) == 4
        sizes = [len(await engine.tokenize(prompt)) for prompt in prompts]
        assert got[-2]["choices"] == [] and got[-2]["usage"]["prompt_tokens"] == sum(sizes)
        del body["stream_options"]
        whole = (await plain.post("/v1/completions", json=body)).json()
        assert [c["text"] for c in whole["choices"]] == texts
        assert whole["usage"]["prompt_tokens"] == sum(sizes)


async def test_many_choices_begin_to_stream_while_the_last_still_wait(tmp_path: Path) -> None:
    """Nothing was sent before the last choice had a place, so most of the answer was over by then."""
    async with api(tmp_path, script="abc " * 50_000, rate=50, context=300_000, slots=1) as (sdk, _, engine):
        stream = await sdk.chat.completions.create(model="echo", messages=USER, n=3, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert len(engine.live_runs) == 3
        await stream.close()
        await until(lambda: not engine.live_runs)


@pytest.mark.parametrize("stage", ["prefill", "queue", "decoding", "scoring"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_at_any_stage_stops_its_run(tmp_path: Path, stage: str, stream: bool) -> None:
    async with api(tmp_path, script="abc " * 50_000, rate=50, context=300_000, slots=1, prefill_ms=20.0) as (_, plain, engine):
        first = None
        if stage == "queue":
            first = asyncio.create_task(plain.post("/v1/chat/completions", json={"messages": USER}))
            await until(lambda: any(run.text() for run in engine.live_runs))
        body = {"prompt": "word " * (20_000 if stage == "prefill" else 2), "max_tokens": 10_000, "stream": stream}
        if stage == "scoring":
            body |= {"echo": True, "logprobs": 2, "prompt": "word " * 20_000, "max_tokens": 0}
        asked = asyncio.create_task(plain.post("/v1/completions", json=body))
        if stage != "scoring":
            await until(lambda: len(engine.live_runs) == (2 if first else 1))
            if stage == "decoding":
                await until(lambda: bool(engine.live_runs[0].text()))
        else:
            await asyncio.sleep(0.2)
        asked.cancel()
        await until(lambda: len(engine.live_runs) == (1 if first else 0))
        if first:
            first.cancel()
        await until(lambda: not engine.live_runs)
        answer = await plain.post("/v1/completions", json={"prompt": "x", "max_tokens": 2})
        assert answer.json()["usage"]["completion_tokens"] == 2


# Seeds and caches


async def test_a_seed_repeats_beside_other_runs_and_any_integer_is_one(tmp_path: Path) -> None:
    async with api(tmp_path, rate=500) as (sdk, _, _):
        async def one(seed: int) -> str:
            answer = await sdk.chat.completions.create(model="echo", messages=USER, seed=seed)
            return answer.choices[0].message.content or ""

        for seed in (0, 7, 2**32 - 2, 2**32, 2**62):
            alone = await one(seed)
            assert await asyncio.gather(*(one(seed) for _ in range(3)), one(seed + 1))
            assert {*(await asyncio.gather(*(one(seed) for _ in range(4))))} == {alone}
        answer = await sdk.chat.completions.create(model="echo", messages=USER, seed=2**32 - 2, n=3)
        assert len(answer.choices) == 3


async def test_one_users_prompts_never_speed_up_anothers(tmp_path: Path) -> None:
    """All callers shared one cache, so the cached count and the time told what others had asked."""
    async with api(tmp_path, script="ok") as (_, plain, _):
        async def cached(**labels: str) -> int:
            body = {"prompt": "A secret that only one of them knows", **labels}
            usage = (await plain.post("/v1/completions", json=body)).json()["usage"]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

        assert await cached(user="a") == 0
        assert await cached(user="a") > 0
        assert await cached(user="b") == 0
        assert await cached(prompt_cache_key="a") == 0
        assert await cached() == 0
        assert await cached() > 0


# Our own routes


async def test_the_models_own_routes_answer_while_a_load_runs(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, plain, engine):
        body = {"model_name": "other", "options": {"load_seconds": 60.0, "load_steps": 1000}}
        going = asyncio.create_task(plain.post("/v1/internal/model/load", json=body))
        await until(lambda: engine.watch.state.status == "loading" and engine.watch.state.fraction > 0)
        info = (await plain.get("/v1/internal/model/info")).json()
        assert info["loading"]["model_name"] == "other" and info["model_name"] == "echo"
        refused = await plain.post("/v1/internal/model/load", json={"model_name": "third"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        going.cancel()
        await asyncio.sleep(0.1)
        assert engine.watch.state.status == "loading", "a caller who leaves does not end a load for everybody"
        engine.cancel_load()
        await until(lambda: engine.watch.state.status == "cancelled")
        for wrong in ({"model_name": 3}, {"model_name": "echo", "loader": 1}, {"model_name": "echo", "options": []},
                      {"model_name": "echo", "options": {"context": "many"}}, {"model_name": ""}, {}):
            assert (await plain.post("/v1/internal/model/load", json=wrong)).status_code == 400, wrong
