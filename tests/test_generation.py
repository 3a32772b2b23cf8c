"""A generation tells the worker's own times, however late its batches come."""

from __future__ import annotations

from modules.core.events import Finished, Request, Started
from modules.core.loader import Token
from modules.core.params import GenerationParams
from modules.engine.generation import Generation
from modules.engine.run import Run
from modules.text.splitter import Splitter
from modules.worker.frames import Admitted


def generation(run: Run, clock: list[float]) -> Generation:
    return Generation(run, Splitter((), None), n_prompt=9, stop_worker=lambda: None, clock=lambda: clock[0],
                      started=lambda cached: Started(run.id, "m", "echo", 9, cached, 4096, 1))


def test_the_speed_of_a_short_reply_that_waited_in_the_pipe_is_the_workers() -> None:
    """Five tokens, 10 ms apart, that all arrive at once three seconds later: 100 tokens a second, not none and not thousands."""
    clock, run = [50.0], Run("r", Request(GenerationParams(), ()))
    writing = generation(run, clock)
    clock[0] = 53.0
    writing.receive([Admitted(0)], 1000.0)
    writing.receive([Token(1, "a")], 1000.2)
    writing.receive([Token(1, "b"), Token(1, "c"), Token(1, "d")], 1000.23)
    writing.receive([Token(1, "e", finish="stop")], 1000.24)
    end = run.end
    assert isinstance(end, Finished)
    assert round(end.timings.tokens_per_second(5) or 0) == 100
    assert round(end.timings.queue_seconds, 6) == 3.0
    assert round(end.timings.prefill_seconds, 6) == 0.2


def test_a_run_that_is_cancelled_before_its_first_token_has_waited_and_written_nothing() -> None:
    clock, run = [50.0], Run("r", Request(GenerationParams(), ()))
    writing = generation(run, clock)
    clock[0] = 52.5
    writing.cancel()
    end = run.end
    assert isinstance(end, Finished)
    assert (end.timings.queue_seconds, end.timings.decode_seconds, end.timings.tokens_per_second(0)) == (2.5, 0.0, None)
