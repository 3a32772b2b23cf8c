"""A run's readers: all see the same, at their own pace, from wherever they left off."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modules.core.conversation import Node
from modules.core.errors import NotFound, WorkerDied
from modules.core.events import Failed, Prefill, Queued, Started, Usage
from modules.core.messages import Message, ReasoningPart, TextPart
from modules.ui import live as live_module
from modules.ui.blocks import render_message
from modules.ui.live import LiveRun, LiveRuns

from .fake_chats import FakeChats
from .fake_run import FakeRun, FakeRuns

TEXT = "# Title\n\nA *b* c 😀.\n\n```python\nx = 1\n```\n\n- one\n- two\n\nLast [l] words.\n\n[l]: http://x.example\n"


class Page:
    """What a page does with frames; `frames` counts them."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[str]] = {"text": [], "reasoning": [], "tool": []}
        self.status: dict[str, Any] = {}
        self.states: list[str] = []
        self.epoch, self.version, self.frames = "", 0, 0

    def take(self, frame: dict[str, Any]) -> None:
        self.frames += 1
        self.epoch = frame.get("e", self.epoch)
        self.version = frame["v"]
        for name in self.blocks:
            if name in frame:
                count, updates = frame[name]
                shown = (self.blocks[name] + [""] * count)[:count]
                for index, keep, append in updates:
                    shown[index] = shown[index][:keep] + append
                self.blocks[name] = shown
        if "s" in frame:
            self.status = frame["s"] if "state" in frame["s"] else self.status | frame["s"]
            if self.states[-1:] != [self.status["state"]]:
                self.states.append(self.status["state"])

    async def read(self, live: LiveRun, *, frames: int = 10**9) -> Page:
        stream = live.follow(self.epoch, self.version)
        async for frame in stream:
            self.take(frame)
            frames -= 1
            if not frames:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return self


@pytest.fixture
async def run() -> AsyncIterator[FakeRun]:
    yield FakeRun()


async def test_a_reader_sees_the_whole_reply_and_how_it_ended(run: FakeRun) -> None:
    page = Page()
    reading = asyncio.create_task(page.read(LiveRun(run, None)))
    for letter in TEXT:
        run.say(letter)
        await asyncio.sleep(0)
    run.finish()
    await reading
    assert page.blocks["text"] == render_message(TEXT)
    assert page.status["state"] == "complete" and page.status["finish"] == "stop"
    assert page.status["tokens"] == 3 and page.status["speed"] == 4.0, "the run's own numbers: 2 tokens after the first in 0.5 s"


async def test_readers_that_join_late_or_after_the_end_see_the_same(run: FakeRun) -> None:
    live = LiveRun(run, None)
    first = asyncio.create_task(Page().read(live))
    run.say(TEXT[:60])
    await asyncio.sleep(0.1)
    second = asyncio.create_task(Page().read(live))
    run.say(TEXT[60:])
    run.finish()
    pages = [await first, await second, await Page().read(live)]
    assert [page.blocks["text"] for page in pages] == [render_message(TEXT)] * 3


async def test_a_reader_that_reconnects_gets_only_what_changed(run: FakeRun) -> None:
    live = LiveRun(run, None)
    run.say("x" * 5000 + "\n\nsecond")
    page = await Page().read(live, frames=2)
    run.say(" more")
    run.finish()
    sent: list[dict[str, Any]] = []
    async for frame in live.follow(page.epoch, page.version):
        sent.append(frame)
        page.take(frame)
    assert page.blocks["text"] == render_message("x" * 5000 + "\n\nsecond more")
    assert len(str(sent)) < 2000, "the first block is not sent again"


async def test_a_reader_from_another_epoch_gets_everything(run: FakeRun) -> None:
    """A version that another renderer counted says nothing about this one."""
    live = LiveRun(run, None)
    run.say("hello")
    run.finish()
    page = Page()
    page.epoch, page.version = "other", 3
    await page.read(live)
    assert page.blocks["text"] == ["<p>hello</p>\n"]


async def test_a_slow_reader_gets_fewer_larger_frames(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.ui.blocks.SHORTEST_INTERVAL", 0.0)
    live = LiveRun(run, None)
    fast, slow = Page(), Page()
    reading = asyncio.create_task(fast.read(live))
    stream = live.follow()
    slow.take(await anext(stream))
    for n in range(50):
        run.say(f"word{n} ")
        seen = live.version
        while live.version == seen:
            await asyncio.sleep(0)
    run.finish()
    await reading
    async for frame in stream:
        slow.take(frame)
    assert slow.blocks == fast.blocks
    assert slow.frames < 5 < 40 < fast.frames


async def test_many_readers_leaving_and_coming_back_at_random_end_equal(run: FakeRun) -> None:
    live = LiveRun(run, None)
    rng = random.Random(5)

    async def come_and_go() -> Page:
        page = Page()
        while page.status.get("state") != "complete":
            await page.read(live, frames=rng.randrange(1, 4))
        return page

    readers = [asyncio.create_task(come_and_go()) for _ in range(8)]
    for begin in range(0, len(TEXT), 5):
        run.say(TEXT[begin:begin + 5])
        await asyncio.sleep(0.01)
    run.finish()
    for reader in readers:
        assert (await reader).blocks["text"] == render_message(TEXT)


async def test_the_states_of_a_run_are_told_in_order(run: FakeRun) -> None:
    live = LiveRun(run, None)
    page = Page()
    stream = live.follow()
    page.take(await anext(stream))
    for event in (Queued(2), Started("run1", "m", "echo", 100, 40, 4096, 1, dropped=3, ignored=("top_k",)), Prefill(80, 100)):
        run.publish(event)
        page.take(await anext(stream))
    run.say("hm", "reasoning")
    page.take(await anext(stream))
    run.say("so")
    run.finish("length")
    async for frame in stream:
        page.take(frame)
    assert page.states == ["starting", "queued", "prefill", "thinking", "writing", "complete"]
    assert page.status["finish"] == "length" and page.status["dropped"] == 3 and page.status["ignored"] == ["top_k"]
    assert page.blocks["reasoning"] == ["<p>hm</p>\n"] and page.blocks["text"] == ["<p>so</p>\n"]


async def test_a_disk_that_fails_is_told_while_the_reply_streams_and_when_it_works_again(
        run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a reload told it; also while no text comes, as during a long prompt."""
    monkeypatch.setattr(live_module, "LOOK_SECONDS", 0.01)
    disk = [""]
    live = LiveRun(run, None, at_risk=lambda: disk[0])
    page = Page()
    reading = asyncio.create_task(page.read(live))
    for said, reason in (("a", ""), ("", "the disk is full"), ("b", "the disk is full"), ("", ""), ("", "it is full again")):
        disk[0] = reason
        if said:
            run.say(said)
        while page.status.get("at_risk", "") != reason or not page.status.get("tokens"):
            await asyncio.sleep(0.002)
    run.finish()
    await reading
    assert "at_risk" not in page.status, "after the end it is asked whether the row is written"


async def test_a_failed_run_keeps_its_text_and_says_why(run: FakeRun) -> None:
    run.say("half a")
    failed = Failed(WorkerDied("The model's process was killed by SIGKILL; load it again."), Usage(1, 2, 0))
    run.publish(failed)
    live = LiveRun(_ends_with(run), None)
    page = await Page().read(live)
    assert page.blocks["text"] == ["<p>half a</p>\n"]
    assert page.status["state"] == "failed" and "SIGKILL" in page.status["error"]


def _ends_with(run: FakeRun) -> Any:
    class Ended:
        id, events, done = run.id, run.events, True

        async def follow(self, offset: int = 0) -> AsyncIterator[list[Any]]:
            yield run.events[offset:]

    return Ended()


async def test_a_continued_reply_begins_with_what_was_there(run: FakeRun) -> None:
    before = Message("assistant", (ReasoningPart("thought"), TextPart("Once *upon")))
    live = LiveRun(run, Node(1, "c", None, before, "streaming"))
    run.say(" a* time")
    run.finish()
    page = await Page().read(live)
    assert page.blocks["text"] == ["<p>Once <em>upon a</em> time</p>\n"] and page.blocks["reasoning"] == ["<p>thought</p>\n"]


async def test_nothing_is_drawn_while_nobody_reads(run: FakeRun) -> None:
    live = LiveRun(run, None)
    run.say("hello")
    await asyncio.sleep(0.15)
    assert live.version == 0
    await Page().read(live, frames=2)
    assert live.version > 0


async def test_long_renders_leave_the_loop_free(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a render that took long the next one runs in a thread, and never two at once."""
    monkeypatch.setattr(live_module, "LOOP_SECONDS", -1.0)
    threads: list[int] = []
    busy = threading.Lock()
    original = live_module.LiveBlocks.render

    def render(self: Any, now: float) -> Any:
        assert busy.acquire(blocking=False), "two renders of one run at once"
        threads.append(threading.get_ident())
        try:
            return original(self, now)
        finally:
            busy.release()

    monkeypatch.setattr(live_module.LiveBlocks, "render", render)
    live = LiveRun(run, None)
    reading = asyncio.create_task(Page().read(live))
    for begin in range(0, len(TEXT), 10):
        run.say(TEXT[begin:begin + 10])
        await asyncio.sleep(0.02)
    run.finish()
    assert (await reading).blocks["text"] == render_message(TEXT)
    assert threads and threading.get_ident() not in threads


async def test_the_worker_is_asked_to_wait_while_more_text_came_than_was_drawn(run: FakeRun) -> None:
    live = LiveRun(run, None)
    page = Page()
    reading = asyncio.create_task(page.read(live))
    await asyncio.sleep(0)
    run.say("word " * (live_module.MAX_UNDRAWN // 5))
    await asyncio.sleep(0)
    assert not run.lags, "so much is drawn in time"
    for _ in range(3):
        run.say("word " * live_module.MAX_UNDRAWN)
    async with asyncio.timeout(20):
        while run.lags != [True, False]:
            await asyncio.sleep(0.01)
    assert live.version, "it goes on when readers can see the text"
    run.finish()
    await reading
    assert run.lags == [True, False]


async def test_no_worker_waits_for_readers_that_are_slow_or_gone(run: FakeRun) -> None:
    """The text is drawn on the server whether or not a page takes what was drawn, and not at all when nobody is there."""
    live = LiveRun(run, None)
    for _ in range(3):
        run.say("word " * live_module.MAX_UNDRAWN)
        await asyncio.sleep(0)
    assert not run.lags, "nobody is there"
    stream = live.follow()
    await anext(stream)  # a page that takes one frame and then no more
    async with asyncio.timeout(20):
        while not live.version:
            await asyncio.sleep(0.01)
    for _ in range(3):
        run.say("word " * live_module.MAX_UNDRAWN)
        version = live.version
        async with asyncio.timeout(20):
            while live.version == version or run.lags[-1]:
                await asyncio.sleep(0.01)
    assert run.lags == [True, False] * 3
    run.say("word " * live_module.MAX_UNDRAWN)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await stream.aclose()
    assert not run.lags[-1], "nobody is there any more"


async def test_a_text_that_breaks_the_parser_is_shown_plain(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RecursionError("too deep")

    monkeypatch.setattr("modules.ui.blocks._render", broken)
    live = LiveRun(run, None)
    run.say("*still* here")
    run.finish()
    page = await Page().read(live)
    assert page.blocks["text"] == ['<pre tabindex="0"><code>*still* here</code></pre>']


async def test_live_runs_are_shared_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "KEPT_SECONDS", 0.0)
    run = FakeRun()
    runs = LiveRuns(FakeRuns({"run1": run}), FakeChats())
    live = runs.get("run1")
    assert runs.get("run1") is live
    run.finish()
    async with asyncio.timeout(5):
        while runs.get("run1") is live:
            await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        runs.get("run2")
