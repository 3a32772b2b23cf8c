"""A run as its readers see it: one renderer for each run, and each page that shows it is brought up to date at its own pace."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from ..core.conversation import Node
from ..core.events import Delta
from .blocks import LiveBlocks, diff
from .progress import Frame, Progress
from .services import Chats, Run, Runs

log = logging.getLogger(__name__)

LOOP_SECONDS = 0.005  # a render that took longer than this goes to a thread the next time
# Characters not drawn yet above which the worker is slowed down: 25 ms of drawing. 200 tokens a second are 400 of them in the
# longest interval between two renders, so it is fast replays that meet it.
MAX_UNDRAWN = 4096
STATUS_SECONDS = 0.5  # how often the running count of tokens is sent
LOOK_SECONDS = 1.0  # how often it is looked whether the text is safe on disk while no text comes
KEPT_SECONDS = 60.0  # how long the pages of an ended run stay at hand
CHANNELS = ("reasoning", "text", "tool")
COUNTERS = {"tokens": 0, "speed": 0, "seconds": 0}


@dataclass
class _Channel:
    """One channel's renderer, what it was fed, and the blocks that readers see with the version at which each last changed."""

    live: LiveBlocks = field(default_factory=LiveBlocks)
    waiting: list[str] = field(default_factory=list)
    n_waiting: int = 0  # characters that no reader can see yet, those being drawn among them
    blocks: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def known_at(self, version: int) -> list[str]:
        """The blocks as a reader at `version` has them; those that changed since count as empty."""
        return [html if changed <= version else "" for html, changed in zip(self.blocks, self.versions, strict=True)]

    def show(self, version: int) -> None:
        """Let readers see what was drawn last, as of `version`."""
        new = self.live.blocks
        old = dict(enumerate(zip(self.blocks, self.versions, strict=True)))
        self.versions = [old[i][1] if i in old and old[i][0] == html else version for i, html in enumerate(new)]
        self.blocks = list(new)


class LiveRun:
    """The drawn state of one run. On the event loop; long renders go to a thread, one at a time.

    It draws only while somebody reads. `version` grows with every change; a reader that reconnects names the `epoch` and version
    that it has and gets the difference; without them it gets all. at_risk: as services.Chats has it, for this run.
    """

    def __init__(self, run: Run, origin: Node | None, *, at_risk: Callable[[], str] = lambda: "",
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.epoch = secrets.token_hex(4)
        self.version = 0
        self.ended = False
        self._run = run
        self._at_risk = at_risk
        self._clock = clock
        self._channels = {name: _Channel() for name in CHANNELS}
        self._progress = Progress(clock)
        self._status = self._progress.status(is_over=False)
        self._status_version = 0
        self._news_version = 0
        self._status_at = 0.0
        self._fed = asyncio.Event()
        self._changed = asyncio.Event()
        self._watched = asyncio.Event()
        self._readers = 0
        self._is_behind = False
        if origin is not None:
            self._put("text", origin.message.text)
            self._put("reasoning", origin.message.reasoning)
        self.listening = asyncio.create_task(self._listen(), name=f"listen {run.id}")
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        self._painting = asyncio.create_task(self._paint(), name=f"paint {run.id}")
        self._painting.add_done_callback(_report)

    async def follow(self, epoch: str = "", version: int = 0) -> AsyncGenerator[Frame]:
        """Frames that bring a reader from where it is to the end, the first at once; a slow reader gets fewer, larger ones.

        A frame: `v` version, `e` epoch (first only), `s` status when it changed (only its counters where no more did), and for
        a changed channel [number of blocks, [[index, keep, append], ...]].
        """
        if epoch != self.epoch or version > self.version:
            version = 0
        sent = {name: channel.known_at(version) for name, channel in self._channels.items()}
        self._readers += 1
        self._watched.set()
        try:
            frame = self._frame(sent, version, is_first=True) | {"e": self.epoch}
            version = self.version
            yield frame
            while not self.ended or version < self.version:
                changed = self._changed
                if version == self.version:
                    await changed.wait()
                frame = self._frame(sent, version)
                version = self.version
                yield frame
        finally:
            self._readers -= 1
            if not self._readers:
                self._watched.clear()
                self._tell_lag(0)

    def close(self) -> None:
        """End its tasks, unless somebody still reads: then they end with the run."""
        if not self._readers:
            self._looking.cancel()
            self.listening.cancel()
            self._painting.cancel()

    def _frame(self, sent: dict[str, list[str]], version: int, *, is_first: bool = False) -> Frame:
        """What a reader who holds `sent` needs; brings `sent` up to date."""
        frame: Frame = {"v": self.version}
        for name, channel in self._channels.items():
            updates = diff(sent[name], channel.blocks)
            if updates or len(sent[name]) != len(channel.blocks) or (is_first and channel.blocks):
                frame[name] = [len(channel.blocks), [[u.index, u.keep, u.append] for u in updates]]
            sent[name] = channel.blocks
        if self._news_version > version or is_first:
            frame["s"] = self._status
        elif self._status_version > version:
            frame["s"] = {key: self._status[key] for key in COUNTERS if key in self._status}
        return frame

    # --- the run's side

    async def _listen(self) -> None:
        async for batch in self._run.follow(0):
            for event in batch:
                self._progress.take(event)
                if isinstance(event, Delta):
                    self._put(event.channel, event.text)
            self._fed.set()
        self._fed.set()

    def _put(self, channel: str, text: str) -> None:
        if text:
            self._channels[channel].waiting.append(text)
            self._channels[channel].n_waiting += len(text)
            self._fed.set()
            if self._readers:
                self._tell_lag(self._channels[channel].n_waiting)

    def _tell_lag(self, n_undrawn: int) -> None:
        """Drawing is behind, or not any more; only while somebody reads, for nothing else is drawn."""
        is_behind = n_undrawn > MAX_UNDRAWN and self._progress.end is None
        if is_behind != self._is_behind:
            self._is_behind = is_behind
            self._run.lag(is_behind)

    def _look(self) -> None:
        """Have it told when the disk begins to fail, or works again, while no text comes."""
        if self._progress.end is None:
            if self._at_risk() != self._status.get("at_risk", ""):
                self._fed.set()
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    # --- the readers' side

    async def _paint(self) -> None:
        while not self.ended:
            await self._fed.wait()
            await self._watched.wait()
            self._fed.clear()
            is_over = self._progress.end is not None
            waiting = [channel for channel in self._channels.values() if channel.waiting]
            pause = min((channel.live.due for channel in waiting), default=0.0) - self._clock()
            if pause > 0 and not is_over:
                await asyncio.sleep(pause)
                is_over = self._progress.end is not None
            await self._draw(waiting, at_end=is_over)
            self._publish(is_over=False)
            if is_over:
                await self._draw(list(self._channels.values()), at_end=True, finish=True)
                self.ended = True
                self._publish(is_over=True)

    async def _draw(self, channels: list[_Channel], *, at_end: bool, finish: bool = False) -> None:
        now = self._clock()
        for channel in channels:
            if not finish and channel.live.due > now and not at_end:
                self._fed.set()
                continue
            for text in channel.waiting:
                channel.live.feed(text)
            channel.waiting.clear()
            when = max(now, channel.live.due) if at_end else now

            def work(channel: _Channel = channel, when: float = when) -> None:
                draw = channel.live.finish if finish else lambda: channel.live.render(when)
                try:
                    draw()
                except Exception:
                    log.exception("A reply could not be drawn as Markdown; it is shown as plain text")
                    channel.live.give_up_markdown()
                    draw()

            if channel.live.cost > LOOP_SECONDS or finish:
                await asyncio.to_thread(work)
            else:
                work()

    def _publish(self, *, is_over: bool) -> None:
        for channel in self._channels.values():
            channel.n_waiting = sum(map(len, channel.waiting))
        self._tell_lag(max(channel.n_waiting for channel in self._channels.values()))
        status = self._progress.status(is_over=is_over)
        if not is_over and (risk := self._at_risk()):
            status["at_risk"] = risk
        is_news = status | COUNTERS != self._status | COUNTERS
        is_due = self._clock() - self._status_at >= STATUS_SECONDS and status != self._status
        is_drawn = any(channel.live.blocks != channel.blocks for channel in self._channels.values())
        if not (is_news or is_due or is_over or is_drawn):
            return
        self.version += 1
        if is_news or is_due or is_over:
            self._status, self._status_version, self._status_at = status, self.version, self._clock()
        if is_news or is_over:
            self._news_version = self.version
        for channel in self._channels.values():
            channel.show(self.version)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("Following a run failed", exc_info=task.exception())


class LiveRuns:
    """The live runs by id, made when the first reader comes. On the event loop."""

    def __init__(self, runs: Runs, chats: Chats) -> None:
        self._runs = runs
        self._chats = chats
        self._live: dict[str, LiveRun] = {}

    def get(self, run_id: str) -> LiveRun:
        """Raises NotFound for a run that is unknown, or over since more than a minute."""
        live = self._live.get(run_id)
        if live is None:
            live = self._live[run_id] = LiveRun(
                self._runs.run(run_id), self._chats.origin(run_id), at_risk=lambda: self._chats.at_risk(run_id))
            live.listening.add_done_callback(lambda task: self._let_go(run_id, task))
        return live

    def _let_go(self, run_id: str, task: asyncio.Task[None]) -> None:
        _report(task)
        if not task.cancelled():
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop, run_id)

    def _drop(self, run_id: str) -> None:
        live = self._live.pop(run_id, None)
        if live is not None:
            live.close()
