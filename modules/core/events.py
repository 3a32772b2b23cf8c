"""What happens in a run, in order: Loading*, Queued*, Started, Prefill*, Delta*, and then exactly one of Finished or Failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .errors import AppError
from .loader import Token
from .messages import Message
from .params import GenerationParams

Channel = Literal["text", "reasoning", "tool"]
EndReason = Literal["stop", "length", "cancelled", "stop_string"]


@dataclass(frozen=True)
class Request:
    """What a person or client asks of the engine.

    Exactly one of messages and text is given: a chat to render by the model's template, or raw text to continue.
    `prompt_ids` may be given with text "" by clients that send token ids. model is "" for the only or last used one.
    owner keys KV reuse together with cache_key: one person's cache never serves another. spliced: sampled ids by message
    index, put in place of the tokenized text where that is unchanged. keep_from: index of the first message kept by an earlier
    cut of this branch (0 = none), so that the cut stays where it was. continue_last: the last message is an unfinished
    assistant message to go on with. control: raw text may hold control tokens (a client's own template).
    """

    params: GenerationParams
    messages: tuple[Message, ...] = ()
    text: str = ""
    prompt_ids: tuple[int, ...] = ()
    model: str = ""
    owner: str = "local"
    cache_key: str = ""
    spliced: dict[int, tuple[int, ...]] = field(default_factory=dict)
    keep_from: int = 0
    continue_last: bool = False
    control: bool = False
    truncate: bool = False


@dataclass(frozen=True)
class Loading:
    """The model rested and is loaded again first. fraction: 0..1 of that; what: what is being done."""

    model: str
    fraction: float = 0.0
    what: str = ""


@dataclass(frozen=True)
class Queued:
    """position 1 is next."""

    position: int


@dataclass(frozen=True)
class Started:
    """prompt_tokens includes cached_tokens. dropped: how many oldest messages were left out; keep_from: where the cut now is;
    left_out: how many tokens were left out of the beginning of a raw text, or of the reply that is gone on with. is_estimate: the
    numbers of tokens are not the model's own, which only its server could count. adapters: name and weight of those that act."""

    run: str
    model: str
    loader: str
    prompt_tokens: int
    cached_tokens: int
    context: int
    seed: int
    dropped: int = 0
    keep_from: int = 0
    left_out: int = 0
    ignored: tuple[str, ...] = ()
    quantization: str = ""
    is_estimate: bool = False
    adapters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Prefill:
    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """New text of one channel; never empty. tokens: those whose text became visible with it, oldest first."""

    text: str
    channel: Channel = "text"
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Usage:
    """is_estimate: a remote server wrote the reply and did not tell its own numbers."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    is_estimate: bool = False


@dataclass(frozen=True)
class Timings:
    """Seconds. decode_seconds runs from the first token to the last; tokens per second is (completion - 1) over it."""

    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    reasoning_seconds: float | None = None

    def tokens_per_second(self, completion_tokens: int) -> float | None:
        """Decode speed, or None where it cannot be told: fewer than two tokens, or two at the same moment."""
        if completion_tokens < 2 or self.decode_seconds <= 0:
            return None
        return (completion_tokens - 1) / self.decode_seconds


@dataclass(frozen=True)
class Finished:
    """ids: every sampled id in order, so that the next turn can splice them; stop_string: the one that ended the run, or ""."""

    reason: EndReason
    usage: Usage
    timings: Timings
    ids: tuple[int, ...] = ()
    stop_string: str = ""


@dataclass(frozen=True)
class Failed:
    """usage is what was done before the error; the text so far stays valid."""

    error: AppError
    usage: Usage


Event = Loading | Queued | Started | Prefill | Delta | Finished | Failed
END = (Finished, Failed)
