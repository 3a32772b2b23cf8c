"""Text as ids where the model's own vocabulary is out of reach: four characters each, by arithmetic, back to the byte.

A server takes messages, not ids. Ours still travel as ids, so that prompts are cut, counted and spliced by the same code as
everywhere; their number is an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from modules.core.errors import BadRequest

# Control tokens first. Then up to four ASCII characters of seven bits each, the first lowest, so that a shorter piece ends in
# zeros; then up to three bytes of anything else under their number.
CONTROL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
CONTROL_IDS = {text: index for index, text in enumerate(CONTROL)}
START, END, THINK, THOUGHT = range(4)
ASCII, BYTES = 1 << 28, 1 << 29
VOCABULARY = 1 << 30
_CONTROL = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")
_PIECE = re.compile(rb"[\x01-\x7f]{1,4}|[\x00\x80-\xff]{1,3}")


def encode(text: str, *, control: bool) -> list[int]:
    """Ids of the text, whose bytes `decode` gives back."""
    ids: list[int] = []
    for part in _CONTROL.split(text) if control else (text,):
        if control and part in CONTROL_IDS:
            ids.append(CONTROL_IDS[part])
        else:
            ids.extend(encode_bytes(part.encode("utf-8", "replace")))
    return ids


def encode_bytes(raw: bytes) -> list[int]:
    """Ids of these bytes, without control tokens."""
    return [_id(part) for part in _PIECE.findall(raw)]


def decode(ids: Iterable[int]) -> bytes:
    """The bytes of the ids; raises BadRequest for an id outside the vocabulary."""
    return b"".join(map(piece, ids))


def _id(part: bytes) -> int:
    if 0 < part[0] < 0x80:
        return ASCII + sum(byte << (7 * place) for place, byte in enumerate(part))
    return BYTES + (len(part) << 24) + int.from_bytes(part, "little")


def piece(id_: int) -> bytes:
    """The bytes of one id; raises BadRequest for one outside the vocabulary."""
    if 0 <= id_ < len(CONTROL):
        return CONTROL[id_].encode()
    if ASCII < id_ < BYTES:
        number = id_ - ASCII
        return bytes(byte for place in range(4) if (byte := number >> (7 * place) & 0x7F))
    length = (id_ - BYTES) >> 24
    if BYTES <= id_ < VOCABULARY and 1 <= length <= 3:
        return (id_ & 0xFFFFFF).to_bytes(3, "little")[:length]
    raise BadRequest(f"Token id {id_} is outside the vocabulary; this model's server has a vocabulary of its own.")


def check(ids: Sequence[int]) -> None:
    """Raises BadRequest for an id outside the vocabulary."""
    for id_ in ids:
        piece(id_)
