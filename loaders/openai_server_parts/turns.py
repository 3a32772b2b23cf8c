"""From a prompt's ids to what a server is asked: messages, or a raw text to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modules.core.params import GenerationParams

from .pieces import END, START, THINK, THOUGHT, decode

# ChatML by our own control tokens: written by the template, read back here. A role is a word, so its line cannot hold a break.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
# What the interface of OpenAI knows of our parameters, under its own names. Seed and length are added to these.
PARAMS = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})


@dataclass(frozen=True)
class Ask:
    """A request: the path under the server's address, and its body."""

    path: str
    body: dict[str, Any]


def ask(prompt: Sequence[int], params: GenerationParams, model: str, max_tokens: int) -> Ask:
    """The request for a prompt: chat where it has turns, else a completion. max_tokens 0 leaves the length to the server."""
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    # A server has defaults of its own for the first two; the others do nothing where they are not sent, and some refuse them.
    body |= {name: getattr(params, name) for name in ("temperature", "top_p")}
    body |= {name: value for name in ("presence_penalty", "frequency_penalty") if (value := getattr(params, name))}
    if max_tokens:
        body["max_tokens"] = max_tokens
    if params.seed >= 0:
        body["seed"] = params.seed
    n_top = params.top_logprobs
    if START not in prompt:
        body |= {"logprobs": n_top} if n_top else {}
        return Ask("/completions", {**body, "prompt": decode(prompt).decode("utf-8", "replace")})
    body |= {"logprobs": True, "top_logprobs": n_top} if n_top else {}
    return Ask("/chat/completions", {**body, "messages": messages(prompt)})


def messages(prompt: Sequence[int]) -> list[dict[str, str]]:
    """The turns; the last is an assistant's only where it was begun and is to be gone on with."""
    found: list[dict[str, str]] = []
    starts = [place for place, id_ in enumerate(prompt) if id_ == START]
    for start, stop in zip(starts, [*starts[1:], len(prompt)], strict=True):
        turn = list(prompt[start + 1:stop])
        is_open = END not in turn
        ids = turn if is_open else turn[:turn.index(END)]
        role, _, content = decode(_without_thoughts(ids)).decode("utf-8", "replace").partition("\n")
        if content or not is_open:
            found.append({"role": role, "content": content})
    return found


def _without_thoughts(ids: list[int]) -> list[int]:
    """The ids without what stands between the marks of reasoning: servers put their own there, or want none."""
    if THINK not in ids:
        return ids
    start = ids.index(THINK)
    stop = ids.index(THOUGHT, start) + 1 if THOUGHT in ids[start:] else len(ids)
    return _without_thoughts([*ids[:start], *ids[stop:]])
