"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.events import Delta
from ..core.loader import Token

LOWEST = -9999.0  # what OpenAI gives for a token that cannot come; JSON has no infinity


def chat_logprobs(tokens: Sequence[Token], top: int) -> dict[str, Any]:
    """`{"content": [{token, logprob, bytes, top_logprobs}]}`; end-of-generation tokens, which have no text, are left out."""
    shown = [token for token in tokens if token.logprob is not None and (token.text or token.finish is None)]
    return {"content": [{**_entry(token.text, token.logprob),
                         "top_logprobs": [_entry(text, logprob) for _, text, logprob in token.top[:top]]} for token in shown]}


def completion_logprobs(tokens: Sequence[Token], top: int, offset: int) -> dict[str, Any]:
    """`{tokens, token_logprobs, top_logprobs, text_offset}`; `offset` is the first token's place in the text, in code points.

    The chosen token is always among its alternatives, which are null for the first token of a prompt.
    """
    shown = [token for token in tokens if token.text or token.finish is None]
    offsets = []
    for token in shown:
        offsets.append(offset)
        offset += len(token.text)
    return {"tokens": [token.text for token in shown], "token_logprobs": [_finite(token.logprob) for token in shown],
            "top_logprobs": [_alternatives(token, top) for token in shown] if top else None, "text_offset": offsets}


def spelled(delta: Delta) -> tuple[Token, ...]:
    """The delta's tokens without those before its text that were swallowed: a reasoning mark and the white space around it; and
    without ids of ours that are only a part of a server's token."""
    tokens = tuple(token for token in delta.tokens if token.text or token.finish is not None or token.logprob is not None)
    extra = sum(len(token.text) for token in tokens) - len(delta.text)
    while tokens and extra > 0 and len(tokens[0].text) <= extra:
        extra -= len(tokens[0].text)
        tokens = tokens[1:]
    return tokens


def fitted(tokens: Sequence[Token], text: str) -> tuple[Token, ...]:
    """A prompt's tokens without what their tokenizer put before the text, such as a space."""
    extra = sum(len(token.text) for token in tokens) - len(text)
    fitting = []
    for token in tokens:
        cut = min(max(extra, 0), len(token.text))
        extra -= cut
        fitting.append(replace(token, text=token.text[cut:]) if cut else token)
    return tuple(fitting)


def _alternatives(token: Token, top: int) -> dict[str, float | None] | None:
    if token.logprob is None:
        return None
    found = {text: _finite(logprob) for _, text, logprob in token.top[:top]}
    if all(id_ != token.id for id_, _, _ in token.top[:top]):
        found[token.text] = _finite(token.logprob)
    return found


def _entry(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode("utf-8", "replace"))}


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is None else max(logprob, LOWEST)
