"""A server's log-probabilities, in either of the two shapes of OpenAI's interface."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

MOST = 20  # alternatives of one token


@dataclass(frozen=True)
class Likely:
    """One token of the server's: its bytes, its log-probability, and the most likely ones' texts with theirs, best first."""

    raw: bytes
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


def likely(said: Any) -> tuple[Likely, ...]:
    """The tokens of a choice's `logprobs`: `content` of a chat, `tokens` of a completion; () for anything else."""
    if not isinstance(said, dict):
        return ()
    if isinstance(said.get("content"), list):
        return tuple(_of_chat(said["content"]))
    if isinstance(said.get("tokens"), list):
        return tuple(_of_completion(said))
    return ()


def _of_chat(content: list[Any]) -> Iterator[Likely]:
    for item in content:
        if isinstance(item, dict) and isinstance(item.get("token"), str):
            others = [other for other in _list(item.get("top_logprobs"))[:MOST] if isinstance(other, dict)]
            top = [(other["token"], value) for other in others
                   if isinstance(other.get("token"), str) and (value := _number(other.get("logprob"))) is not None]
            yield Likely(_raw(item), _number(item.get("logprob")), tuple(top))


def _of_completion(said: dict[str, Any]) -> Iterator[Likely]:
    for text, logprob, others in zip_longest(said["tokens"], _list(said.get("token_logprobs")), _list(said.get("top_logprobs"))):
        if isinstance(text, str):
            pairs = list(others.items())[:MOST] if isinstance(others, dict) else []
            top = [(other, found) for other, value in pairs if (found := _number(value)) is not None]
            yield Likely(text.encode("utf-8", "replace"), _number(logprob), tuple(sorted(top, key=lambda pair: -pair[1])))


def _raw(item: dict[str, Any]) -> bytes:
    """The token's bytes, which may be a part of a character; its text where they are not given."""
    try:
        return bytes(item["bytes"])
    except (KeyError, TypeError, ValueError):
        return str(item["token"]).encode("utf-8", "replace")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return min(float(value), 0.0) if is_number else None
