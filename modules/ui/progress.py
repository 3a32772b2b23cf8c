"""How far a run is, read from its events, from loading its model to how it ended; as JSON for the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.events import Delta, Event, Failed, Finished, Loading, Prefill, Queued, Started

Frame = dict[str, Any]
LOG_CHARACTERS = 4000


class Progress:
    """Takes a run's events in order; `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.end: Finished | Failed | None = None
        self._clock = clock
        self._phase: Frame = {"state": "starting"}
        self._facts: Frame = {}
        self._tokens = 0
        self._first = self._last = 0.0
        self._thought_from = self._thought_to = 0.0

    def take(self, event: Event) -> None:
        match event:
            case Loading(model, fraction, what):
                self._phase = {"state": "loading", "model": model, "fraction": fraction, "what": what}
            case Queued(position):
                self._phase = {"state": "queued", "position": position}
            case Started():
                self._phase = {"state": "prefill", "done": event.cached_tokens, "total": event.prompt_tokens}
                self._facts = {"model": event.model, "loader": event.loader, "quantization": event.quantization,
                               "seed": event.seed, "context": event.context, "prompt_tokens": event.prompt_tokens,
                               "cached_tokens": event.cached_tokens, "dropped": event.dropped, "left_out": event.left_out,
                               "ignored": list(event.ignored), "is_estimate": event.is_estimate,
                               "adapters": [list(pair) for pair in event.adapters]}
            case Prefill(done, total):
                self._phase = {"state": "prefill", "done": done, "total": total}
            case Delta():
                self._take_delta(event)
            case Finished() | Failed():
                self.end = event

    def _take_delta(self, event: Delta) -> None:
        now = self._clock()
        self._first = self._first or now
        self._last = now
        self._tokens += len(event.tokens)
        if event.channel == "reasoning":
            self._thought_from = self._thought_from or now
            self._thought_to = now
        self._phase = {"state": "thinking" if event.channel == "reasoning" else "writing"}

    def status(self, *, is_over: bool) -> Frame:
        """JSON for the page: `state`, and the numbers known so far; with is_over, how the run ended."""
        status: Frame = {**self._facts, **self._phase, "tokens": self._tokens}
        if self._thought_from:
            status["seconds"] = round(self._thought_to - self._thought_from, 1)
        if self._tokens > 1 and self._last > self._first:
            status["speed"] = round((self._tokens - 1) / (self._last - self._first), 1)
        return {**status, **self._ending()} if is_over else status

    def _ending(self) -> Frame:
        """As chat saves it in the node's status, finish and stats."""
        end = self.end
        assert end is not None, "asked only after the end"
        usage: Frame = {"prompt_tokens": end.usage.prompt_tokens, "tokens": end.usage.completion_tokens,
                 "cached_tokens": end.usage.cached_tokens, "is_estimate": end.usage.is_estimate}
        if isinstance(end, Failed):
            if end.error.code == "cancelled":
                return {**usage, "state": "stopped", "finish": "cancelled"}
            return {**usage, "state": "failed", "finish": "error", "error": end.error.message, "code": end.error.code,
                    "log": end.error.log[-LOG_CHARACTERS:]}
        ending: Frame = {**usage, "state": "stopped" if end.reason == "cancelled" else "complete", "finish": end.reason}
        speed = end.timings.tokens_per_second(end.usage.completion_tokens)
        if speed is not None:
            ending["speed"] = round(speed, 1)
        if end.timings.reasoning_seconds is not None:
            ending["seconds"] = round(end.timings.reasoning_seconds, 1)
        return ending
