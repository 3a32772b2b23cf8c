"""The echo loader's vocabulary, by arithmetic: text to ids and back, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modules.core.errors import BadRequest

# 256 bytes, then control tokens, then every piece of up to four of 27 characters, a number to the base 28 whose digit 0 is
# nothing. So a word costs a token or two, as with real models, and other characters one a byte.
CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")
CONTROL_IDS = {text: 256 + index for index, text in enumerate(CONTROL)}
START, END, END_OF_TEXT = (CONTROL_IDS[text] for text in CONTROL[:3])
FIRST_PIECE = 256 + len(CONTROL)
ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
BASE = len(ALPHABET) + 1
VOCABULARY = FIRST_PIECE + BASE**4
_DIGITS = {byte: index + 1 for index, byte in enumerate(ALPHABET)}
_PIECE = re.compile(rb" [a-z]{1,3}|[a-z]{2,4}|.", re.DOTALL)
_CONTROL = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")


def encode(text: str, *, control: bool) -> list[int]:
    """Ids of the text, whose bytes `decode` gives back."""
    ids: list[int] = []
    for part in _CONTROL.split(text) if control else (text,):
        if control and part in CONTROL_IDS:
            ids.append(CONTROL_IDS[part])
        else:
            ids.extend(map(_piece_id, _PIECE.findall(part.encode())))
    return ids


def decode(ids: Sequence[int]) -> bytes:
    """The bytes of the ids; raises BadRequest for an id outside the vocabulary."""
    return b"".join(map(piece, ids))


def _piece_id(piece: bytes) -> int:
    if len(piece) == 1:
        return piece[0]
    number = 0
    for byte in reversed(piece):
        number = number * BASE + _DIGITS[byte]
    return FIRST_PIECE + number


def piece(id_: int) -> bytes:
    """The bytes of one id; raises BadRequest for one outside the vocabulary."""
    if 0 <= id_ < 256:
        return bytes((id_,))
    if 256 <= id_ < FIRST_PIECE:
        return CONTROL[id_ - 256].encode()
    if not FIRST_PIECE <= id_ < VOCABULARY:
        raise _unknown_id(id_)
    number = id_ - FIRST_PIECE
    spelled = bytearray()
    while number:
        number, digit = divmod(number, BASE)
        if digit:
            spelled.append(ALPHABET[digit - 1])
    return bytes(spelled)


def check(ids: Sequence[int]) -> None:
    """Raises BadRequest for an id outside the vocabulary."""
    for id_ in ids:
        if not 0 <= id_ < VOCABULARY:
            raise _unknown_id(id_)


def _unknown_id(id_: int) -> BadRequest:
    return BadRequest(f"Token id {id_} is outside the vocabulary (0 to {VOCABULARY - 1}).")
