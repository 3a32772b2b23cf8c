"""One run's way: its model loaded again where it rested, the prompt built, handed to the worker, and seen to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from ..core.errors import AppError
from ..core.events import Loading
from ..text.splitter import Splitter, starts_inside
from ..text.template import TemplateRenderer
from .generation import Generation, unforeseen
from .models import Held, LoadWatch
from .prompt import Prompt, PromptBuilder
from .run import Run

log = logging.getLogger(__name__)


async def to_its_end(run: Run, work: Callable[[], Awaitable[None]]) -> None:
    """Do a run's work and see it to its end; what goes wrong is its Failed event."""
    try:
        await work()
    except AppError as error:
        run.fail(error)
    except Exception as error:  # whatever it is, a run without an end would be waited for for ever
        log.exception("Run %s failed unexpectedly", run.id)
        run.fail(unforeseen(error))


async def drive(run: Run, held: Held, renderer: TemplateRenderer) -> None:
    """Prepare the prompt, hand it to the worker, and wait for the run's end; raises what goes wrong."""
    builder = PromptBuilder(renderer, held.worker)
    prompt = await builder.build(run.request)
    await held.settled()
    _hand_over(run, held, prompt, builder.stops if run.request.messages else ())
    await run.wait()


@contextlib.asynccontextmanager
async def telling_of_load(run: Run, name: str, watch: LoadWatch) -> AsyncGenerator[None]:
    """Within it the run tells by Loading events how that model's load goes; it begins with one while another load is awaited."""
    run.publish([Loading(name)])

    async def tell() -> None:
        while True:
            version, state = watch.version, watch.state
            if state.status == "loading" and state.name == name:
                run.publish([Loading(name, state.fraction, state.what)])
            await watch.changed(version)

    telling = asyncio.create_task(tell(), name=f"load for run {run.id}")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


def _hand_over(run: Run, held: Held, prompt: Prompt, stops: tuple[str, ...]) -> None:
    request = run.request
    params = request.params
    # Raw text is the client's or the document's own: it comes as it was written, marks included.
    marks = held.marks if request.messages else None
    inside = marks is not None and starts_inside(prompt.text, marks)
    splitter = Splitter((*params.stop, *stops), marks, inside)
    generation = Generation(run, splitter, n_prompt=len(prompt.ids),
                            started=lambda cached: held.started(run, prompt, cached),
                            stop_worker=lambda: held.worker.remove(run.id),
                            is_estimate=held.facts.takes == "messages")
    run.on_cancel = generation.cancel
    run.on_lag = lambda is_behind: held.worker.hold_back(run.id, is_behind)
    key = f"{request.owner}/{request.cache_key}"
    held.worker.add(run.id, prompt.ids, params, key, generation.receive)
