"""A Hugging Face Llama folder (safetensors) written as one GGUF file: `python -m modules.models.convert IN OUT --type q8_0`."""

from __future__ import annotations

import argparse
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AppError, LoadFailed
from .vocabulary import Vocabulary, read_json, read_vocabulary

if TYPE_CHECKING:
    import gguf
    import numpy as np

TYPES = ("f32", "f16", "q8_0")
MAX_HEADER_BYTES = 100 * 2**20
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


@dataclass(frozen=True)
class Shape:
    """What of config.json the GGUF header needs; rope_factors are Llama 3's per-frequency divisors or None."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocab: int
    eps: float
    rope_theta: float
    rope_linear: float
    rope_factors: list[float] | None


def convert(folder: Path, path: Path, kind: str = "f16") -> None:
    """Write the Llama model in `folder` to `path`; one tensor at a time is in memory. Raises LoadFailed where it cannot.

    Matrices get the type `kind` (rows not divisible by 32 stay f16 in q8_0 files), vectors stay f32. Q and K rows are
    reordered as llama.cpp's rotary embedding wants them. The file appears under its name only when complete.
    """
    import gguf

    if kind not in TYPES:
        raise LoadFailed(f"The type must be one of {', '.join(TYPES)}; got {kind!r}.")
    shape = read_shape(read_json(folder / "config.json", 2**20))
    vocabulary = read_vocabulary(folder, shape.vocab)
    partial = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(partial, "llama")
    try:
        _write_header(writer, folder.name, shape, vocabulary, kind)
        plan = [(_gguf_name(source.name), source) for source in safetensors_in(folder)]
        for name, source in plan:
            stored = _stored_type(source.shape, kind)
            bytes_shape = gguf.quants.quant_shape_to_byte_shape(source.shape, stored) if kind == "q8_0" else source.shape
            dtype = {gguf.GGMLQuantizationType.F32: "float32", gguf.GGMLQuantizationType.F16: "float16"}.get(stored, "uint8")
            writer.add_tensor_info(name, bytes_shape if dtype == "uint8" else source.shape, _dtype(dtype),
                                   _nbytes(source.shape, stored), stored if dtype == "uint8" else None)
        factors = _factors(shape)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, source in plan:
            values = _reordered(name, source.read(), shape)
            writer.write_tensor_data(gguf.quants.quantize(values, _stored_type(source.shape, kind)))
        if factors is not None:
            writer.write_tensor_data(factors)
        writer.close()
        os.replace(partial, path)
    except ValueError as error:
        raise LoadFailed(f"{folder} cannot be converted: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def read_shape(config: dict[str, Any]) -> Shape:
    """The Shape of a config.json; raises LoadFailed where the model is no plain Llama."""
    architecture = (config.get("architectures") or ["unknown"])[0]
    if architecture != "LlamaForCausalLM":
        raise LoadFailed(f"The model is a {architecture}; only LlamaForCausalLM can be converted: load it with Transformers.")
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head_dim = int(config.get("head_dim") or hidden // heads)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            raise LoadFailed(f"Rotary embeddings of type {kind!r} cannot be converted; only default, linear and llama3 can.")
        return Shape(
            layers=int(config["num_hidden_layers"]), hidden=hidden, feed_forward=int(config["intermediate_size"]), heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads), head_dim=head_dim,
            context=int(config["max_position_embeddings"]),
            vocab=int(config["vocab_size"]), eps=float(config.get("rms_norm_eps", 1e-6)), rope_theta=theta,
            rope_linear=float(rope.get("factor", 1.0)) if kind == "linear" else 1.0,
            rope_factors=_llama3_factors(rope, theta, head_dim) if kind == "llama3" else None)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise LoadFailed(f"config.json lacks or misstates a size: {error!r}.") from error


def _llama3_factors(rope: dict[str, Any], theta: float, head_dim: int) -> list[float]:
    """Llama 3.1's divisor of each rotary frequency (transformers, modeling_rope_utils._compute_llama3_parameters)."""
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(factor)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


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
    import json

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


def _gguf_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        if part in LAYER_NAMES:
            return f"blk.{int(number)}.{LAYER_NAMES[part]}.{suffix}"
    raise LoadFailed(f"The tensor {name} is none of a Llama model.")


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


def _write_header(writer: gguf.GGUFWriter, name: str, shape: Shape, vocabulary: Vocabulary, kind: str) -> None:
    import gguf

    writer.add_name(name)
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
                          "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    if shape.rope_linear != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_linear)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    _write_vocabulary(writer, vocabulary)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.adds_space)
    for add, value in ((writer.add_bos_token_id, vocabulary.bos_id), (writer.add_eos_token_id, vocabulary.eos_id),
                       (writer.add_unk_token_id, vocabulary.unk_id), (writer.add_pad_token_id, vocabulary.pad_id)):
        if value is not None:
            add(value)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def main() -> int:
    """The command line; prints the reason and returns 1 where the folder cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a Hugging Face Llama folder with safetensors")
    parser.add_argument("path", type=Path, help="the GGUF file to write")
    parser.add_argument("--type", choices=TYPES, default="f16", help="how matrices are stored")
    chosen = parser.parse_args()
    try:
        convert(chosen.folder, chosen.path, chosen.type)
    except AppError as error:
        print(error)
        return 1
    print(f"{chosen.path}: {chosen.path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
