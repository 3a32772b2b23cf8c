"""From what a worker sends to what a run tells: channels, stop strings, usage and timings of one generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..core.errors import AppError
from ..core.events import Delta, EndReason, Event, Failed, Finished, Prefill, Queued, Started, Timings, Usage
from ..core.loader import Prefilled, RunFailed, Token
from ..text.splitter import Splitter
from ..worker.frames import Admitted, Waiting, WorkerEvent
from .run import Run

log = logging.getLogger(__name__)


class Generation:
    """Turns batches of worker events into batches of run events; on the event loop.

    `stop_worker` tells the worker to forget the run: at a stop string or a cancel. `started` builds the Started event once the
    number of cached tokens is known. Deltas of one batch and channel are joined, so a reader's cost follows batches, not tokens.
    `is_estimate`: the numbers of tokens are not the model's own.
    Times between tokens are the worker's own; `clock` tells how long the run waited.
    """

    def __init__(self, run: Run, splitter: Splitter, *, n_prompt: int, started: Callable[[int], Started],
                 stop_worker: Callable[[], None], is_estimate: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._splitter = splitter
        self._n_prompt = n_prompt
        self._started = started
        self._stop_worker = stop_worker
        self._is_estimate = is_estimate
        self._clock = clock
        self._asked = clock()
        self._queued: float | None = None
        self._admitted: float | None = None
        self._first_token: float | None = None
        self._last_token: float | None = None
        self._reasoned: float | None = None
        self._has_reasoning = False
        self._cached = 0
        self._ids: list[int] = []
        self._counted: tuple[int, int] | None = None

    def receive(self, batch: Sequence[WorkerEvent], at: float) -> None:
        """The worker's sink; after the run's end it does nothing. A fault of ours ends the run with the text it has."""
        if self._run.done:
            return
        out: list[Event] = []
        try:
            self._take(batch, at, out)
        except Exception as error:  # whatever it is, a run without an end would be waited for for ever
            log.exception("Run %s failed unexpectedly", self._run.id)
            self._stop_worker()
            out.append(Failed(unforeseen(error), self._usage()))
        self._run.publish(_joined(out))

    def _take(self, batch: Sequence[WorkerEvent], at: float, out: list[Event]) -> None:
        for item in batch:
            if isinstance(item, Token):
                self._token(item, at, out)
            elif isinstance(item, Prefilled):
                out.append(Prefill(item.done, item.total))
            elif isinstance(item, Admitted):
                self._queued, self._admitted = self._clock() - self._asked, at
                self._cached = item.cached
                out.append(self._started(item.cached))
            elif isinstance(item, Waiting):
                out.append(Queued(item.position))
            elif isinstance(item, RunFailed):
                out.extend(self._splitter.flush())
                out.append(Failed(item.error, self._usage()))
            if out and isinstance(out[-1], (Finished, Failed)):
                break

    def cancel(self) -> None:
        """End now with what there is; the worker hears of it at its next step."""
        if self._run.done:
            return
        self._stop_worker()
        out: list[Event] = []
        if self._admitted is None:
            out.append(self._started(0))
        self._finish("cancelled", out)
        self._run.publish(_joined(out))

    def _token(self, token: Token, at: float, out: list[Event]) -> None:
        if self._first_token is None:
            self._first_token = at
        self._last_token = at
        self._ids.append(token.id)
        self._counted = token.counted
        deltas = self._splitter.feed(token)
        out.extend(deltas)
        for delta in deltas:
            self._has_reasoning = self._has_reasoning or delta.channel == "reasoning"
            if delta.channel == "text" and self._reasoned is None:
                self._reasoned = at
        if self._splitter.stop_string:
            if token.finish is None:
                self._stop_worker()
            self._finish("stop_string", out)
        elif token.finish is not None:
            self._finish(token.finish, out)

    def _finish(self, reason: EndReason, out: list[Event]) -> None:
        out.extend(self._splitter.flush())
        out.append(Finished(reason, self._usage(), self._timings(), tuple(self._ids), self._splitter.stop_string))

    def _usage(self) -> Usage:
        n_prompt, n_completion = self._counted or (self._n_prompt, len(self._ids))
        return Usage(n_prompt, n_completion, self._cached, self._is_estimate and self._counted is None)

    def _timings(self) -> Timings:
        if self._admitted is None or self._first_token is None or self._last_token is None:
            return Timings(self._clock() - self._asked if self._queued is None else self._queued, 0.0, 0.0)
        reasoned = (self._reasoned or self._last_token) - self._first_token if self._has_reasoning else None
        return Timings(self._queued or 0.0, max(self._first_token - self._admitted, 0.0), self._last_token - self._first_token,
                       reasoned)


def unforeseen(error: Exception) -> AppError:
    """What a run ends with where our own code failed; the log has the traceback."""
    return AppError(f"The reply was ended by a mistake in Colloquy ({type(error).__name__}: {str(error)[:200]}); the log "
                    "has the details. Try again, and please report it if it happens again.")


def _joined(events: list[Event]) -> list[Event]:
    """The events with neighbouring deltas of one channel made one; only the last of neighbouring Prefills stays."""
    joined: list[Event] = []
    group: list[Delta] = []

    def close_group() -> None:
        if len(group) == 1:
            joined.append(group[0])
        elif group:
            tokens = tuple(token for delta in group for token in delta.tokens)
            joined.append(Delta("".join(delta.text for delta in group), group[0].channel, tokens))
        group.clear()

    for event in events:
        if isinstance(event, Delta):
            if group and group[0].channel != event.channel:
                close_group()
            group.append(event)
            continue
        close_group()
        if isinstance(event, Prefill) and joined and isinstance(joined[-1], Prefill):
            joined[-1] = event
        else:
            joined.append(event)
    close_group()
    return joined
