"""Saved messages as the page shows them: their HTML from a cache keyed by content, and the facts beside it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..core.conversation import Node
from ..core.messages import ReasoningPart, ToolCallPart, ToolResultPart
from .blocks import plain_block, render_message
from .services import ChatView

log = logging.getLogger(__name__)

CACHED_CHARACTERS = 20_000_000  # of HTML
PAGE_MESSAGES = 50
STATS = ("prompt_tokens", "cached_tokens", "context", "dropped", "left_out", "ignored", "is_estimate", "unsaved", "error", "code",
         "log", "adapters")


class RenderedTexts:
    """HTML by text, the latest used kept. On the event loop; rendering happens in a thread."""

    def __init__(self) -> None:
        self._html: OrderedDict[str, str] = OrderedDict()
        self._size = 0

    async def html(self, texts: Sequence[str]) -> list[str]:
        """The HTML of each text, one string a text, its blocks wrapped as the page's script wraps live ones."""
        missing = list({text for text in texts if text and text not in self._html})
        if missing:
            drawn = await asyncio.to_thread(lambda: [_draw(text) for text in missing])
            self._keep(dict(zip(missing, drawn, strict=True)))
        found = [self._html.get(text, "") for text in texts]
        for text in texts:
            if text in self._html:
                self._html.move_to_end(text)
        self._trim()
        return found

    def _keep(self, drawn: dict[str, str]) -> None:
        for text, html in drawn.items():
            if text not in self._html:
                self._html[text] = html
                self._size += len(text) + len(html)

    def _trim(self) -> None:
        while self._size > CACHED_CHARACTERS:
            text, html = self._html.popitem(last=False)
            self._size -= len(text) + len(html)


def _draw(text: str) -> str:
    try:
        blocks = render_message(text)
    except Exception:
        log.exception("A message could not be drawn as Markdown; it is shown as plain text")
        blocks = [plain_block(text)]
    return "".join(f'<div class="b">{html}</div>' for html in blocks)


async def view_json(view: ChatView, nodes: Sequence[Node], texts: RenderedTexts) -> dict[str, Any]:
    """The chat's facts and these nodes of its path, in reading order; `more` tells whether the path has earlier ones."""
    shown = await texts.html([text for node in nodes for text in (node.message.text, node.message.reasoning)])
    messages = [_message_json(view, node, html, reasoning)
                for node, html, reasoning in zip(nodes, shown[::2], shown[1::2], strict=True)]
    return {"conversation": view.conversation, "title": view.title, "head": view.head, "names": dict(view.names),
            "elsewhere": [{"node": node.id, "run": node.run} for node in view.elsewhere],
            "again": [{"id": one.id, "under": one.under, "model": one.model, "status": one.status, "message": one.message}
                      for one in view.again],
            "loaders": dict(view.loaders), "messages": messages, "more": bool(nodes) and nodes[0].id != view.path[0].id}


def page_before(path: Sequence[Node], before: int | None) -> Sequence[Node]:
    """The last messages of the path, or the last before the node `before`; none where that node is not on it."""
    if before is None:
        return path[-PAGE_MESSAGES:]
    end = next((index for index, node in enumerate(path) if node.id == before), 0)
    return path[max(0, end - PAGE_MESSAGES):end]


def _message_json(view: ChatView, node: Node, html: str, reasoning: str) -> dict[str, Any]:
    message = node.message
    facts: dict[str, Any] = {
        "id": node.id, "parent": node.parent, "role": message.role, "html": html,
        "name": message.name or view.names.get(message.role) or message.role.capitalize(),
        "status": node.status, "finish": node.finish, "siblings": list(view.siblings.get(node.id, (node.id,))),
        "model": node.model, "loader": node.loader, "quantization": node.quantization, "seed": node.seed, "created": node.created}
    if node.status == "streaming":
        facts["run"] = node.run
    if reasoning:
        seconds = [part.seconds for part in message.content if isinstance(part, ReasoningPart) and part.seconds is not None]
        facts["reasoning"] = {"html": reasoning, "seconds": round(sum(seconds), 1) if seconds else None}
    tools = [part for part in message.content if isinstance(part, ToolCallPart | ToolResultPart)]
    if tools:
        facts["tools"] = [{"name": part.name, "text": part.arguments} if isinstance(part, ToolCallPart)
                          else {"name": "result", "text": part.text} for part in tools]
    facts["stats"] = _stats(node)
    return facts


def _stats(node: Node) -> dict[str, Any]:
    """The numbers under a reply, named as a live run's status names them."""
    stats = {key: node.stats[key] for key in STATS if node.stats.get(key)}
    if node.stats.get("completion_tokens"):
        stats["tokens"] = node.stats["completion_tokens"]
    if node.stats.get("tokens_per_second"):
        stats["speed"] = round(node.stats["tokens_per_second"], 1)
    return stats
