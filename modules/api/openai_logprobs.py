"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.loader import Token


def chat_logprobs(tokens: Sequence[Token], top: int) -> dict[str, Any]:
    """`{"content": [{token, logprob, bytes, top_logprobs}]}`; end-of-generation tokens, which have no text, are left out."""
    shown = [token for token in tokens if token.logprob is not None and (token.text or token.finish is None)]
    return {"content": [{**_entry(token.text, token.logprob),
                         "top_logprobs": [_entry(text, logprob) for _, text, logprob in token.top[:top]]} for token in shown]}


def completion_logprobs(tokens: Sequence[Token], top: int, offset: int) -> dict[str, Any]:
    """`{tokens, token_logprobs, top_logprobs, text_offset}`; `offset` is the first token's place in the text, in code points."""
    shown = [token for token in tokens if token.text or token.finish is None]
    offsets = []
    for token in shown:
        offsets.append(offset)
        offset += len(token.text)
    return {"tokens": [token.text for token in shown], "token_logprobs": [token.logprob for token in shown],
            "top_logprobs": [{text: lp for _, text, lp in token.top[:top]} for token in shown] if top else None,
            "text_offset": offsets}


def _entry(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
