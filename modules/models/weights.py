"""The tensors of a Hugging Face folder's safetensors files, read one at a time as float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import LoadFailed
from ..store.hf_folder import BadFolder, weight_files
from ..store.safetensors_header import BadSafetensors, read_safetensors

if TYPE_CHECKING:
    import numpy as np

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}  # bytes


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


def sources(folder: Path) -> Iterator[Source]:
    """Every tensor of the folder, by file and name: of the files that Transformers loads, headers bounded and checked.

    Raises LoadFailed.
    """
    try:
        paths = [folder / name for name in weight_files(folder, sorted(entry.name for entry in folder.iterdir()))]
        if not paths:
            raise LoadFailed(f"{folder} holds no .safetensors file. Pickled weights (.bin) are not read: convert them first.")
        for path in paths:
            yield from _in_file(path)
    except (BadFolder, BadSafetensors) as error:
        raise LoadFailed(str(error)) from error
    except OSError as error:
        raise LoadFailed(f"{folder} cannot be read ({error.strerror or error}).") from error


def _in_file(path: Path) -> Iterator[Source]:
    checked = {tensor.name: tensor for tensor in read_safetensors(path)}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name in sorted(checked):
        if name.endswith("rotary_emb.inv_freq"):
            continue
        tensor = checked[name]
        if tensor.dtype not in WIDTHS:
            raise LoadFailed(f"{name} has the type {tensor.dtype}; quantized checkpoints cannot be converted.")
        yield Source(name, path, tensor.dtype, tuple(tensor.shape), 8 + length + int(header[name]["data_offsets"][0]))
