"""Hands a worker's frames on a few at a time, so that the event loop gets its turns however much comes at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from .frames import Frame

TURN_SECONDS = 0.002  # after this much the loop's other work comes first; a frame of 512 tokens takes about as long
LONGEST_HOLD = 0.25  # seconds; whoever falls behind slows the model down and never stops it


class Delivery:
    """Frames of one worker on their way, in order. On the event loop.

    While frames wait, the pipe is not read (`set_reading(False)`): it fills, and the worker waits. So what a model makes faster
    than this process takes it is still to come, instead of lying here as text that nobody can see. `on_idle` is called when the
    last waiting frame was handed on. An exception of `deliver` is asyncio's to report; the frames after it still come.
    """

    def __init__(self, deliver: Callable[[Frame], None], set_reading: Callable[[bool], None], on_idle: Callable[[], None], *,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._deliver = deliver
        self._set_reading = set_reading
        self._on_idle = on_idle
        self._clock = clock
        self._waiting: deque[Frame] = deque()
        self._holders: dict[str, asyncio.TimerHandle | None] = {}  # None: its time is over, and it holds nothing up any more
        self._n_holds = 0
        self._is_scheduled = False
        self._is_reading = True
        self._is_hurried = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def put(self, frames: Sequence[Frame]) -> None:
        """Take frames; the first of them is handed on at once unless others wait."""
        self._waiting.extend(frames)
        if not self._is_scheduled:
            self._turn()

    def hold(self, holder: str) -> None:
        """Hand nothing on until `release`, for LONGEST_HOLD seconds at most; a holder that holds already changes nothing."""
        if holder not in self._holders:
            self._holders[holder] = asyncio.get_running_loop().call_later(LONGEST_HOLD, self._expire, holder)
            self._n_holds += 1

    def release(self, holder: str) -> None:
        """Go on; unknown holders are ignored."""
        timer = self._holders.pop(holder, None)
        if timer is not None:
            timer.cancel()
            self._let_go()

    def hurry(self) -> None:
        """Nothing more will be written: hand on what there is, whoever holds, and read the pipe to its end."""
        self._is_hurried = True
        self._read(True)
        self._schedule()

    def _expire(self, holder: str) -> None:
        self._holders[holder] = None
        self._let_go()

    def _let_go(self) -> None:
        self._n_holds -= 1
        self._schedule()

    @property
    def _is_held(self) -> bool:
        return self._n_holds > 0 and not self._is_hurried

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled and not self._is_held:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        was_idle = not self._waiting
        began = self._clock()
        try:
            while self._waiting and not self._is_held:
                self._deliver(self._waiting.popleft())
                if self._clock() - began >= TURN_SECONDS:
                    break
        finally:
            self._schedule()
            self._read(not self._waiting)
            if not self._waiting and not was_idle:
                self._on_idle()

    def _read(self, is_wanted: bool) -> None:
        if self._is_reading != (is_wanted or self._is_hurried):
            self._is_reading = not self._is_reading
            self._set_reading(self._is_reading)
