"""Reads a SentencePiece file (`tokenizer.model`), every length bounded by the file's size.

The layout is sentencepiece_model.proto's of google/sentencepiece, in protocol buffers' wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import LoadFailed

MAX_BYTES = 64 << 20
MAX_PIECES = 1_000_000
BPE = 2  # trainer_spec.model_type


@dataclass(frozen=True)
class PieceModel:
    """pieces: (spelling, score, kind) in the order of their ids; kinds are numbered as in llama.cpp.

    bos, eos, unk, pad: ids or -1. adds_space: a space is put before a text.
    """

    pieces: list[tuple[str, float, int]]
    bos: int
    eos: int
    unk: int
    pad: int
    adds_space: bool


def read_pieces(path: Path) -> PieceModel:
    """Raises LoadFailed for a broken file, and for one that llama.cpp would read differently from SentencePiece."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise LoadFailed(f"{path.name} is larger than {MAX_BYTES >> 20} MB. Is it the right file?")
        return _model(data)
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError, struct.error) as error:
        raise LoadFailed(f"{path.name} is no SentencePiece file, or a broken one ({error}); fetch it again.") from error


def _model(data: bytes) -> PieceModel:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif number == 2 and isinstance(value, bytes):
            trainer.update(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer.update(_fields(value))
    if not 0 < len(pieces) <= MAX_PIECES:
        raise ValueError(f"{len(pieces)} pieces")
    if trainer.get(3, 1) != BPE:
        raise LoadFailed("The SentencePiece model is none of type BPE; only those can be converted. Load the folder with "
                         "Transformers instead.")
    if normalizer.get(2) or normalizer.get(4, 1):
        raise LoadFailed("The SentencePiece model rewrites text before it cuts it, which llama.cpp would not do. Load the folder "
                         "with Transformers instead.")
    ids = [_signed(trainer.get(key, usual)) for key, usual in ((40, 0), (41, 1), (42, 2), (43, -1))]
    return PieceModel(pieces, unk=ids[0], bos=ids[1], eos=ids[2], pad=ids[3], adds_space=bool(normalizer.get(3, 1)))


def _piece(data: bytes) -> tuple[str, float, int]:
    found = dict(_fields(data))
    text, score, kind = found.get(1, b""), found.get(2, b"\0" * 4), found.get(3, 1)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or kind not in range(1, 7):
        raise ValueError("a piece of another kind")
    return text.decode("utf-8"), struct.unpack("<f", score)[0], int(kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; the last of a number wins where a message is meant."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        length, at = (4, at) if kind == 5 else (8, at) if kind == 1 else _varint(data, at) if kind == 2 else (-1, at)
        if not 0 <= length <= len(data) - at:
            raise ValueError(f"a field that does not fit at byte {at}")
        yield number, data[at:at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def _signed(value: int | bytes) -> int:
    number = value if isinstance(value, int) else -1
    return number - (1 << 64) if number >> 63 else number
