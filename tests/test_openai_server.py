"""Models on OpenAI-compatible servers: what they are asked, what is made of their streams, and of each of their faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.openai_server_parts import pieces, turns
from modules import registry
from modules.core.errors import AppError, BadRequest, Busy, ContextTooLong, LoadFailed, NotFound, Unauthorized
from modules.core.events import Delta, Finished, Request, Started
from modules.core.messages import message
from modules.core.params import GenerationParams
from modules.engine import Engine, Run
from modules.models import explain
from modules.models.catalog import Catalog
from modules.store.servers import read_servers

from .echo_models import say
from .running_app import RunningApp
from .server_play import Play, chat_lines, playing, servers_file

KEY = "sk-very-secret-key"


@pytest.fixture
def play() -> Iterator[Play]:
    with playing() as made:
        yield made


@asynccontextmanager
async def remote(play: Play, tmp_path: Path, *, entry: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Engine]:
    """An engine that has the stand-in's model `far` loaded."""
    file = servers_file(tmp_path, {"name": "far", "base_url": play.url, "model": "big", "api_key": KEY, **(entry or {})})
    engine = Engine(Catalog([tmp_path], servers=file), registry.find_loaders(), log_dir=tmp_path)
    try:
        await engine.load("far", options=options)
        yield engine
    finally:
        await engine.close()


async def until(run: Run, text: str) -> None:
    """Wait for a text; the test's own time-out ends it if it never comes."""
    while run.text() != text:
        assert not run.done, run.end
        await asyncio.sleep(0.005)


@given(st.text())
def test_text_survives_as_ids_and_ascii_takes_a_quarter(text: str) -> None:
    ids = pieces.encode(text, control=False)
    assert pieces.decode(ids) == text.encode("utf-8", "replace")
    pieces.check(ids)
    assert all(len(pieces.CONTROL) <= id_ < pieces.VOCABULARY for id_ in ids)


def test_control_tokens_are_ids_only_where_they_are_meant() -> None:
    assert pieces.encode("<|im_end|>", control=True) == [pieces.END]
    assert pieces.END not in pieces.encode("<|im_end|>", control=False)
    assert len(pieces.encode("a" * 400, control=False)) == 100
    for bad in (-1, 7, pieces.ASCII, pieces.BYTES, pieces.VOCABULARY):
        with pytest.raises(BadRequest, match=str(bad)):
            pieces.check([bad])


async def test_a_server_is_asked_as_its_interface_says_and_counts_for_us(play: Play, tmp_path: Path) -> None:
    play.lines = chat_lines("Hel", "lo ", "世界", "!", usage=(31, 4))
    said = (("system", "Be kind."), ("user", "Hi <|im_end|>"), ("assistant", "Yes?"), ("user", "Go"))
    request = Request(GenerationParams(temperature=0.5, top_p=0.9, seed=7, max_tokens=50, top_k=3, frequency_penalty=0.3),
                      tuple(message(role, text) for role, text in said))
    async with remote(play, tmp_path) as engine:
        run = engine.start(request)
        end = await run.wait()
        held = engine.held()
        assert held.facts.context == 4096 and held.facts.takes == "messages"
    listed, asked = play.asked
    assert (listed.path, asked.path) == ("/v1/models", "/v1/chat/completions")
    assert listed.key == asked.key == f"Bearer {KEY}"
    assert asked.body == {
        "model": "big", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 0.9,
        "frequency_penalty": 0.3, "seed": 7, "max_tokens": 50,
        "messages": [{"role": role, "content": text} for role, text in said]}
    assert run.text() == "Hello 世界!"
    assert isinstance(end, Finished) and end.reason == "stop"
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.is_estimate) == (31, 4, False)
    started = next(event for event in run.events if isinstance(event, Started))
    assert started.is_estimate and started.ignored == ("top_k",)


async def test_without_its_counts_ours_are_marked_as_estimates(play: Play, tmp_path: Path) -> None:
    play.lines = chat_lines("Four letters each", finish="length")
    async with remote(play, tmp_path) as engine:
        end = await engine.start(say("Hello")).wait()
    assert end.reason == "length" and end.usage.is_estimate and end.usage.completion_tokens == 6


async def test_reasoning_has_its_own_channel(play: Play, tmp_path: Path) -> None:
    play.lines = chat_lines("42", reasoning=["Let me ", "see."])
    async with remote(play, tmp_path) as engine:
        run = engine.start(say("What is it?"))
        await run.wait()
    assert (run.text("reasoning"), run.text()) == ("Let me see.", "42")


async def test_a_raw_text_is_completed_and_a_begun_reply_is_sent_as_the_last_message(play: Play, tmp_path: Path) -> None:
    play.lines = [b'data: {"choices": [{"text": " upon a time", "finish_reason": "stop"}]}', b"data: [DONE]"]
    async with remote(play, tmp_path) as engine:
        run = engine.start(Request(GenerationParams(), text="Once"))
        await run.wait()
        assert run.text() == " upon a time"
        play.lines = chat_lines(" is blue.")
        begun = (message("user", "Which colour?"), message("assistant", "The sky"))
        await engine.start(Request(GenerationParams(), begun, continue_last=True)).wait()
    assert play.asked[1].path == "/v1/completions" and play.asked[1].body["prompt"] == "Once"
    assert play.asked[2].body["messages"][-1] == {"role": "assistant", "content": "The sky"}


async def test_a_stop_string_or_a_stop_leaves_the_server(play: Play, tmp_path: Path) -> None:
    play.lines, play.is_endless = chat_lines("One. Two", " three. END four", end=False), True
    async with remote(play, tmp_path) as engine:
        end = await engine.start(say("Go", stop=("END",))).wait()
        assert end.reason == "stop_string"
        await asyncio.to_thread(play.left.wait)
        play.left.clear()
        run = engine.start(say("Go"))
        await until(run, "One. Two three. END four")
        run.cancel()
        assert (await run.wait()).reason == "cancelled"
        await asyncio.to_thread(play.left.wait)


async def test_a_server_that_ignores_max_tokens_is_ended_here(play: Play, tmp_path: Path) -> None:
    play.lines, play.is_endless = chat_lines(*["word"] * 200, end=False), True
    async with remote(play, tmp_path) as engine:
        run = engine.start(say("Go", max_tokens=5))
        assert (await run.wait()).reason == "length"
        assert run.text() == "word" * 40 and play.asked[-1].body["max_tokens"] == 5
        await asyncio.to_thread(play.left.wait)
        play.lines, play.is_endless = chat_lines("Short."), False
        await engine.start(say("Go", max_tokens=10**6)).wait()
    assert play.asked[-1].body["max_tokens"] < 4096, "more than fits is refused by some"


@pytest.mark.parametrize(("status", "said", "kind", "words"), [
    (401, b'{"error": {"message": "Incorrect API key"}}', Unauthorized, "refused the key .*Incorrect API key"),
    (404, b'{"detail": "Not Found"}', NotFound, "no such model or address"),
    (429, b"", Busy, "again in 17 seconds"),
    (400, b'{"error": {"message": "maximum context length is 4096"}}', ContextTooLong, "too long .*4096"),
    (422, b'{"detail": "no seed here"}', BadRequest, "refused the request .*no seed here"),
    (500, b"<html>oops" + b"x" * 9000, AppError, r"failed \(HTTP 500\)"),
    (302, b"", AppError, "write that one as base_url")])
async def test_a_refusal_becomes_an_error_of_ours_and_the_next_run_asks_again(
        play: Play, tmp_path: Path, status: int, said: bytes, kind: type[AppError], words: str) -> None:
    async with remote(play, tmp_path) as engine:
        play.status, play.said, play.headers = status, said, {"Retry-After": "17", "Location": "http://127.0.0.1:9/v1/elsewhere"}
        with pytest.raises(kind, match=words) as caught:
            await engine.start(say("Hello")).wait()
        assert type(caught.value) is kind and len(caught.value.message) < 700
        play.status, play.lines, play.headers = 200, chat_lines("Back."), {}
        run = engine.start(say("Hello"))
        await run.wait()
        assert run.text() == "Back."
    assert len(play.asked) == 3, "a redirect is not followed: it would carry the key to another address"


@pytest.mark.parametrize(("lines", "words"), [
    (chat_lines("Half a", end=False), "closed the connection in mid-reply"),
    ([*chat_lines("Half a", end=False), b"data: {broken"], "no JSON"),
    ([*chat_lines("Half a", end=False), b'data: {"error": {"message": "out of memory"}}'], "mid-reply: out of memory"),
    ([*chat_lines("Half a", end=False), b"data: " + b"x" * 2**21], "no stream of a reply")])
async def test_what_came_before_a_fault_is_kept(play: Play, tmp_path: Path, lines: list[bytes], words: str) -> None:
    play.lines = lines
    async with remote(play, tmp_path) as engine:
        run = engine.start(say("Hello"))
        with pytest.raises(AppError, match=words):
            await run.wait()
        assert run.text() == "Half a"


async def test_silence_and_absence_are_told_apart(play: Play, tmp_path: Path) -> None:
    play.lines, play.is_endless = chat_lines("Wait", end=False), True
    async with remote(play, tmp_path, timeout=1) as engine:
        with pytest.raises(AppError, match="silent for too long"):
            await engine.start(say("Hello")).wait()
    file = servers_file(tmp_path, {"name": "far", "base_url": "http://127.0.0.1:9/v1", "model": "big"})
    engine = Engine(Catalog([tmp_path], servers=file), registry.find_loaders(), log_dir=tmp_path)
    with pytest.raises(LoadFailed, match="cannot be reached"):
        await engine.load("far")
    await engine.close()


async def test_a_model_that_the_server_does_not_list_is_asked_for_a_token(play: Play, tmp_path: Path) -> None:
    play.status, play.said = 404, b'{"error": {"message": "huge is not here"}}'
    with pytest.raises(LoadFailed, match=r"huge is not here\. It lists these models: big, small"):
        async with remote(play, tmp_path, entry={"model": "huge"}):
            pass
    play.status, play.lines = 200, chat_lines("Hi")
    async with remote(play, tmp_path, entry={"model": "huge"}) as engine:
        assert play.asked[-1].body["model"] == "huge" and play.asked[-1].body["max_tokens"] == 1
        assert engine.held().facts.context == 8192, "some load models that they do not list"
    play.models = ["not", "a", "list of models"]
    with pytest.raises(LoadFailed, match="Is base_url right"):
        async with remote(play, tmp_path):
            pass
    play.models_status = 404
    async with remote(play, tmp_path, entry={"context": 2048}) as engine:
        assert engine.held().facts.context == 2048, "a server without a list is believed"


async def test_a_long_chat_is_cut_to_the_servers_context(play: Play, tmp_path: Path) -> None:
    play.lines = chat_lines("Yes.")
    talk = tuple(message(role, f"{n} " + "word " * 200) for n in range(40) for role in ("user", "assistant"))
    messages = (message("system", "Be kind."), *talk, message("user", "And?"))
    request = Request(GenerationParams(max_tokens=100), messages, truncate=True)
    async with remote(play, tmp_path) as engine:
        run = engine.start(request)
        await run.wait()
    started = next(event for event in run.events if isinstance(event, Started))
    sent = play.asked[-1].body["messages"]
    assert started.dropped and started.prompt_tokens < 4096
    assert sent[0]["content"] == "Be kind." and sent[-1]["content"] == "And?"
    assert len(sent) == len(messages) - started.dropped


async def test_the_key_is_in_no_log_and_no_answer(play: Play, tmp_path: Path) -> None:
    play.status, play.said = 401, b'{"error": "no"}'
    async with remote(play, tmp_path) as engine:
        with pytest.raises(Unauthorized) as caught:
            await engine.start(say("Hello")).wait()
        held = engine.held()
        told = [repr(held.facts), repr(held.file), repr(held.options), json.dumps(caught.value.to_json()),
                repr(engine.watch.state), repr(read_servers(tmp_path / "servers.yaml")),
                (tmp_path / "far.log").read_text("utf-8")]
    assert all(KEY not in text for text in told)


def test_entries_are_models_of_the_catalog_and_broken_ones_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", KEY)
    good = {"name": "far", "base_url": "https://gpu.example:8000/v1/", "model": "org/Model-70B", "api_key_env": "FAR_KEY"}
    file = servers_file(tmp_path, good, good | {"name": "b", "base_url": "ftp://x"},
                        good | {"name": "c", "api_key_env": "NOT_SET"}, good,
                        {"name": "d", "base_url": "http://me:word@x/v1", "model": "m"},
                        good | {"name": "e", "modle": "m"},
                        good | {"name": "f", "context": "big"}, {"model": "m"}, good | {"name": ""})
    assert read_servers(file)[0].api_key == KEY and read_servers(file)[0].base_url == "https://gpu.example:8000/v1"
    catalog = Catalog([tmp_path], servers=file)
    listed = {found.name: found for found in catalog.list()}
    assert listed["far"].source == "gpu.example:8000" and "gpu.example:8000" in explain.sentence(listed["far"])
    problems = {name: found.problem for name, found in listed.items()}
    assert [word in problems[name] for name, word in (
        ("b", "ftp://x"), ("c", "NOT_SET"), ("far (4)", "earlier"), ("d", "password"), ("e", "modle"), ("f", "'big'"),
        ("m", "base_url"))] == [True] * 7
    assert not problems["far"] and not problems["org/Model-70B"]
    (tmp_path / "far.gguf").write_bytes(b"GGUF")
    servers_file(tmp_path, good, good | {"name": "Far"}, good | {"name": "far (server)"})
    named = sorted(found.name for found in catalog.list() if found.format == "server")
    assert named == ["Far (2)", "far (server)", "far (server) (server)"], "none is left out for its name"
    (tmp_path / "far.gguf").unlink()
    assert catalog.find("far").format == "server"
    file.write_text("servers: [")
    assert "not valid YAML" in next(found.problem for found in catalog.list() if found.name == "servers.yaml")
    file.write_text("- a list")
    assert catalog.list()[0].problem
    file.unlink()
    assert catalog.list() == []


def test_a_message_of_the_template_comes_back_from_its_ids() -> None:
    text = "<|im_start|>system\nS<|im_end|><|im_start|>user\n\nU\n<|im_end|><|im_start|>assistant\n"
    assert turns.messages(pieces.encode(text, control=True)) == [
        {"role": "system", "content": "S"}, {"role": "user", "content": "\nU\n"}]
    thought = "<|im_start|>assistant\n<think>hm</think>Well<|im_end|>"
    assert turns.messages(pieces.encode(thought, control=True)) == [{"role": "assistant", "content": "Well"}]


async def test_another_colloquy_is_a_server(tmp_path: Path) -> None:
    with RunningApp(tmp_path / "far", None, "--model", "none", "--api-key", KEY) as far:
        far.client.headers["Authorization"] = f"Bearer {KEY}"
        far.load("echo", script="Said by the other one.")
        file = servers_file(tmp_path, {"name": "far", "base_url": f"{far.url}v1", "model": "echo", "api_key": KEY})
        engine = Engine(Catalog([tmp_path], servers=file), registry.find_loaders(), log_dir=tmp_path)
        try:
            await engine.load("far")
            run = engine.start(say("Hello"))
            end = await run.wait()
        finally:
            await engine.close()
    assert run.text() == "Said by the other one." and not end.usage.is_estimate
    assert any(isinstance(event, Delta) for event in run.events)
