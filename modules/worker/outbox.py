"""Sends what happens to the engine's side: the first token and the end at once, the rest for several steps together."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..core.loader import Prefilled, RunFailed, Token
from . import messages
from .frames import Admitted, Waiting, WorkerEvent
from .messages import Events, Reply

# A send wakes the engine's side, which takes the core from the decoding thread: 260-510 µs a send on two cores, beside a decode
# step of 3.7 ms of a 125 M model. So tokens wait for others to go with them, but no longer than this.
MAX_DELAY_SECONDS = 0.030
MAX_EVENTS_PER_SEND = 512
SECONDS_BETWEEN_PROGRESS = 0.1


class Outbox:
    """Events not yet sent, by run. The engine's thread alone uses it.

    `put` each result, `step_ended` after each step with its duration; it sends when it is time. `flush` sends what there is.
    """

    def __init__(self, send: Callable[[bytes], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._pending: dict[str, list[WorkerEvent]] = {}
        self._n_pending = 0
        self._is_urgent = False
        self._oldest = 0.0
        self._newest = 0.0
        self._started: set[str] = set()
        self._progress_at: dict[str, float] = {}

    def put(self, run: str, event: WorkerEvent) -> None:
        if isinstance(event, Prefilled) and not self._is_due(run, event):
            return
        if not self._n_pending:
            self._oldest = self._clock()
        self._n_pending += 1
        self._pending.setdefault(run, []).append(event)
        if isinstance(event, Token):
            if run not in self._started:
                self._started.add(run)
                self._is_urgent = True
            if event.finish is not None:
                self._end(run)
            return
        self._newest = self._clock()
        if isinstance(event, (Admitted, Waiting)):
            self._is_urgent = True
        elif isinstance(event, RunFailed):
            self._end(run)

    def forget(self, run: str) -> None:
        """Nobody listens to this run any more."""
        self._n_pending -= len(self._pending.pop(run, ()))
        self._started.discard(run)
        self._progress_at.pop(run, None)

    def step_ended(self, seconds: float) -> None:
        """Send if it is time, or would be before another step of that duration ends."""
        if not self._n_pending:
            return
        now = self._newest = self._clock()
        if self._is_urgent or self._n_pending >= MAX_EVENTS_PER_SEND or now - self._oldest + seconds > MAX_DELAY_SECONDS:
            self.flush()

    def send_urgent(self) -> None:
        """Send now if something pending should not wait for the next step."""
        if self._is_urgent:
            self.flush()

    def flush(self) -> None:
        """Send everything pending as one frame, stamped with the time of the newest event in it."""
        if self._n_pending:
            pending, self._pending = self._pending, {}
            self._n_pending = 0
            self._send(messages.encode(Events(tuple(pending.items()), self._newest)))
        self._is_urgent = False

    def reply(self, reply: Reply) -> None:
        """Send a reply that is no run's event, after what is pending."""
        self.flush()
        self._send(messages.encode(reply))

    def _end(self, run: str) -> None:
        self._is_urgent = True
        self._started.discard(run)
        self._progress_at.pop(run, None)

    def _is_due(self, run: str, event: Prefilled) -> bool:
        """Progress goes out ten times a second; a prompt's end always does."""
        now = self._clock()
        if event.done < event.total and now - self._progress_at.get(run, 0.0) < SECONDS_BETWEEN_PROGRESS:
            return False
        self._progress_at[run] = now
        return True
