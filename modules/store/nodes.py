"""How a node becomes a row and a row a node."""

from __future__ import annotations

import struct
from typing import Any, TypedDict

from sqlalchemy import Row

from ..core.conversation import Node, Status
from ..core.errors import TooLarge
from ..core.messages import Message, TextPart, message_from_json, message_to_json
from .schema import storable

MAX_TEXT = 16 << 20


class NodeFields(TypedDict, total=False):
    """What a node records of the run that wrote it; named and explained in core.conversation.Node.

    instance is the id of the process that runs it.
    """

    finish: str
    sampled_ids: tuple[int, ...]
    model: str
    loader: str
    quantization: str
    preset: str
    seed: int | None
    keep_from: int | None
    run: str
    instance: str
    stats: dict[str, Any]


def message_values(message: Message) -> dict[str, Any]:
    """The columns of a message; raises TooLarge for more than MAX_TEXT characters of text."""
    text = message.text
    if len(text) > MAX_TEXT:
        raise TooLarge(f"A message may have {MAX_TEXT:,} characters; this one has {len(text):,}. Split it.")
    is_plain = message.content == (TextPart(text),) and storable(text) == text
    parts = None if is_plain else message_to_json(message)["content"]
    return {"role": message.role, "name": message.name, "text": text, "parts": parts}


def field_values(fields: NodeFields) -> dict[str, Any]:
    """The columns of the fields."""
    values: dict[str, Any] = dict(fields)
    if "sampled_ids" in fields:
        ids = fields["sampled_ids"]
        values["sampled_ids"] = struct.pack(f"<{len(ids)}I", *ids)
    return values


def node_of(row: Row[Any]) -> Node:
    """The node of a whole row of the nodes table."""
    parts = [{"type": "text", "text": row.text}] if row.parts is None else row.parts
    status: Status = row.status
    return Node(
        id=row.id, conversation=row.conversation, parent=row.parent,
        message=message_from_json({"role": row.role, "name": row.name, "content": parts}),
        status=status, finish=row.finish, sampled_ids=struct.unpack(f"<{len(row.sampled_ids) // 4}I", row.sampled_ids),
        model=row.model, loader=row.loader, quantization=row.quantization, preset=row.preset, seed=row.seed,
        keep_from=row.keep_from, run=row.run, stats=row.stats, created=row.created, hidden=row.hidden)
