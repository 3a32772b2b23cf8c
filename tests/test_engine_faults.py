"""The engine when things go wrong or at once: faults in a run, cancels at every moment, loads that meet unloads and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from modules.core.errors import AppError, Cancelled, Conflict, LoadFailed, NotFound, WorkerDied
from modules.core.events import END, Event, Finished, Prefill, Queued, Request, Started
from modules.core.messages import message
from modules.core.params import GenerationParams
from modules.engine import Engine, Run
from modules.engine.prompt import Prompt, PromptBuilder
from modules.text.splitter import Splitter

from .echo_models import echo_engine, say
from .test_engine import read, until


def workers() -> list[psutil.Process]:
    """The worker processes of this test's process."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended; psutil says so of a zombie too
            found += [process] if "modules.worker.main" in " ".join(process.cmdline()) else []
    return found


async def until_loading(engine: Engine, name: str) -> None:
    """Wait until the model's own process tells of its progress."""
    await until(lambda: engine.watch.state.status == "loading" and engine.watch.state.name == name
                and engine.watch.state.fraction > 0)


# Faults


async def test_an_unforeseen_fault_while_the_prompt_is_built_ends_the_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task died with the exception and the run had no end: readers waited for ever, and its place stayed taken."""
    async def broken(self: PromptBuilder, request: Request) -> Prompt:
        raise KeyError("a bug")

    async with echo_engine(tmp_path, script="x") as engine:
        with monkeypatch.context() as patched:
            patched.setattr(PromptBuilder, "build", broken)
            with pytest.raises(AppError, match="KeyError"):
                await engine.start(say("Go")).wait()
        await until(lambda: not engine.held().runs)
        assert (await engine.start(say("Go")).wait()).reason == "stop"


async def test_an_unforeseen_fault_while_text_arrives_ends_the_run_with_its_text(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's client logged it and dropped the run, which then never ended."""
    feed = Splitter.feed
    fed = 0

    def broken(self: Splitter, token: Any) -> Any:
        nonlocal fed
        fed += 1
        if fed == 12:
            raise IndexError("a bug")
        return feed(self, token)

    async with echo_engine(tmp_path, script="word " * 400, rate=300) as engine:
        monkeypatch.setattr(Splitter, "feed", broken)
        run = engine.start(say("Go", max_tokens=0))
        with pytest.raises(AppError, match="IndexError"):
            await run.wait()
        assert run.text().startswith("word word")
        await until(lambda: not engine.held().runs)


async def test_a_listener_that_fails_does_not_keep_readers_waiting(tmp_path: Path) -> None:
    """Its exception came before the readers were woken, so they slept for ever after the end."""
    def listener(run: Run, events: Any) -> None:
        raise ValueError("a bug in a reader")

    async with echo_engine(tmp_path, script="x y z") as engine:
        run = engine.start(say("Go"), listener=listener)
        assert (await run.wait()).reason == "stop"
        assert run.text() == "x y z"


# Cancel


async def test_a_cancel_in_the_same_moment_as_the_start_is_obeyed(tmp_path: Path) -> None:
    """The run had not taken its first step, so there was nothing to cancel yet and it went on to its end, unwatched."""
    async with echo_engine(tmp_path, script="abc " * 5000, rate=300) as engine:
        run = engine.start(say("Go", max_tokens=0))
        run.cancel()
        with pytest.raises(Cancelled):
            await run.wait()
        await until(lambda: not engine.held().runs)


@pytest.mark.parametrize("at", ["started", "prefill", "first", "queued"])
async def test_a_cancel_at_any_stage_gives_one_end_and_frees_the_place(tmp_path: Path, at: str) -> None:
    async with echo_engine(tmp_path, script="abc " * 500, rate=300, slots=1, prefill_ms=50.0) as engine:
        first = engine.start(say("a " * 2000, max_tokens=0))
        run = first
        if at == "queued":
            run = engine.start(say("b", max_tokens=0))
        kind: dict[str, Any] = {"started": Started, "prefill": Prefill, "queued": Queued}
        await until(lambda: any(isinstance(e, kind[at]) for e in run.events) if at in kind else bool(run.text()))
        run.cancel()
        assert run.done, "the reader need not wait for the worker"
        run.cancel()
        events = await read(run)
        assert sum(isinstance(e, END) for e in events) == sum(isinstance(e, Started) for e in events) == 1
        assert isinstance(events[-1], Finished) and events[-1].reason == "cancelled"
        first.cancel()
        after = engine.start(say("c", max_tokens=2))
        assert (await after.wait()).usage.completion_tokens == 2


async def test_a_cancel_from_within_the_last_batch_leaves_the_end_as_it_is(tmp_path: Path) -> None:
    runs: list[Run] = []

    def listener(run: Run, events: Any) -> None:
        if isinstance(events[-1], END):
            run.cancel()
            runs.append(run)

    async with echo_engine(tmp_path, script="abc") as engine:
        end = await engine.start(say("Go"), listener=listener).wait()
    assert end.reason == "stop"
    assert len(runs) == 1


async def test_closing_ends_every_run_whatever_it_was_doing(tmp_path: Path) -> None:
    """A run whose task had not begun when the engine closed never got an end, so its reply was never saved."""
    told: dict[str, Event] = {}

    def listener(run: Run, events: Any) -> None:
        if isinstance(events[-1], END):
            told[run.id] = events[-1]

    async with echo_engine(tmp_path, script="abc " * 5000, rate=100, slots=1) as engine:
        decoding = engine.start(say("a", max_tokens=0), listener=listener)
        await until(lambda: bool(decoding.text()))
        queued = engine.start(say("b", max_tokens=0), listener=listener)
        await until(lambda: bool(queued.events))
        building = engine.start(say("c"), listener=listener)
        await asyncio.sleep(0)
        new = engine.start(say("d"), listener=listener)
        await engine.close()
        assert set(told) == {decoding.id, queued.id, building.id, new.id}
    assert not workers()


# Loads


@pytest.mark.skipif(os.name == "nt", reason="signals")
async def test_the_death_of_a_model_on_its_way_out_leaves_the_new_one_of_the_same_name(tmp_path: Path) -> None:
    """The name was taken out of the table, so the new model was no longer held and its process never ended."""
    async with echo_engine(tmp_path, script="old " * 5000, rate=200) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        old = engine.held().worker
        await engine.load("echo", options={"script": "new"})
        os.kill(old.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await run.wait()
        newer = engine.start(say("x"))
        await newer.wait()
        assert newer.text() == "new"


async def test_loading_the_same_model_again_lets_its_replies_end_and_one_process_stays(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="old " * 30, rate=200) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        await engine.load("echo", options={"script": "new", "context": 4096})
        assert engine.held().facts.context == 4096
        await run.wait()
        assert run.text() == "old " * 30
        await until(lambda: len(workers()) == 1)


async def test_a_reply_on_a_model_on_its_way_out_can_be_stopped(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, script="old " * 5000, rate=200) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        await engine.load("other", options={"script": "new"})
        run.cancel()
        assert (await run.wait()).reason == "cancelled"
        await until(lambda: len(workers()) == 1)


async def test_closing_while_a_model_is_on_its_way_out_leaves_no_process(tmp_path: Path) -> None:
    """Only the held models were waited for."""
    async with echo_engine(tmp_path, script="old " * 5000, rate=200) as engine:
        run = engine.start(say("Go", max_tokens=0))
        await until(lambda: bool(run.text()))
        await engine.load("other", options={"script": "new"})
        await engine.close()
        assert not workers()


async def test_closing_in_the_middle_of_a_load_leaves_no_process_and_brings_nothing_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancelled load brought the old model back while the app was stopping."""
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    async with echo_engine(tmp_path) as engine:
        task = asyncio.create_task(engine.load("other", options={"load_seconds": 60.0, "load_steps": 1000}))
        await until_loading(engine, "other")
        await engine.close()
        assert not workers()
        assert not engine.models
        with pytest.raises(Cancelled):
            await task


async def test_a_cancel_while_the_old_model_comes_back_leaves_none_and_nothing_running(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on coming back unseen: another load could begin beside it, and more models were held than allowed."""
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    async with echo_engine(tmp_path, load_seconds=3.0, load_steps=1000) as engine:
        task = asyncio.create_task(engine.load("other", options={"fail": "load"}))
        await until_loading(engine, "echo")
        assert engine.cancel_load()
        with pytest.raises(AppError):
            await task
        assert engine.watch.state.status in ("failed", "cancelled")
        await until(lambda: not workers())
        await engine.load("third", options={"script": "third"})
        assert [held.name for held in engine.models] == ["third"]
        assert len(workers()) == 1


async def test_where_the_old_model_cannot_come_back_both_reasons_are_given(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second failure hid the first, which is the one that the person asked about."""
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    async with echo_engine(tmp_path) as engine:
        engine.held().options["fail"] = "memory"
        with pytest.raises(LoadFailed, match=r"told to fail.*echo could not be brought back.*[Mm]emory"):
            await engine.load("other", options={"fail": "load"})
        assert engine.watch.state.status == "failed"
        assert not engine.models


async def test_unloading_during_a_load_does_not_bring_the_unloaded_model_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with echo_engine(tmp_path) as engine:
        task = asyncio.create_task(engine.load("other", options={"load_seconds": 1.0, "load_steps": 100, "fail": "load"}))
        await until_loading(engine, "other")
        await engine.unload("echo")
        with pytest.raises(LoadFailed):
            await task
        assert not engine.models
        assert not workers()


async def test_with_two_models_the_one_used_longest_ago_makes_room(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, max_models=2, script="first") as engine:
        await engine.load("other", options={"script": "second"})
        await engine.start(Request(GenerationParams(), (message("user", "x"),), model="echo")).wait()
        await engine.load("third", options={"script": "third"})
        assert sorted(held.name for held in engine.models) == ["echo", "third"]
        with pytest.raises(NotFound, match="other"):
            engine.start(Request(GenerationParams(), (message("user", "x"),), model="other"))


async def test_two_loads_at_once_are_one_load_and_one_refusal(tmp_path: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        results = await asyncio.gather(engine.load("other"), engine.load("third"), return_exceptions=True)
        assert sum(isinstance(result, Conflict) for result in results) == 1
        assert len(engine.models) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("when", ["building", "queued", "loading"])
async def test_the_death_of_the_worker_at_any_stage_is_told_and_leaves_nothing_waiting(tmp_path: Path, when: str) -> None:
    async with echo_engine(tmp_path, script="abc " * 5000, rate=100, slots=1) as engine:
        if when == "loading":
            task = asyncio.create_task(engine.load("other", options={"load_seconds": 60.0, "load_steps": 1000}))
            await until_loading(engine, "other")
            held = engine.held().worker.pid
            os.kill(next(p.pid for p in workers() if p.pid != held), signal.SIGKILL)
            with pytest.raises(WorkerDied, match="SIGKILL"):
                await task
            assert engine.watch.state.status == "failed"
            assert [h.name for h in engine.models] == ["echo"]
            return
        runs = [engine.start(say("a", max_tokens=0))]
        if when == "queued":
            await until(lambda: bool(runs[0].text()))
            runs.append(engine.start(say("b")))
            await until(lambda: any(isinstance(e, Queued) for e in runs[1].events))
        else:
            os.kill(engine.held().worker.pid, signal.SIGSTOP)
            await asyncio.sleep(0.05)
        os.kill(engine.held().worker.pid, signal.SIGKILL)
        for run in runs:
            with pytest.raises(WorkerDied, match="SIGKILL"):
                await run.wait()
        await until(lambda: not engine.models)


# Raw text


async def test_raw_text_comes_as_it_was_written_marks_included(tmp_path: Path) -> None:
    """Reasoning marks were taken out of a raw completion and of the notebook's text: words of the document were lost."""
    script = "a <think>b</think> c"
    async with echo_engine(tmp_path, script=script) as engine:
        run = engine.start(Request(GenerationParams(), text="Go", control=True))
        await run.wait()
        assert run.text() == script


async def test_ended_runs_are_forgotten_after_their_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.engine.engine.KEPT_SECONDS", 0.05)
    async with echo_engine(tmp_path, script="x") as engine:
        run = engine.start(say("Go"))
        await run.wait()

        def gone() -> bool:
            with suppress(NotFound):
                return not engine.run(run.id)
            return True

        await until(gone)
