"""The engine with a real worker: order of events, stop, death, loading with a way back."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from modules.core.errors import BadRequest, Busy, Cancelled, Conflict, ContextTooLong, LoadFailed, NoModel, NotFound, WorkerDied
from modules.core.events import Delta, Failed, Finished, Prefill, Queued, Request, Started
from modules.core.messages import message
from modules.core.params import GenerationParams
from modules.engine import Run

from .echo_models import echo_engine, say

KINDS = {Queued: 0, Started: 1, Prefill: 2, Delta: 3, Finished: 4, Failed: 4}


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time-out ends it if it never comes."""
    while not is_true():
        await asyncio.sleep(0.005)


async def read(run: Run) -> list[object]:
    return [event async for batch in run.follow() for event in batch]


async def test_events_come_in_their_order_and_deltas_are_the_text(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="One two three. <think>hm</think> Four?") as engine:
        events = await read(engine.start(say("Hello")))
    assert [KINDS[type(e)] for e in events] == sorted(KINDS[type(e)] for e in events)
    assert sum(isinstance(e, Started) for e in events) == 1
    assert isinstance(events[-1], Finished)
    text = "".join(e.text for e in events if isinstance(e, Delta) and e.channel == "text")
    assert text.startswith("One two three.")
    assert all(e.text for e in events if isinstance(e, Delta))
    assert events[-1].usage.completion_tokens == len(events[-1].ids)


async def test_every_reader_gets_every_event_from_its_offset(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="word " * 200, rate=2000) as engine:
        run = engine.start(say("Go"))
        whole, late = await asyncio.gather(read(run), _read_from(run, 3))
        assert whole[3:] == late
        assert whole == await read(run), "an ended run can be read again"


async def _read_from(run: Run, offset: int) -> list[object]:
    await until(lambda: len(run.events) > offset)
    return [event async for batch in run.follow(offset) for event in batch]


async def test_a_reader_that_is_behind_slows_the_worker_until_it_has_caught_up_or_the_run_is_over(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.worker.delivery.LONGEST_HOLD", 600)
    async with echo_engine(tmp_path, script="word " * 400, rate=1000) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: any(isinstance(e, Delta) for e in run.events))
        run.lag(True)
        seen = len(run.events)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.tokenize("behind what waits"), 0.2)
        assert len(run.events) == seen and not run.done
        run.lag(False)
        await run.wait()
        assert run.text() == "word " * 400
        stopped = engine.start(say("Go", max_tokens=0))
        await until(lambda: any(isinstance(e, Delta) for e in stopped.events))
        stopped.lag(True)
        stopped.cancel()
        await engine.start(say("Go", max_tokens=0)).wait()


async def test_stop_ends_the_run_and_keeps_its_text(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="abc " * 5000, rate=500) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        run.cancel()
        end = await run.wait()
        assert end.reason == "cancelled"
        assert run.text().startswith("abc")
        again = engine.start(say("Go", max_tokens=3))
        assert (await again.wait()).usage.completion_tokens == 3


async def test_stop_before_the_prompt_is_ready_ends_the_run(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="abc") as engine:
        run = engine.start(say("Go"))
        await asyncio.sleep(0)
        run.cancel()
        events = await read(run)
        assert isinstance(events[-1], (Failed, Finished))
        assert len([e for e in events if isinstance(e, (Failed, Finished))]) == 1


async def test_a_stop_string_is_never_shown_and_ends_the_run(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="alpha beta gamma delta " * 50, rate=3000) as engine:
        run = engine.start(say("Go", stop=("gamma d",), max_tokens=0))
        end = await run.wait()
        assert (end.reason, end.stop_string) == ("stop_string", "gamma d")
        assert run.text() == "alpha beta "


async def test_ignored_parameters_and_the_drawn_seed_are_told(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="x") as engine:
        run = engine.start(say("Go", temperature=0.5, min_p=0.1))
        await run.wait()
        started = next(e for e in run.events if isinstance(e, Started))
        assert {"temperature", "min_p"} <= set(started.ignored)
        assert started.seed >= 0


async def test_equal_seeds_repeat(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        texts = []
        for seed in (7, 7):
            run = engine.start(say("the same", seed=seed))
            await run.wait()
            texts.append(run.text())
        assert texts[0] == texts[1]
        assert texts[0]


async def test_the_second_turn_reuses_the_first(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="A reply of some words.") as engine:
        first = engine.start(say("First question of this chat"))
        end = await first.wait()
        chat = (message("user", "First question of this chat"), message("assistant", first.text()), message("user", "And?"))
        second = engine.start(Request(GenerationParams(), chat, spliced={1: end.ids}))
        usage = (await second.wait()).usage
        assert usage.cached_tokens >= end.usage.prompt_tokens + len(end.ids) - 1


async def test_a_prompt_over_the_context_is_refused_with_the_counts_or_cut_where_that_is_allowed(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="ok", context=512) as engine:
        chat = tuple(message("user" if i % 2 == 0 else "assistant", f"message {i} " + "talk " * 20) for i in range(41))
        with pytest.raises(ContextTooLong, match="512"):
            await engine.start(Request(GenerationParams(max_tokens=20), chat)).wait()
        run = engine.start(Request(GenerationParams(max_tokens=20), chat, truncate=True))
        await run.wait()
        started = next(e for e in run.events if isinstance(e, Started))
        assert started.dropped > 0
        assert started.prompt_tokens < 512 - 20
        assert chat[started.keep_from].role == "user"
        longer = (*chat, message("assistant", "ok"), message("user", "more"))
        run = engine.start(Request(GenerationParams(max_tokens=20), longer, truncate=True, keep_from=started.keep_from))
        await run.wait()
        again = next(e for e in run.events if isinstance(e, Started))
        assert again.keep_from == started.keep_from, "the cut stays where it was while the prompt fits"


async def test_raw_text_over_the_context_is_cut_in_blocks_and_keeps_its_beginning_mark(tmp_path: Path) -> None:
    """The window slid by every new token, so each go evaluated all of it again."""
    async with echo_engine(tmp_path, script="ok", context=512) as engine:
        text = "word " * 300
        starts = []
        for more in range(6):
            request = Request(GenerationParams(max_tokens=8), text=text + "more " * more, truncate=True)
            prompt = await engine.prompt(request)
            assert len(prompt.ids) <= 512 - 8
            starts.append(len(await engine.tokenize(request.text)) - len(prompt.ids))
            assert prompt.left_out == starts[-1], "how much was left out is told"
        assert len(set(starts)) <= 2, "the cut moves seldom"
        run = engine.start(request)
        await run.wait()
        assert next(event for event in run.events if isinstance(event, Started)).left_out == starts[-1] > 0
        assert (await engine.prompt(Request(GenerationParams(), text="short", truncate=True))).left_out == 0
        with pytest.raises(BadRequest):
            await engine.prompt(Request(GenerationParams(), text=text))


async def test_a_full_queue_is_refused_and_a_waiting_run_is_told_its_place(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="abc " * 500, rate=200, slots=1, max_queue=1) as engine:
        first = engine.start(say("one", max_tokens=0))
        second = engine.start(say("two", max_tokens=2))
        with pytest.raises(Busy):
            engine.start(say("three"))
        await until(lambda: any(isinstance(e, Queued) for e in second.events))
        first.cancel()
        assert (await second.wait()).usage.completion_tokens == 2


async def test_without_a_model_the_error_says_what_to_do(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        with pytest.raises(NotFound):
            engine.start(Request(GenerationParams(), (message("user", "x"),), model="nobody"))
        await engine.unload("echo")
        with pytest.raises(NoModel, match="Model tab"):
            engine.start(say("x"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
async def test_a_killed_worker_fails_its_runs_with_the_cause_and_the_next_load_works(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="abc " * 5000, rate=300) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        os.kill(engine.held().worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await run.wait()
        assert run.text().startswith("abc")
        await until(lambda: not engine.models)
        await engine.load("echo", options={"script": "back"})
        again = engine.start(say("Go"))
        await again.wait()
        assert again.text() == "back"


async def test_a_load_that_fails_brings_its_reason_and_keeps_the_old_model(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="old") as engine:
        with pytest.raises(LoadFailed):
            await engine.load("other", options={"fail": "load"})
        assert engine.watch.state.status == "failed"
        run = engine.start(say("x"))
        await run.wait()
        assert run.text() == "old"


async def test_where_memory_holds_only_one_the_old_model_goes_first_and_comes_back_if_the_new_one_fails(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    async with echo_engine(tmp_path, script="old") as engine:
        first = engine.held().worker
        with pytest.raises(LoadFailed):
            await engine.load("other", options={"fail": "load"})
        assert not first.alive, "the old model had to make room"
        assert [held.name for held in engine.models] == ["echo"]
        run = engine.start(say("x"))
        await run.wait()
        assert run.text() == "old"
        await engine.load("other", options={"script": "new"})
        assert [held.name for held in engine.models] == ["other"]


async def test_unknown_options_and_loaders_are_refused_by_name(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        with pytest.raises(LoadFailed, match="colour"):
            await engine.load("other", options={"colour": 3})
        with pytest.raises(LoadFailed, match="steam"):
            await engine.load("other", loader="steam")
        with pytest.raises(BadRequest, match="context"):
            await engine.load("other", options={"context": -5})
        assert [held.name for held in engine.models] == ["echo"]


async def test_a_load_shows_progress_can_be_cancelled_and_refuses_a_second(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        task = asyncio.create_task(engine.load("other", options={"load_seconds": 60.0, "load_steps": 1000}))
        await until(lambda: engine.watch.state.status == "loading" and engine.watch.state.fraction > 0)
        with pytest.raises(Conflict, match="other"):
            await engine.load("third")
        assert engine.cancel_load()
        with pytest.raises(Cancelled):
            await task
        assert engine.watch.state.status == "cancelled"
        assert [held.name for held in engine.models] == ["echo"]


async def test_swapping_lets_a_running_reply_end_on_the_old_model(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="slow " * 40, rate=200) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        await engine.load("other", options={"script": "new"})
        newer = engine.start(say("x"))
        await newer.wait()
        assert newer.text() == "new"
        assert (await run.wait()).reason == "stop"
        assert run.text() == "slow " * 40


async def test_two_models_are_held_where_the_limit_allows(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, max_models=2, script="first") as engine:
        await engine.load("other", options={"script": "second"})
        texts = []
        for name in ("echo", "other"):
            run = engine.start(Request(GenerationParams(), (message("user", "x"),), model=name))
            await run.wait()
            texts.append(run.text())
        assert texts == ["first", "second"]


async def test_encode_and_decode_agree_and_refuse_unknown_ids(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        ids = await engine.tokenize("Grüße, 世界 👋")
        assert await engine.detokenize(ids) == "Grüße, 世界 👋"
        with pytest.raises(BadRequest, match="vocabulary"):
            await engine.detokenize([10**9])


async def test_an_ended_run_does_not_keep_its_unloaded_model(tmp_path: Path) -> None:
    """For its minute each run kept the client of its model's process, and by its listener the whole chat: a quarter of a megabyte
    for each exchange of the model in a short conversation."""
    async with echo_engine(tmp_path) as engine:
        run = engine.start(say("Hello"))
        await run.wait()
        await until(lambda: not engine.held().runs)
        worker = weakref.ref(engine.held().worker)
        await engine.load("other")
        await until(lambda: gc.collect() >= 0 and worker() is None)
        assert engine.run(run.id) is run
