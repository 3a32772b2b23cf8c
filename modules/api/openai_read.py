"""OpenAI request bodies, read into engine requests; what cannot be done is refused, never dropped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import BadRequest
from ..core.events import Request
from ..core.messages import Message, Part, ReasoningPart, Role, TextPart
from ..core.params import PARAM_KNOBS, GenerationParams
from .answers import field

MAX_CHOICES = 16
MAX_PROMPTS = 64
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
N_SEEDS = PARAM_KNOBS["seed"].maximum
# Fields that are read here, or only label the request; every other field that is no parameter is reported as ignored.
COMMON = {"model", "stream", "stream_options", "n", "user", "metadata", "store", "response_format", "tools", "tool_choice",
          "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key"}
CHAT = COMMON | {"messages", "logprobs", "top_logprobs"}
COMPLETION = COMMON | {"prompt", "logprobs", "echo", "best_of", "suffix"}
IN_A_MESSAGE = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "refusal"}


@dataclass(frozen=True)
class Asked:
    """One HTTP request: what to run, per choice in order, and how to answer.

    echo: each choice begins with its prompt. only_prompt: nothing is to be written, only the prompt read.
    """

    requests: tuple[Request, ...]
    model: str
    stream: bool
    include_usage: bool
    logprobs: int | None
    unknown: tuple[str, ...]
    echo: bool = False
    only_prompt: bool = False
    n: int = 1


def read_chat(body: dict[str, Any]) -> Asked:
    """A /v1/chat/completions body; raises BadRequest naming the field."""
    raw = field(body, "messages", list)
    if not raw:
        raise BadRequest("messages must be a list of at least one message.", param="messages")
    messages = tuple(_message(item, index) for index, item in enumerate(raw))
    wanted = field(body, "logprobs", bool, False)
    top = field(body, "top_logprobs", int, 0)
    if not 0 <= top <= 20:
        raise BadRequest(f"top_logprobs must be from 0 to 20; got {top}.", param="top_logprobs")
    if top and not wanted:
        raise BadRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
    params, unknown = _params(body, CHAT, top_logprobs=max(top, 1) if wanted else 0, max_tokens=0)
    if params.max_tokens == 0 and _length(body) is not None:
        raise BadRequest("max_tokens must be 1 or more in a chat; leave it out for as many as fit.", param="max_tokens")
    unknown += sorted({f"messages.{name}" for item in raw for name, value in item.items()
                       if name not in IN_A_MESSAGE and value is not None})
    request = Request(params, messages, model=_model(body), cache_key=_cache_key(body))
    return _asked(body, [request], unknown, logprobs=top if wanted else None)


def read_completion(body: dict[str, Any]) -> Asked:
    """A /v1/completions body: prompt as str, [str], [int] or [[int]]."""
    prompts = _prompts(body.get("prompt"))
    logprobs = field(body, "logprobs", int)
    if logprobs is not None and not 0 <= logprobs <= 20:
        raise BadRequest(f"logprobs must be from 0 to 20; got {logprobs}.", param="logprobs")
    if field(body, "suffix", str, ""):
        raise BadRequest("suffix (fill in the middle) is not supported; leave it out.", param="suffix")
    best_of = field(body, "best_of", int)
    if best_of is not None and best_of != field(body, "n", int, 1):
        raise BadRequest("best_of is supported only where it equals n.", param="best_of")
    params, unknown = _params(body, COMPLETION, top_logprobs=max(logprobs, 1) if logprobs is not None else 0, max_tokens=16)
    requests = [Request(params, text=p if isinstance(p, str) else "", prompt_ids=() if isinstance(p, str) else p,
                        model=_model(body), control=True, cache_key=_cache_key(body)) for p in prompts]
    asked = _asked(body, requests, unknown, logprobs=logprobs)
    return replace(asked, echo=field(body, "echo", bool, False), only_prompt=params.max_tokens == 0)


def _asked(body: dict[str, Any], requests: list[Request], unknown: list[str], *, logprobs: int | None) -> Asked:
    n = field(body, "n", int, 1)
    if not 1 <= n <= MAX_CHOICES:
        raise BadRequest(f"n must be from 1 to {MAX_CHOICES}; got {n}.", param="n")
    kind = field(body, "response_format", dict, {}).get("type", "text")
    if kind != "text":
        raise BadRequest(f"response_format {kind!r} is not supported yet; use a grammar (GBNF) with the llama.cpp loader.",
                         param="response_format")
    if field(body, "tools", list, []) and body.get("tool_choice") != "none":
        raise BadRequest("tools are not supported yet; leave them out or set tool_choice to none.", param="tools")
    if body.get("tool_choice") not in (None, "none", "auto"):
        raise BadRequest("tool_choice asks for a tool, and tools are not supported yet; leave it out.", param="tool_choice")
    stream = field(body, "stream", bool, False)
    options = field(body, "stream_options", dict, {})
    if options and not stream:
        raise BadRequest("stream_options needs stream: true.", param="stream_options")
    usage = field(options, "include_usage", bool, False)
    choices = [replace(r, params=replace(r.params, seed=_seed(r.params.seed + i) if r.params.seed >= 0 else -1))
               for r in requests for i in range(n)]
    return Asked(tuple(choices), _model(body), stream, usage, logprobs, tuple(unknown), n=n)


def _params(body: dict[str, Any], known: set[str], *, top_logprobs: int, max_tokens: int) -> tuple[GenerationParams, list[str]]:
    """Parameters from the body, and the names nobody knows; `max_tokens` is the dialect's default, 0 for as many as fit."""
    values = {name: value for name, value in body.items() if name not in known and value is not None}
    misplaced = ["top_logprobs"] if values.pop("top_logprobs", None) is not None else []
    stop = field(values, "stop", (str, list))
    if stop is not None:
        values["stop"] = [stop] if isinstance(stop, str) else stop
    for name in ("max_tokens", "max_completion_tokens"):
        if name in values and (not isinstance(values[name], int) or isinstance(values[name], bool) or values[name] < 0):
            raise BadRequest(f"{name} must be a whole number, 1 or more; got {values[name]!r}.", param=name)
    if "max_completion_tokens" in values:
        values["max_tokens"] = values.pop("max_completion_tokens")
    if _is_id(values.get("seed")):
        values["seed"] = _seed(values["seed"])  # theirs have 64 bits, ours 32
    params, unknown = GenerationParams(top_logprobs=top_logprobs, max_tokens=max_tokens).with_values(values)
    if "" in params.stop:
        raise BadRequest("stop strings must not be empty.", param="stop")
    return params, unknown + misplaced


def _length(body: dict[str, Any]) -> Any:
    """The first limit on the reply's length that the body gives, by any of its names."""
    return next((body[name] for name in ("max_tokens", *PARAM_KNOBS["max_tokens"].aliases) if body.get(name) is not None), None)


def _seed(seed: int) -> int:
    """The seed within our range, which it goes around."""
    return int(seed % (N_SEEDS + 1)) if N_SEEDS is not None else seed


def _cache_key(body: dict[str, Any]) -> str:
    """Whose earlier prompts may speed this one up: those of the same user and key, and never a chat of the page."""
    parts = [field(body, name, str, "") for name in ("safety_identifier", "user", "prompt_cache_key")]
    return "api " + json.dumps(parts)


def _model(body: dict[str, Any]) -> str:
    return str(field(body, "model", str, ""))


def _message(item: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if not isinstance(item, dict):
        raise BadRequest(f"{where} must be an object with role and content.", param="messages")
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}; got {item.get('role')!r}.", param="messages")
    if item.get("tool_calls"):
        raise BadRequest(f"{where} has tool_calls, which are not supported yet.", param="messages")
    content = item.get("content")
    try:
        name, reasoning = field(item, "name", str), field(item, "reasoning_content", str, "")
    except BadRequest as error:
        raise BadRequest(f"{where}.{error.message}", param="messages") from error
    thoughts: tuple[Part, ...] = (ReasoningPart(reasoning),) if reasoning else ()
    if content is None:
        content = ""
    if isinstance(content, str):
        return Message(role, (*thoughts, TextPart(content)), name)
    if not isinstance(content, list):
        raise BadRequest(f"{where}.content must be a string or a list of parts.", param="messages")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
            raise BadRequest(f"{where}.content has a part of type {kind!r}; only text is supported.", param="messages")
        texts.append(part["text"])
    return Message(role, (*thoughts, TextPart("".join(texts))), name)


def _prompts(prompt: Any) -> list[str | tuple[int, ...]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if len(prompt) <= MAX_PROMPTS and all(isinstance(item, str) for item in prompt):
            return list(prompt)
        if all(_is_id(item) for item in prompt):
            return [tuple(prompt)]
        if len(prompt) <= MAX_PROMPTS and all(isinstance(item, list) and item and all(map(_is_id, item)) for item in prompt):
            return [tuple(item) for item in prompt]
    raise BadRequest(f"prompt must be a string, a list of token ids, or a list of at most {MAX_PROMPTS} of these.",
                     param="prompt")


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0
