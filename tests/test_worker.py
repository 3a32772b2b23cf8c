"""A worker process and its client: what is played arrives, and every way to die becomes a sentence."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from modules.core.errors import AppError, BadRequest, Cancelled, LoadFailed, OutOfMemory, TooLarge, WorkerDied
from modules.core.loader import Prefilled, RunFailed, Token
from modules.core.params import GenerationParams
from modules.worker.client import WorkerClient
from modules.worker.delivery import TURN_SECONDS
from modules.worker.frames import MAX_HEADER, Admitted, Waiting, WorkerEvent

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "It was a bright cold day — naïve 日本語 🙂 — and the clocks were striking thirteen. " * 3


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


class Reader:
    """Collects one run's events."""

    def __init__(self) -> None:
        self.batches: list[list[WorkerEvent]] = []
        self.times: list[float] = []

    def __call__(self, events: list[WorkerEvent], at: float) -> None:
        self.batches.append(events)
        self.times.append(at)

    @property
    def events(self) -> list[WorkerEvent]:
        return [event for batch in self.batches for event in batch]

    @property
    def tokens(self) -> list[Token]:
        return [event for event in self.events if isinstance(event, Token)]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def error(self) -> AppError | None:
        last = self.batches[-1][-1] if self.batches else None
        return last.error if isinstance(last, RunFailed) else None

    @property
    def is_over(self) -> bool:
        return self.error is not None or (bool(self.tokens) and self.tokens[-1].finish is not None)


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts echo workers with the given options; closes them and checks that no process is left."""
    clients: list[WorkerClient] = []

    async def start_one(path: str = "", *, on_progress: Callable[[float, str], None] = lambda f, w: None, **options: Any) -> Any:
        client = await WorkerClient.start(
            loader="echo", path=path, options=options, log_path=tmp_path / "worker.log", on_progress=on_progress)
        clients.append(client)
        return client

    yield start_one
    for client in clients:
        await client.close()
    assert not psutil.Process().children(recursive=True)


def play(client: WorkerClient, run: str = "run", prompt: Sequence[int] = (65, 66), key: str = "", **params: Any) -> Reader:
    reader = Reader()
    client.add(run, prompt, GenerationParams(**{"max_tokens": 0, **params}), key, reader)
    return reader


async def test_what_is_played_arrives_whole_and_in_order(start: Start) -> None:
    client = await start(script=SCRIPT)
    reader = play(client)
    assert not reader.batches, "a sink is never called during add"
    await until(lambda: reader.is_over, "the end")
    assert reader.events[:2] == [Admitted(0), Prefilled(2, 2, 0)]
    assert reader.text == SCRIPT
    assert [token.finish for token in reader.tokens] == [None] * (len(reader.tokens) - 1) + ["stop"]
    assert await client.detokenize([token.id for token in reader.tokens]) == SCRIPT.encode() + b"<|im_end|>"


async def test_at_full_speed_the_parent_is_woken_seldom(start: Start) -> None:
    client = await start(script="word " * 20_000, context=100_000)
    reader = play(client)
    await until(lambda: reader.is_over, "the end")
    assert len(reader.tokens) > 20_000
    assert len(reader.batches) < len(reader.tokens) / 20


async def test_a_full_pipe_leaves_the_loop_its_turns(start: Start) -> None:
    """Every batch that takes its reader long is followed by a turn of the loop, however many wait; nothing is lost or moved."""
    client = await start(script="word " * 8000, context=100_000)
    reader, turns, turn = Reader(), [], 0

    def slow(events: list[WorkerEvent], at: float) -> None:
        reader(events, at)
        turns.append(turn)
        until_then = time.monotonic() + TURN_SECONDS
        while time.monotonic() < until_then:
            pass

    client.add("run", [65], GenerationParams(max_tokens=0), "", slow)
    while not reader.is_over:
        turn += 1
        await asyncio.sleep(0)
    assert reader.text == "word " * 8000
    assert len(turns) > 10 and len(set(turns)) == len(turns)


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no names there")
async def test_a_worker_that_dies_with_text_on_the_way_loses_none_of_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pipe holds and what waits to be handed on comes first, then the reason, whoever holds it up."""
    monkeypatch.setattr("modules.worker.delivery.LONGEST_HOLD", 600)
    script = "".join(f"{n} " for n in range(20_000))
    client = await start(script=script, context=200_000)
    reader = play(client)
    await until(lambda: reader.tokens, "the reply to begin")
    client.hold_back("run", True)
    n_before = len(reader.tokens)
    worker, seconds = psutil.Process(client.pid), -1.0
    while (used := sum(worker.cpu_times()[:2])) != seconds:  # until the pipe is full and it does nothing more
        seconds = used
        await asyncio.sleep(0.3)
    assert len(reader.tokens) == n_before
    worker.kill()
    await until(lambda: reader.error, "the end")
    assert isinstance(reader.error, WorkerDied)
    assert len(reader.tokens) > n_before + 1000, "a full pipe holds thousands of tokens"
    assert script.startswith(reader.text) and len(reader.text) < len(script)


async def test_facts_and_progress_come_from_the_child(start: Start) -> None:
    seen: list[tuple[float, str]] = []
    client = await start(context=512, slots=3, load_steps=50, load_seconds=0.1, on_progress=lambda f, w: seen.append((f, w)))
    assert (client.facts.context, client.facts.slots, client.facts.options["context"]) == (512, 3, 512)
    assert "<|im_end|>" in client.facts.special_tokens.values()
    assert seen[0][0] == 0.0 and seen[-1] == (1.0, "Ready") and len(seen) < 20
    assert client.alive and client.pid != os.getpid()


async def test_questions_are_answered_while_a_reply_plays(start: Start) -> None:
    client = await start(script=SCRIPT, rate=200)
    reader = play(client)
    pieces = [("<|im_start|>", True), ("<|im_start|>", False), ("", False), (SCRIPT, False)]
    control, text, nothing, script = await client.tokenize(pieces)
    assert len(control) == 1 and len(text) > 1 and nothing == []
    assert await client.detokenize(script) == SCRIPT.encode()
    scores = await client.score(script)
    assert scores.dtype == np.float32 and scores.shape == (len(script),) and np.isnan(scores[0])
    assert (await client.logits(script, 2, 4)).shape == (2, client.facts.vocab_size)
    assert (await client.embed(script)).sum() == len(SCRIPT.encode())
    with pytest.raises(BadRequest, match="vocabulary"):
        await client.detokenize([2**30])
    assert not reader.is_over


async def test_a_question_too_large_for_a_frame_is_refused(start: Start) -> None:
    client = await start()
    with pytest.raises(TooLarge):
        await client.tokenize([("x" * (MAX_HEADER + 1), False)])
    assert await client.tokenize([("still here", False)])


@pytest.mark.parametrize("wrong", [2**31, 2**30, -1])
async def test_a_wrong_token_id_fails_the_run_as_a_bad_request(start: Start, wrong: int) -> None:
    client = await start()
    reader = play(client, prompt=[65, wrong])
    assert not reader.batches
    await until(lambda: reader.is_over, "the error")
    assert isinstance(reader.error, BadRequest)


async def test_a_removed_run_is_silent_and_its_slot_free(start: Start) -> None:
    client = await start(script=SCRIPT, rate=500, slots=1)
    first, second = play(client, "first"), play(client, "second")
    await until(lambda: first.tokens and second.events, "both to be heard of")
    assert second.events == [Waiting(1)]
    client.remove("first")
    n_heard = len(first.events)
    client.remove("first")
    client.remove("ghost")
    await until(lambda: second.is_over, "the second")
    assert len(first.events) == n_heard and second.text == SCRIPT


async def test_a_second_turn_evaluates_only_what_is_new(start: Start) -> None:
    client = await start(script="A short reply.")
    prompt = (await client.tokenize([("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", True)]))[0]
    first = play(client, "first", prompt, "chat")
    await until(lambda: first.is_over, "the first")
    new = (await client.tokenize([("\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n", True)]))[0]
    longer = [*prompt, *(token.id for token in first.tokens), *new]
    second, stranger = play(client, "second", longer, "chat"), play(client, "stranger", longer, "another")
    await until(lambda: second.is_over and stranger.is_over, "both")
    assert second.events[0] == Admitted(len(longer) - len(new) - 1)
    assert stranger.events[0] == Admitted(0)


async def test_a_reader_that_raises_ends_only_its_own_run(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = await start(script=SCRIPT)

    def broken(events: list[WorkerEvent], at: float) -> None:
        raise ZeroDivisionError

    client.add("broken", [65], GenerationParams(), "", broken)
    reader = play(client)
    await until(lambda: reader.is_over, "the other")
    assert reader.text == SCRIPT and "broken" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no names there")
async def test_a_killed_worker_fails_its_runs_and_questions_once(start: Start) -> None:
    client = await start(script=SCRIPT, rate=20)
    readers = [play(client, str(n)) for n in range(6)]
    deaths: list[WorkerDied] = []
    client.on_death = deaths.append
    await until(lambda: all(reader.events for reader in readers), "all to be heard of")
    os.kill(client.pid, signal.SIGSTOP)  # so that it cannot answer any more
    question = asyncio.create_task(client.tokenize([("?", False)]))
    await asyncio.sleep(0)
    os.kill(client.pid, signal.SIGKILL)
    await until(lambda: deaths, "the death to be noticed")
    for reader in readers:
        assert isinstance(reader.error, WorkerDied)
        assert "SIGKILL" in reader.error.message and "memory" in reader.error.message
    with pytest.raises(WorkerDied):
        await question
    assert not client.alive and not psutil.pid_exists(client.pid), "reaped"
    late = play(client, "late")
    await until(lambda: late.is_over, "the refusal")
    assert isinstance(late.error, WorkerDied)
    with pytest.raises(WorkerDied):
        await client.embed([1])
    client.remove("late")
    await client.close()
    assert len(deaths) == 1


async def test_a_crash_in_a_step_is_told_with_the_signals_name(start: Start) -> None:
    client = await start(script=SCRIPT, fail="crash", rate=5)
    reader = play(client)
    await until(lambda: reader.is_over, "the crash")
    assert isinstance(reader.error, WorkerDied)
    if sys.platform != "win32":
        assert "SIGABRT" in reader.error.message
    # The newest token may still wait to go together with the next, and a crash of the process takes it along.
    assert 2 <= len(reader.tokens) <= 3, "what came before the crash arrived"


async def test_an_exception_in_a_step_ends_its_runs_and_the_worker_serves_on(start: Start) -> None:
    client = await start(script=SCRIPT, fail="step")
    reader = play(client, "long")
    await until(lambda: reader.is_over, "the error")
    assert type(reader.error) is AppError and "RuntimeError" in reader.error.message
    await until(lambda: "Traceback" in client.log_tail(), "the traceback in the log")
    short = play(client, "short", max_tokens=2)
    await until(lambda: short.is_over, "the short one")
    assert short.tokens[-1].finish == "length" and client.alive


@pytest.mark.parametrize(("options", "kind", "words"), [
    ({"fail": "load"}, LoadFailed, "told to fail"), ({"fail": "memory"}, OutOfMemory, "loading the model"),
    ({"unheard": 1}, LoadFailed, "no option unheard"), ({"slots": 0}, LoadFailed, "slots must be a whole number from 1"),
])
async def test_a_failed_load_says_why(start: Start, options: dict[str, Any], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        await start(**options)
    assert "echo" in caught.value.log, "the log's end comes with it"


async def test_a_missing_file_and_an_unknown_loader_fail_the_load(start: Start, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        await start(str(tmp_path / "none.echo"))
    with pytest.raises(LoadFailed, match="no loader called 'unheard'"):
        await WorkerClient.start(loader="unheard", path="", options={}, log_path=tmp_path / "log", on_progress=lambda f, w: None)


async def test_a_file_is_found_from_any_folder(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "play.echo").write_text("From a file.", "utf-8")
    monkeypatch.chdir(tmp_path)
    reader = play(await start("play.echo"))
    await until(lambda: reader.is_over, "the end")
    assert reader.text == "From a file."


async def test_a_cancelled_load_leaves_no_process(start: Start) -> None:
    seen: list[float] = []
    loading = asyncio.create_task(start(load_seconds=600, load_steps=2, on_progress=lambda f, w: seen.append(f)))
    await until(lambda: seen, "the load to begin")
    assert psutil.Process().children()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert not psutil.Process().children()


async def test_death_during_a_load_is_told(start: Start) -> None:
    seen: list[float] = []
    loading = asyncio.create_task(start(load_seconds=600, on_progress=lambda f, w: seen.append(f)))
    await until(lambda: seen, "the load to begin")
    psutil.Process().children()[0].kill()
    with pytest.raises(WorkerDied, match="while loading"):
        await loading


async def test_close_ends_live_runs_and_twice_is_harmless(start: Start) -> None:
    client = await start(script=SCRIPT, rate=5)
    deaths: list[WorkerDied] = []
    client.on_death = deaths.append
    reader = play(client)
    await until(lambda: reader.events, "the run to be heard of")
    pid = client.pid
    await asyncio.gather(client.close(), client.close())
    await client.close()
    assert isinstance(reader.error, Cancelled) and not deaths and not client.alive
    assert not psutil.pid_exists(pid)
