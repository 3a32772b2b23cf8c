"""The OpenAI dialect: /v1/models, /v1/chat/completions, /v1/completions, streaming and not."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ..core.errors import AppError, BadRequest, NotFound
from ..core.events import Delta, Failed, Finished
from ..engine import Engine, Held
from .answers import JsonAnswer, error_body, read_body
from .openai_logprobs import fitted
from .openai_print import ChatPrinter, CompletionPrinter, Echoed, Printer
from .openai_read import Asked, read_chat, read_completion
from .stream import EventStream, Runs, cut_short, unless_gone

log = logging.getLogger(__name__)


def routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The loaded models; with autoload, after them those that a request can have loaded."""
        cards = [_card(held) for held in engine.models]
        if engine.autoload:
            loaded = {card["id"] for card in cards}
            cards += [{"id": file.name, "object": "model", "created": 0, "owned_by": "colloquy", "loaded": False,
                       "quantization": file.quantization}
                      for file in await engine.files() if not file.problem and file.name not in loaded]
        return {"object": "list", "data": cards}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One loaded model."""
        for held in engine.models:
            if held.name == name:
                return _card(held)
        raise NotFound(f"The model {name!r} is not loaded; GET /v1/models lists those that are.", param="model")

    @router.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        """A reply to `messages`, by the model's own chat template."""
        return await _answer(engine, http, ChatPrinter(read_chat(await read_body(http))))

    @router.post("/v1/completions")
    async def completions(http: Request) -> Response:
        """What follows `prompt`: a string, token ids, or several of either."""
        asked = read_completion(await read_body(http))
        await unless_gone(http, engine.ready(asked.model))
        echoed = await unless_gone(http, _echoed(engine, asked)) if asked.echo else []
        return await _answer(engine, http, CompletionPrinter(asked, echoed))

    return router


def _card(held: Held) -> dict[str, Any]:
    return {"id": held.name, "object": "model", "created": int(held.loaded_at), "owned_by": "colloquy",
            "context_length": held.facts.context, "loader": held.spec.name, "quantization": held.file.quantization}


async def _echoed(engine: Engine, asked: Asked) -> list[Echoed]:
    """Each choice's prompt as it is printed; equal prompts, those of n choices, are read once."""
    found: list[Echoed] = []
    for request in asked.requests[::asked.n]:
        tokens = await engine.score(request, top=asked.logprobs) if asked.logprobs is not None else []
        text = await engine.detokenize(request.prompt_ids, model=asked.model) if request.prompt_ids else request.text
        found += [Echoed(text, fitted(tokens, text))] * asked.n
    return found


async def _answer(engine: Engine, http: Request, printer: Printer) -> Response:
    """Run and print; nothing is sent before the prompts are accepted, so a refusal still has its status."""
    asked = printer.asked
    held = await unless_gone(http, engine.ready(asked.model))
    if asked.logprobs is not None and "logprobs" not in held.facts.features:
        raise BadRequest(f"The loader {held.spec.name} gives no log-probabilities; leave out logprobs.", param="logprobs")
    runs = Runs(engine, asked.requests)
    try:
        if asked.only_prompt:
            await unless_gone(http, runs.read())
        else:
            runs.begin()
        headers = printer.begin(await unless_gone(http, runs.started()))
        headers["X-Colloquy-Seed-Repeats"] = "always" if "repeatable" in held.facts.features else "alone"
        if asked.stream:
            return EventStream(_stream(runs, printer), headers, runs.cancel)
        finished = await unless_gone(http, runs.finished())
        return JsonAnswer(printer.whole(runs, finished), headers=headers)
    except BaseException:
        runs.cancel()
        raise


async def _stream(runs: Runs, printer: Printer) -> AsyncIterator[bytes]:
    """The events as server-sent chunks; what goes wrong after the first byte is an explicit `error` event."""
    try:
        for index in range(len(runs.runs)):
            for chunk in printer.opening(index):
                yield chunk
        async for index, batch in runs.follow():
            out = b""
            for event in batch:
                if isinstance(event, Delta):
                    out += printer.delta(index, event)
                elif isinstance(event, Finished):
                    if event.reason == "cancelled":
                        yield out
                        raise cut_short()
                    out += printer.end(index, event)
                elif isinstance(event, Failed):
                    yield out
                    raise event.error
            if out:
                yield out
        yield printer.closing()
    except AppError as error:
        yield _error_event(error)
    except Exception as error:
        log.exception("A stream failed unexpectedly")
        yield _error_event(AppError(f"The server failed unexpectedly ({type(error).__name__}); the log has the details."))


def _error_event(error: AppError) -> bytes:
    return b"data: " + json.dumps(error_body(error)).encode() + b"\n\n"
