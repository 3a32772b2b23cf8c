"""A conversation is a tree of nodes; edit, regenerate, swipe, branch and continue are all `add under a parent`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import NotFound
from .messages import Message

Status = Literal["streaming", "complete", "stopped", "interrupted", "failed"]
GREETING = "greeting"  # finish of a character's own first message, which nobody wrote and no model sampled


@dataclass(frozen=True)
class Node:
    """One message in its place. Ids grow with time within a database, so siblings sort by id.

    parent is None for a root. finish: the run's EndReason or "error", GREETING, or "" for what a person wrote. sampled_ids: the
    reply's token ids as sampled, () where unknown or edited; they are valid for `model` only. keep_from: the id of the first
    message that was still in the prompt when this was written, None = all.
    stats: prompt_tokens, completion_tokens, cached_tokens, seconds, tokens_per_second, context, ignored, error...
    """

    id: int
    conversation: str
    parent: int | None
    message: Message
    status: Status = "complete"
    finish: str = ""
    sampled_ids: tuple[int, ...] = ()
    model: str = ""
    loader: str = ""
    quantization: str = ""
    preset: str = ""
    seed: int | None = None
    keep_from: int | None = None
    run: str = ""
    stats: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    hidden: bool = False


class Conversation:
    """The visible nodes of one conversation, indexed. Read-only; made from a list of nodes."""

    def __init__(self, id: str, nodes: Iterable[Node]) -> None:
        self.id = id
        self.nodes = {node.id: node for node in nodes if not node.hidden}
        self.children: dict[int | None, list[int]] = {}
        for node in sorted(self.nodes.values(), key=lambda n: n.id):
            self.children.setdefault(node.parent, []).append(node.id)

    def path(self, head: int | None) -> list[Node]:
        """Nodes from the root to `head`, in reading order; raises NotFound for an unknown head."""
        found: list[Node] = []
        while head is not None:
            node = self.nodes.get(head)
            if node is None:
                raise NotFound(f"Message {head} is not in this chat, or was deleted; reload the page.")
            found.append(node)
            head = node.parent
        found.reverse()
        return found

    def siblings(self, node: int) -> list[int]:
        """Ids of all versions at this place (swipes, edits), oldest first, the node itself among them."""
        return self.children.get(self.nodes[node].parent, [])

    def below(self, node: int) -> set[int]:
        """Ids of the node and of all that follow it, in every version."""
        found, todo = set(), [node]
        while todo:
            found.add(todo[-1])
            todo += self.children.get(todo.pop(), [])
        return found

    def newest_leaf(self, node: int | None) -> int | None:
        """The leaf reached by always taking the newest child: what to show after a swipe."""
        while self.children.get(node):
            node = self.children[node][-1]
        return node
