"""A Hugging Face folder (safetensors) written as one GGUF file: `python -m modules.models.convert IN OUT --type q8_0`."""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AppError, LoadFailed
from . import gguf_keys, quantize, save_nf4
from .architectures import gguf_name
from .safetensors_source import safetensors_in
from .shape import Shape, read_shape
from .vocabulary import read_json, read_vocabulary

if TYPE_CHECKING:
    import gguf
    import numpy as np

Told = Callable[[int, int], None]
TYPES = ("f32", "f16", "bf16", "q8_0")


def convert(folder: Path, path: Path, kind: str = "f16", progress: Told = lambda done, total: None) -> None:
    """Write the model in `folder` to `path`; one tensor at a time is in memory. Raises LoadFailed where it cannot.

    Matrices get the type `kind` (rows not divisible by 32 stay f16 in q8_0 files), vectors stay f32. The file appears under its
    name only when complete. progress(done, total) counts tensors.
    """
    import gguf

    if kind not in TYPES:
        raise LoadFailed(f"The type must be one of {', '.join(TYPES)}; got {kind!r}.")
    shape = read_shape(read_json(folder / "config.json", 2**20))
    vocabulary = read_vocabulary(folder, shape.vocab)
    partial = path.with_name(path.name + quantize.UNFINISHED)
    writer = gguf.GGUFWriter(partial, shape.architecture.name)
    try:
        gguf_keys.write(writer, folder.name, shape, vocabulary, kind)
        plan = [(_name(source.name, shape), source) for source in safetensors_in(folder)]
        plan = [(name, source) for name, source in plan if not (shape.is_tied and name == "output.weight")]
        for name, source in plan:
            stored = _stored_type(source.shape, kind)
            dtype = {gguf.GGMLQuantizationType.F32: "float32", gguf.GGMLQuantizationType.F16: "float16"}.get(stored, "uint8")
            bytes_shape = gguf.quants.quant_shape_to_byte_shape(source.shape, stored) if dtype == "uint8" else source.shape
            writer.add_tensor_info(name, bytes_shape, _dtype(dtype), _nbytes(source.shape, stored),
                                   stored if dtype == "uint8" else None)
        factors = _factors(shape)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, (name, source) in enumerate(plan):
            progress(done, len(plan))
            values = _as_llama_cpp_wants(name, source.read(), shape)
            writer.write_tensor_data(gguf.quants.quantize(values, _stored_type(source.shape, kind)))
        if factors is not None:
            writer.write_tensor_data(factors)
        writer.close()
        os.replace(partial, path)
    except ValueError as error:
        raise LoadFailed(f"{folder} cannot be converted: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _name(name: str, shape: Shape) -> str:
    found = gguf_name(shape.architecture, name)
    if not found:
        raise LoadFailed(f"The tensor {name} is none that a model of the architecture {shape.architecture.name} has here.")
    return found


def _as_llama_cpp_wants(name: str, values: np.ndarray, shape: Shape) -> np.ndarray:
    if shape.architecture.norms_from_one and name.endswith("norm.weight"):
        return values + 1
    return _reordered(name, values, shape) if shape.architecture.rotates_neighbours else values


def _reordered(name: str, values: np.ndarray, shape: Shape) -> np.ndarray:
    """Q and K rows of each head from (half, pair) to (pair, half): GGUF's llama rotates neighbouring rows, HF rotates halves."""
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(name.rsplit(".", 2)[-2])
    if heads is None:
        return values
    return values.reshape(heads, 2, shape.head_dim // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _stored_type(shape: tuple[int, ...], kind: str) -> gguf.GGMLQuantizationType:
    from gguf import GGMLQuantizationType as Type
    if len(shape) < 2 or kind == "f32":
        return Type.F32
    if kind == "bf16":
        return Type.BF16
    return Type.Q8_0 if kind == "q8_0" and shape[-1] % 32 == 0 else Type.F16


def _nbytes(shape: tuple[int, ...], stored: gguf.GGMLQuantizationType) -> int:
    from gguf.constants import GGML_QUANT_SIZES
    block, size = GGML_QUANT_SIZES[stored]
    return math.prod(shape) // int(block) * int(size)


def _dtype(name: str) -> np.dtype[Any]:
    import numpy as np
    return np.dtype(name)


def _factors(shape: Shape) -> np.ndarray | None:
    import numpy as np
    return None if shape.rope_factors is None else np.array(shape.rope_factors, np.float32)


def main() -> int:
    """The command line; prints the reason and returns 1 where the model cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a Hugging Face folder with safetensors, or a GGUF file that is not quantized")
    parser.add_argument("path", type=Path, help="the GGUF file to write, for nf4 the folder")
    kinds = ", ".join((*TYPES, *quantize.TYPES, save_nf4.KIND))
    parser.add_argument("--type", default="f16", help=f"how matrices are stored: {kinds}")
    parser.add_argument("--threads", type=int, default=0, help="for quantizing; 0: all cores")
    parser.add_argument("--progress", action="store_true", help="print DONE TOTAL WHAT lines, for a program that reads them")
    chosen = parser.parse_args()
    if chosen.progress:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()

    def told(what: str) -> Told:
        return lambda done, total: print(done, total, what, flush=True) if chosen.progress else None

    try:
        make(chosen.source, chosen.path, chosen.type, threads=chosen.threads, told=told)
    except (AppError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in chosen.path.iterdir()) if chosen.path.is_dir() else chosen.path.stat().st_size
    print(f"{chosen.path}: {size:,} bytes")
    return 0


def _end_with_parent() -> None:
    """Whoever reads the progress holds the other end of standard input; it closes when that program ends, however it does."""
    while os.read(0, 4096):
        pass
    os._exit(3)


def make(source: Path, path: Path, kind: str, *, threads: int = 0, told: Callable[[str], Told]) -> None:
    """A GGUF file of any type from a folder or a GGUF file, or from a folder one in nf4; what lies between is deleted.

    Raises LoadFailed where it cannot.
    """
    if source.is_dir() and kind == save_nf4.KIND:
        save_nf4.save(source, path, told("Loading and saving"))
    elif source.is_dir() and kind.lower() in TYPES:
        convert(source, path, kind.lower(), told("Converting"))
    elif source.is_dir():
        quantize.checked(kind)
        between = path.with_name(path.name + ".whole" + quantize.UNFINISHED)
        try:
            convert(source, between, whole_type(source), told("Converting"))
            quantize.quantize(between, path, kind, threads=threads, progress=told("Quantizing"))
        finally:
            between.unlink(missing_ok=True)
    else:
        quantize.quantize(source, path, kind, threads=threads, progress=told("Quantizing"))


def whole_type(folder: Path) -> str:
    """The type that holds a folder's weights as they are: quantizing begins with no loss before it."""
    kinds = {source.dtype for source in safetensors_in(folder)}
    return "f32" if kinds - {"F16", "BF16"} else "bf16" if kinds == {"BF16"} else "f16" if kinds == {"F16"} else "f32"


if __name__ == "__main__":
    raise SystemExit(main())
