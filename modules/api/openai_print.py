"""Prints a request's events in the OpenAI dialect: chat.completion and text_completion, whole and in chunks."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.events import Delta, Finished, Started
from ..core.loader import Token
from .openai_logprobs import chat_logprobs, completion_logprobs, spelled
from .openai_read import Asked
from .stream import Runs

FINISH = {"stop": "stop", "stop_string": "stop", "length": "length"}


@dataclass(frozen=True)
class Echoed:
    """A prompt as it stands before its choice; tokens are empty where no log-probabilities were asked for."""

    text: str
    tokens: tuple[Token, ...]


class Printer(ABC):
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
        self._usages: dict[int, Finished] = {}
        self._head = b""

    def begin(self, started: Started) -> dict[str, str]:
        """Called once with the first choice's Started, before anything is printed; returns the answer's headers."""
        self._model = started.model
        self._ignored = sorted({*started.ignored, *self.asked.unknown})
        self._head = (f'data: {{"id":{json.dumps(self._id)},"object":"{self.chunk_object}","created":{self._created},'
                      f'"model":{json.dumps(self._model)},"choices":[').encode()
        headers = {"X-Colloquy-Seed": str(started.seed)}
        if self._ignored:
            # A field's name may hold anything, a line break too.
            names = ",".join(self._ignored)[:1000]
            headers["X-Colloquy-Ignored"] = "".join(c if " " <= c <= "~" else "?" for c in names).strip()
        return headers

    @abstractmethod
    def opening(self, index: int) -> list[bytes]:
        """The chunks before a choice's first text."""

    @abstractmethod
    def delta(self, index: int, event: Delta) -> bytes:
        """One piece of text as a chunk."""

    @abstractmethod
    def choice(self, index: int, text: str, reasoning: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
        """A whole choice of an answer that is not streamed."""

    @abstractmethod
    def last(self, index: int, finish: str) -> dict[str, Any]:
        """The choice object that ends a stream."""

    def end(self, index: int, event: Finished) -> bytes:
        self._usages[index] = event
        return self._chunk(self.last(index, FINISH[event.reason]))

    def closing(self) -> bytes:
        """The usage chunk where it was asked for, then [DONE]."""
        out = b""
        if self.asked.include_usage:
            usage = self._usage([self._usages[index] for index in sorted(self._usages)])
            body = json.dumps(usage, separators=(",", ":")).encode()
            out = self._head + b'],"usage":' + body + b"}\n\n"
        return out + b"data: [DONE]\n\n"

    def whole(self, runs: Runs, finished: Sequence[Finished]) -> dict[str, Any]:
        choices = []
        for index, (run, end) in enumerate(zip(runs.runs, finished, strict=True)):
            tokens = [token for event in run.events if isinstance(event, Delta) and event.channel != "reasoning"
                      for token in spelled(event)]
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
        if self.asked.logprobs is not None and event.channel != "reasoning":
            choice["logprobs"] = chat_logprobs(spelled(event), self.asked.logprobs)
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
    """text_completion, whole and in chunks; `echoed` holds each choice's prompt where it is to stand before it."""

    object = "text_completion"
    chunk_object = "text_completion"
    id_prefix = "cmpl-"

    def __init__(self, asked: Asked, echoed: Sequence[Echoed] = ()) -> None:
        super().__init__(asked)
        self._echoed = echoed
        self._offsets = [0] * len(asked.requests)

    def opening(self, index: int) -> list[bytes]:
        return [self._text(index, self._echoed[index].text, self._echoed[index].tokens)] if self._echoed else []

    def delta(self, index: int, event: Delta) -> bytes:
        return self._text(index, event.text, spelled(event))

    def last(self, index: int, finish: str) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": finish}

    def choice(self, index: int, text: str, reasoning: str, tokens: Sequence[Token], finish: str) -> dict[str, Any]:
        before = self._echoed[index] if self._echoed else Echoed("", ())
        return {"index": index, "text": before.text + text, "logprobs": self._logprobs((*before.tokens, *tokens), 0),
                "finish_reason": finish}

    def _text(self, index: int, text: str, tokens: Sequence[Token]) -> bytes:
        offset = self._offsets[index]
        self._offsets[index] += len(text)
        return self._chunk({"index": index, "text": text, "logprobs": self._logprobs(tokens, offset), "finish_reason": None})

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        return completion_logprobs(tokens, self.asked.logprobs, offset) if self.asked.logprobs is not None else None
