"""A Hugging Face folder (safetensors) becomes one GGUF file: `python -m modules.models.convert SOURCE TARGET --type q4_k_m`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import LoadFailed
from .architectures import OUTER, Architecture
from .gguf_write import write_header
from .shape import Shape, read_shape
from .vocabulary import read_json, read_vocabulary
from .weights import Source, sources

if TYPE_CHECKING:
    import gguf
    import numpy as np

TYPES = ("f32", "f16", "bf16", "q8_0")
Told = Callable[[int, int], None]


def convert(folder: Path, path: Path, kind: str = "f16", told: Told = lambda done, total: None) -> None:
    """Write the model in `folder` to `path`; one tensor at a time is in memory. Raises LoadFailed where it cannot.

    Matrices get the type `kind` (rows not divisible by 32 stay f16 in q8_0 files), vectors stay f32. The file appears under its
    name only when complete. told: (tensors written, of how many).
    """
    import gguf

    if kind not in TYPES:
        raise LoadFailed(f"The type must be one of {', '.join(TYPES)}; got {kind!r}.")
    shape = read_shape(read_json(folder / "config.json", 2**20))
    vocabulary = read_vocabulary(folder, shape.vocab)
    plan = tensor_plan(sources(folder), shape)
    partial = path.with_name(path.name + ".part")
    try:
        writer = gguf.GGUFWriter(partial, shape.architecture.name)
        file_type = "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
        write_header(writer, folder.name, shape, vocabulary, gguf.LlamaFileType[file_type])
        for name, source in plan:
            _add_info(writer, name, source, _stored_type(source.shape, kind))
        factors = _factors(shape)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, (name, source) in enumerate(plan):
            told(done, len(plan))
            values = as_llama_cpp(name, source.read(), shape)
            writer.write_tensor_data(gguf.quants.quantize(values, _stored_type(source.shape, kind)))
        if factors is not None:
            writer.write_tensor_data(factors)
        writer.close()
        told(len(plan), len(plan))
        os.replace(partial, path)
    except (ValueError, OSError) as error:
        raise LoadFailed(f"{folder.name} cannot be converted: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def tensor_plan(found: Iterable[Source], shape: Shape) -> list[tuple[str, Source]]:
    """llama.cpp's name for each tensor. Raises LoadFailed for one that the architecture has not, and for one that is missing."""
    plan = [(name, source) for source in found if (name := gguf_name(source.name, shape.architecture, shape.layers))
            and not (shape.tied and name == "output.weight")]
    names = [name for name, _ in plan]
    wanted = {f"blk.{layer}.{part}.weight" for layer in range(shape.layers) for part in shape.architecture.layer.values()}
    wanted |= {"token_embd.weight", "output_norm.weight", *(() if shape.tied else ("output.weight",))}
    missing = sorted(wanted.difference(names))
    if missing or len(names) != len(set(names)):
        what = f"lacks {len(missing)} of its tensors, such as {missing[0]}" if missing else "has a tensor twice"
        raise LoadFailed(f"The folder {what}; fetch all of its files again.")
    for name, source in plan:
        if name == "token_embd.weight" and source.shape != (shape.vocab, shape.hidden):
            raise LoadFailed(f"Its embedding has the shape {source.shape}, where config.json says {(shape.vocab, shape.hidden)}.")
    return plan


def gguf_name(name: str, architecture: Architecture, layers: int) -> str:
    """`blk.0.attn_q.weight`; "" for one that is left out. Raises LoadFailed for a tensor that the architecture has not."""
    if name.startswith(architecture.skipped or ("\0",)):
        return ""
    whole = name
    for prefix in architecture.prefixes:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            name = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
    stem, _, suffix = name.rpartition(".")
    if suffix in ("weight", "bias"):
        if stem in OUTER:
            return f"{OUTER[stem]}.{suffix}"
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        if stem.startswith("model.layers.") and part in architecture.layer and number.isdecimal() and int(number) < layers:
            return f"blk.{int(number)}.{architecture.layer[part]}.{suffix}"
    raise LoadFailed(f"The tensor {whole[:200]} is none of a {architecture.name} model.")


def as_llama_cpp(name: str, values: np.ndarray, shape: Shape) -> np.ndarray:
    """The values as llama.cpp's code for the architecture takes them: norms whole, and Q and K rows of each head from (half,
    pair) to (pair, half) where it rotates neighbouring rows and Transformers halves."""
    part = name.rsplit(".", 2)[-2]
    if shape.architecture.adds_one and part.endswith("norm"):
        one: np.ndarray = values + values.dtype.type(1)
        return one
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(part)
    if heads is None or not shape.architecture.swaps_halves:
        return values
    return values.reshape(heads, 2, shape.head_dim // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _add_info(writer: gguf.GGUFWriter, name: str, source: Source, stored: gguf.GGMLQuantizationType) -> None:
    import gguf
    import numpy as np

    plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}.get(stored)
    if plain is not None:
        writer.add_tensor_info(name, source.shape, np.dtype(plain), _nbytes(source.shape, stored))
    else:
        packed = gguf.quants.quant_shape_to_byte_shape(source.shape, stored)
        writer.add_tensor_info(name, packed, np.dtype(np.uint8), _nbytes(source.shape, stored), stored)


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


def _factors(shape: Shape) -> np.ndarray[Any, Any] | None:
    import numpy as np
    return None if shape.rope_factors is None else np.array(shape.rope_factors, np.float32)


if __name__ == "__main__":
    from .convert_command import main
    raise SystemExit(main())
