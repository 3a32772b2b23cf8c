"""The tensors of a Hugging Face folder's safetensors files, one at a time, headers bounded and checked."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import LoadFailed

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Source:
    """One tensor in a safetensors file; `read` gives float32."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> np.ndarray:
        import numpy as np
        kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
        stored = np.memmap(self.path, kinds[self.dtype], "r", self.offset, self.shape)
        if self.dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(stored, np.float32)


def safetensors_in(folder: Path) -> Iterator[Source]:
    """Every tensor of the folder's safetensors files, in the order of their names; headers are bounded and checked."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise LoadFailed(f"{folder} holds no .safetensors file. Pickled weights (.bin) are not read: convert them first.")
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
    for path in paths:
        total = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            if length > min(total - 8, MAX_HEADER_BYTES):
                raise LoadFailed(f"{path.name} is cut short or no safetensors file; fetch it again.")
            header = json.loads(file.read(length))
        for name, item in sorted(header.items()):
            if name == "__metadata__" or name.endswith("rotary_emb.inv_freq"):
                continue
            start, stop = item["data_offsets"]
            shape = tuple(int(n) for n in item["shape"])
            if item["dtype"] not in sizes:
                raise LoadFailed(f"{name} has the type {item['dtype']}; quantized checkpoints cannot be converted.")
            if not 0 <= start <= stop <= total - 8 - length or stop - start != math.prod(shape) * sizes[item["dtype"]]:
                raise LoadFailed(f"{path.name} is cut short at {name}; fetch it again.")
            yield Source(name, path, item["dtype"], shape, 8 + length + start)
