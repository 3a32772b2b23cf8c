"""Reads a safetensors file's header, its length and every offset bounded by the file's size.

Source of the layout: the safetensors format description (README of huggingface/safetensors).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LFS_START = b"version https://git-lfs.github.com/spec/"
LFS_PROBLEM = ("This is a Git LFS pointer, not the model itself; run `git lfs pull` in its folder, or download the file again.")
MAX_HEADER = 100 << 20  # bytes; the reference reader's own limit
MAX_TENSORS = 1_000_000

# bits an element
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4,
         "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64,
         "U64": 64, "F64": 64, "C64": 64}


class BadSafetensors(Exception):
    """The file is broken; the message is a sentence."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header describes it; n is its number of elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n: int


def read_safetensors(path: Path) -> list[Tensor]:
    """The tensors of a file whose offsets all lie within it. Raises BadSafetensors, or OSError where it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise BadSafetensors(f"{path.name} is empty or cut off; download it again.")
        if LFS_START.startswith(start):
            raise BadSafetensors(f"{path.name}: {LFS_PROBLEM}")
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER:
            raise BadSafetensors(f"{path.name} claims a header of {length:,} bytes; this is no safetensors file.")
        if length > size - 8:
            raise BadSafetensors(f"{path.name} is cut off within its header; download it again.")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadSafetensors(f"{path.name} has a header that is no JSON; download it again.") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise BadSafetensors(f"{path.name} has a header that is no object of tensors; download it again.")
    header.pop("__metadata__", None)
    tensors = [_tensor(path, name, entry) for name, entry in header.items()]
    room = size - 8 - length
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > room:
        raise BadSafetensors(f"{path.name} is cut off: it has {size:,} of {end + 8 + length:,} bytes; download it again.")
    return tensors


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        n = 1
        for size in shape:
            n = n * size if _is_count(size) else -1
            if not 0 <= n < 1 << 63:
                raise ValueError("an impossible shape")
        if not _is_count(start) or not _is_count(stop) or len(shape) > 16:
            raise ValueError("impossible offsets")
        if dtype in _BITS and (stop - start) * 8 != n * _BITS[dtype]:
            raise ValueError("the shape does not fit the bytes")
    except (KeyError, TypeError, ValueError) as error:
        raise BadSafetensors(f"{path.name} describes its tensor {name[:80]!r} wrongly; download it again.") from error
    return Tensor(name, str(dtype), tuple(shape), n)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
