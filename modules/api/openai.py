"""The OpenAI dialect: /v1/models, /v1/chat/completions, /v1/completions, streaming and not."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ..core.errors import NotFound
from ..core.events import Delta, Failed, Finished, Started
from ..core.loader import Token
from ..engine import Engine, Held
from .answers import error_body, read_body
from .openai_logprobs import chat_logprobs, completion_logprobs
from .openai_read import Asked, read_chat, read_completion
from .stream import Runs, sse, unless_gone

FINISH = {"stop": "stop", "stop_string": "stop", "cancelled": "stop", "length": "length"}


def routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The loaded models."""
        return {"object": "list", "data": [_card(held) for held in engine.models]}

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
        if asked.echo:
            asked = await _with_echo(engine, asked)
        return await _answer(engine, http, CompletionPrinter(asked))

    return router


def _card(held: Held) -> dict[str, Any]:
    return {"id": held.name, "object": "model", "created": int(held.loaded_at), "owned_by": "colloquy",
            "context_length": held.facts.context, "loader": held.spec.name, "quantization": held.file.quantization}


async def _with_echo(engine: Engine, asked: Asked) -> Asked:
    texts = [r.text if not r.prompt_ids else await engine.detokenize(r.prompt_ids, model=asked.model) for r in asked.requests]
    return replace(asked, echoed=tuple(texts))


async def _answer(engine: Engine, http: Request, printer: Printer) -> Response:
    """Run and print; nothing is sent before every choice has started, so a refusal still has its status."""
    runs = Runs(engine, printer.asked.requests)
    with_runs = runs.__enter__()
    try:
        started = await unless_gone(http, with_runs.started())
        headers = printer.begin(started)
        if printer.asked.stream:
            return sse(lambda: _stream(runs, printer), headers)
        finished = await unless_gone(http, with_runs.finished())
        return JSONResponse(printer.whole(with_runs, finished), headers=headers)
    except BaseException:
        runs.cancel()
        raise


async def _stream(runs: Runs, printer: Printer) -> AsyncIterator[bytes]:
    """The events as server-sent chunks; an error after the first byte is an explicit `error` event."""
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
                    out += printer.end(index, event)
                elif isinstance(event, Failed):
                    yield out + b"data: " + json.dumps(error_body(event.error)).encode() + b"\n\n"
                    return
            if out:
                yield out
        yield printer.closing()
    finally:
        runs.cancel()


class Printer:
    """Prints the events of one request's choices; what chat and completions share."""

    object = ""
    chunk_object = ""
    id_prefix = ""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._id = self.id_prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = asked.model
        self._ignored: list[str] = []
        self._usages: list[Finished] = []
        self._head = b""

    def begin(self, started: Sequence[Started]) -> dict[str, str]:
        """Called once with every choice's Started; returns the answer's headers."""
        self._model = started[0].model
        self._ignored = sorted({*started[0].ignored, *self.asked.unknown})
        self._head = (f'data: {{"id":{json.dumps(self._id)},"object":"{self.chunk_object}","created":{self._created},'
                      f'"model":{json.dumps(self._model)},"choices":[').encode()
        headers = {"X-Colloquy-Seed": str(started[0].seed)}
        if self._ignored:
            headers["X-Colloquy-Ignored"] = ",".join(self._ignored).encode("ascii", "replace").decode()[:1000]
        return headers

    def opening(self, index: int) -> list[bytes]:
        raise NotImplementedError

    def delta(self, index: int, event: Delta) -> bytes:
        raise NotImplementedError

    def choice(self, index: int, text: str, reasoning: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
        raise NotImplementedError

    def last(self, index: int, finish: str) -> dict[str, Any]:
        raise NotImplementedError

    def end(self, index: int, event: Finished) -> bytes:
        self._usages.append(event)
        return self._chunk(self.last(index, FINISH[event.reason]))

    def closing(self) -> bytes:
        """The usage chunk where it was asked for, then [DONE]."""
        out = b""
        if self.asked.include_usage:
            body = json.dumps(self._usage(self._usages), separators=(",", ":")).encode()
            out = self._head + b'],"usage":' + body + b"}\n\n"
        return out + b"data: [DONE]\n\n"

    def whole(self, runs: Runs, finished: Sequence[Finished]) -> dict[str, Any]:
        choices = []
        for index, (run, end) in enumerate(zip(runs.runs, finished, strict=True)):
            tokens = [token for event in run.events if isinstance(event, Delta) for token in event.tokens]
            choices.append(self.choice(index, run.text(), run.text("reasoning"), tokens, FINISH[end.reason]))
        body = {"id": self._id, "object": self.object, "created": self._created, "model": self._model, "choices": choices,
                "usage": self._usage(finished)}
        if self._ignored:
            body["ignored"] = self._ignored
        return body

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return self._head + json.dumps(choice, separators=(",", ":")).encode() + b"]}\n\n"

    def _usage(self, finished: Sequence[Finished]) -> dict[str, Any]:
        prompts = finished[::self.asked.n]
        prompt = sum(end.usage.prompt_tokens for end in prompts)
        completion = sum(end.usage.completion_tokens for end in finished)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": sum(end.usage.cached_tokens for end in prompts)}}


class ChatPrinter(Printer):
    """chat.completion and chat.completion.chunk."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def opening(self, index: int) -> list[bytes]:
        return [self._chunk({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})]

    def delta(self, index: int, event: Delta) -> bytes:
        name = "reasoning_content" if event.channel == "reasoning" else "content"
        choice: dict[str, Any] = {"index": index, "delta": {name: event.text}, "finish_reason": None}
        if self.asked.logprobs is not None:
            choice["logprobs"] = chat_logprobs(event.tokens, self.asked.logprobs)
        return self._chunk(choice)

    def last(self, index: int, finish: str) -> dict[str, Any]:
        return {"index": index, "delta": {}, "finish_reason": finish}

    def choice(self, index: int, text: str, reasoning: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning:
            message["reasoning_content"] = reasoning
        logprobs = chat_logprobs(tokens, self.asked.logprobs) if self.asked.logprobs is not None else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


class CompletionPrinter(Printer):
    """text_completion, whole and in chunks."""

    object = "text_completion"
    chunk_object = "text_completion"
    id_prefix = "cmpl-"

    def opening(self, index: int) -> list[bytes]:
        return [self._text(index, self.asked.echoed[index], ())] if self.asked.echo else []

    def delta(self, index: int, event: Delta) -> bytes:
        return self._text(index, event.text, event.tokens)

    def last(self, index: int, finish: str) -> dict[str, Any]:
        return {"index": index, "text": "", "finish_reason": finish}

    def choice(self, index: int, text: str, reasoning: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
        before = self.asked.echoed[index] if self.asked.echo else ""
        logprobs = completion_logprobs(tokens, self.asked.logprobs, len(before)) if self.asked.logprobs is not None else None
        return {"index": index, "text": before + reasoning + text, "logprobs": logprobs, "finish_reason": finish}

    def _text(self, index: int, text: str, tokens: Sequence[Token]) -> bytes:
        choice: dict[str, Any] = {"index": index, "text": text, "finish_reason": None}
        if self.asked.logprobs is not None:
            choice["logprobs"] = completion_logprobs(tokens, self.asked.logprobs, 0)
        return self._chunk(choice)
