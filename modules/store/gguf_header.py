"""Reads a GGUF file's header (versions 2 and 3), every count, length and offset bounded by the file's size before it is used.

Source of the layout: the GGUF specification in ggml's docs/gguf.md; block sizes and type numbers are ggml.h's.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER = 256 << 20  # bytes; a vocabulary of 262k pieces with its merges takes about 20 MB
MAX_STRING_KEPT = 1 << 20
MAX_KEYS = 65_536
MAX_TENSORS = 1_000_000
MAX_DIMS = 4
MAX_NAME = 63
CHUNK = 1 << 20

# ggml type: name, weights a block, bytes a block
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18)}

# general.file_type
FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S",
    22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS",
    31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0"}

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize("<" + code) for kind, code in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_ARRAYS_KEPT = 4096  # elements; longer ones are only walked over


class BadHeader(Exception):
    """The header is broken; the message is the end of a sentence: `its header ...`."""


@dataclass(frozen=True)
class GgufHeader:
    """What a header says. values: scalars, strings, and arrays of at most 4,096 scalars, by key; longer arrays: their length.

    kinds: the GGUF value type of each key. tensors: of each its type's name and its dimensions, the length of a row first.
    tensor_types: how many weights are stored in each type. missing_bytes: byte values for which a vocabulary of kind `llama` has
    no piece; llama.cpp ends the process when it meets one. tensor_end: bytes the file must have.
    """

    values: dict[str, Any]
    n_tensors: int
    n_params: int
    tensor_types: Counter[str]
    tensor_end: int
    missing_bytes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


def read_gguf(path: Path) -> GgufHeader:
    """Raises BadHeader, or OSError where the file cannot be read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _Reader(file, size).header()


class _Reader:
    """A cursor over the start of a file, which is read in chunks as the header asks for it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.bytes = bytearray()
        self.at = 0
        self.order = "<"
        self.kinds: dict[str, int] = {}

    def need(self, n: int) -> None:
        """`n` more bytes are in memory; n comes from the file and is checked first."""
        end = self.at + n
        if end > self.size:
            raise BadHeader("ends early: the file is cut off, download it again")
        if end > MAX_HEADER:
            raise BadHeader(f"is larger than {MAX_HEADER >> 20} MB, which no real model's is")
        while len(self.bytes) < end:
            chunk = self.file.read(max(CHUNK, end - len(self.bytes)))
            if not chunk:
                raise BadHeader("ends early: the file changed while it was read")
            self.bytes += chunk

    def scalar(self, kind: int) -> Any:
        n = _SIZES[kind]
        self.need(n)
        value = struct.unpack_from(self.order + _SCALARS[kind], self.bytes, self.at)[0]
        self.at += n
        return value

    def text(self, limit: int) -> str:
        raw = self.raw()
        if len(raw) > limit:
            raise BadHeader(f"holds a text of {len(raw)} bytes where at most {limit} make sense")
        return raw.decode("utf-8", "replace")

    def raw(self) -> bytes:
        n = self.scalar(10)
        self.need(n)
        self.at += n
        return bytes(self.bytes[self.at - n:self.at])

    def header(self) -> GgufHeader:
        self.need(min(24, self.size))
        if bytes(self.bytes[:4]) != b"GGUF":
            raise BadHeader("does not begin with GGUF: this is no GGUF file")
        self.need(24)
        self.at = 4
        version = self.scalar(4)
        if version > 0xFFFF:
            raise BadHeader("is for a big-endian machine; get the little-endian file")
        if version not in (2, 3):
            raise BadHeader(f"has version {version}, but versions 2 and 3 can be read; convert the model again")
        n_tensors, n_keys = self.scalar(10), self.scalar(10)
        # A key takes at least 13 bytes (length, type, one byte), a tensor 24.
        if n_keys > MAX_KEYS or n_keys * 13 > self.size:
            raise BadHeader(f"claims {n_keys} keys")
        if n_tensors > MAX_TENSORS or n_tensors * 24 > self.size:
            raise BadHeader(f"claims {n_tensors} tensors")
        values, missing_bytes = self.keys(n_keys)
        return self.tensors(n_tensors, values, missing_bytes)

    def keys(self, n: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        missing_bytes = 0
        for _ in range(n):
            key = self.text(65_535)
            if key in values:
                raise BadHeader(f"gives {key!r} twice")
            kind = self.kinds[key] = self.scalar(4)
            if kind == _ARRAY and key == "tokenizer.ggml.tokens":
                values[key], missing_bytes = self.tokens()
            elif kind == _ARRAY:
                values[key] = self.array(key)
            elif kind == _STRING:
                values[key] = self.text(MAX_STRING_KEPT)
            elif kind in _SIZES:
                values[key] = self.scalar(kind)
            else:
                raise BadHeader(f"gives {key!r} the unknown type {kind}")
        return values, missing_bytes if values.get("tokenizer.ggml.model") == "llama" else 0

    def array_head(self, key: str) -> tuple[int, int]:
        kind, n = self.scalar(4), self.scalar(10)
        if kind not in _SIZES and kind != _STRING:
            raise BadHeader(f"has an array {key!r} of the unknown type {kind}")
        if n * _SIZES.get(kind, 8) > self.size - self.at:
            raise BadHeader(f"claims {n} elements of {key!r}, more than the file holds")
        return kind, n

    def array(self, key: str) -> Any:
        kind, n = self.array_head(key)
        if kind == _STRING:
            self.skip_strings(n)
            return n
        if n <= _ARRAYS_KEPT:
            return tuple(self.scalar(kind) for _ in range(n))
        self.need(n * _SIZES[kind])
        self.at += n * _SIZES[kind]
        return n

    def skip_strings(self, n: int) -> None:
        """Walks over `n` strings; at half a million of them the loop's cost is what counts."""
        unpack = struct.Struct(self.order + "Q").unpack_from
        for _ in range(n):
            if self.at + 8 > len(self.bytes):
                self.need(8)
            length = unpack(self.bytes, self.at)[0]
            self.at += 8
            if self.at + length > len(self.bytes):
                self.need(length)
            self.at += length

    def tokens(self) -> tuple[int, int]:
        """(how many pieces the vocabulary has, for how many byte values none of them stands)."""
        kind, n = self.array_head("tokenizer.ggml.tokens")
        if kind != _STRING:
            raise BadHeader("has a vocabulary that is no list of texts")
        wanted = {b"<0x%02X>" % byte: byte for byte in range(256)} | {bytes([byte]): byte for byte in range(256)}
        unpack = struct.Struct(self.order + "Q").unpack_from
        found: set[int] = set()
        for _ in range(n):
            if self.at + 8 > len(self.bytes):
                self.need(8)
            length = unpack(self.bytes, self.at)[0]
            self.at += 8
            if self.at + length > len(self.bytes):
                self.need(length)
            if length in (1, 6):
                byte = wanted.get(bytes(self.bytes[self.at:self.at + length]))
                if byte is not None:
                    found.add(byte)
            self.at += length
        return n, 256 - len(found)

    def tensors(self, n: int, values: dict[str, Any], missing_bytes: int) -> GgufHeader:
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise BadHeader(f"has the alignment {alignment!r}, which is no power of two")
        types: Counter[str] = Counter()
        n_params = end = 0
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for _ in range(n):
            name = self.text(MAX_NAME)
            if name in found:
                raise BadHeader(f"gives the tensor {name!r} twice")
            dims = self.shape(name)
            weights, row = math.prod(dims), dims[0]
            kind, offset = self.scalar(4), self.scalar(10)
            if kind not in TYPES:
                raise BadHeader(f"stores {name!r} in the unknown type {kind}; a newer version may know it")
            label, block, block_bytes = TYPES[kind]
            if row % block or offset % alignment:
                raise BadHeader(f"places or shapes {name!r} in a way that {label} does not allow")
            found[name] = label, dims
            types[label] += weights
            n_params += weights
            end = max(end, offset + weights // block * block_bytes)
        data_start = -(-self.at // alignment) * alignment
        return GgufHeader(values, n, n_params, types, data_start + end if n else self.at, missing_bytes,
                          self.kinds, found)

    def shape(self, name: str) -> tuple[int, ...]:
        """Its dimensions, the length of a row first; their product is below 2^63."""
        n_dims = self.scalar(4)
        if not 1 <= n_dims <= MAX_DIMS:
            raise BadHeader(f"gives {name!r} {n_dims} dimensions")
        dims = [self.scalar(10) for _ in range(n_dims)]
        weights = 1
        for dim in dims:
            weights *= dim
            if dim < 1 or weights >= 1 << 63:
                raise BadHeader(f"gives {name!r} an impossible shape")
        return tuple(dims)
