"""What a model will take of the memory once it is loaded with given options; benchmarks/forecast.py says how far it is off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.loader import ModelFile
from ..core.number_format import number_format
from .processor import computes_bfloat16, may_have_gpu, physical_cores

LARGEST_DEFAULT_CONTEXT = 16_384  # tokens
UNKNOWN_KV_BYTES = 128 << 10      # a token, where the headers do not say: that of an 8 B Llama 3
BATCH = {"gguf": 512, "": 256}    # tokens of a prompt that are computed together: llama.cpp's ubatch, a chunk of Transformers
# On a CPU the GGUF loader's pieces of a prompt are shorter: what is computed in CHUNK_SECONDS, at least SMALLEST_CHUNK tokens.
CHUNK_SECONDS, SMALLEST_CHUNK, CORE_FLOPS = 0.35, 64, 100e9
BUFFERS = {"gguf": 8 << 20, "": 64 << 20}  # beside the activations: scratch of the backend, what PyTorch keeps

# bytes an element of the KV cache; block formats count their scales
CACHE_BYTES: dict[str, float] = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
                                 "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32}

# bytes a weight in the number formats that a loader can bring weights into; scales are counted with the quantized ones
WEIGHT_BYTES: dict[str, float] = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1.01, "int8": 1.01, "4bit": 0.52}
# How many times bitsandbytes has the largest matrix unpacked as float32 while it multiplies: measured at 1 B parameters.
UNPACKED = {"8bit": 2, "4bit": 1}
USUAL_OUTSIDE = 0.08  # the share of a model's parameters outside of its layers, where the headers do not say


@dataclass(frozen=True)
class Forecast:
    """Bytes that a model takes once loaded. compute: buffers beside weights and KV cache, estimated."""

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


def kv_bytes_per_token(file: ModelFile, kv_type_k: str = "f16", kv_type_v: str = "f16") -> float:
    """Keys and values of one token in all layers; an upper bound for models whose layers see only a window."""
    elements = file.layers * file.kv_heads * file.head_dim
    if not elements:
        return UNKNOWN_KV_BYTES if file.format != "echo" else 0
    return elements * (CACHE_BYTES.get(kv_type_k, 2) + CACHE_BYTES.get(kv_type_v, 2))


def forecast(file: ModelFile, options: Mapping[str, Any]) -> Forecast:
    """What `file` needs with these load options, when every slot's context is full."""
    context = int(options.get("context") or min(file.trained_context or LARGEST_DEFAULT_CONTEXT, LARGEST_DEFAULT_CONTEXT))
    return Forecast(_weights_bytes(file, options), int(context_bytes(file, options) * context),
                    _compute_bytes(file, options, context))


def _weights_bytes(file: ModelFile, options: Mapping[str, Any]) -> int:
    """The file's size, but for loaders that change the number format while they load."""
    if file.format in ("gptq", "awq") and options.get("kernel") == "dense":
        return int(file.n_params * WEIGHT_BYTES[dtype_of(file, options)])
    if file.format != "safetensors" or "dtype" not in options:
        return file.size_bytes
    plain, quantized = WEIGHT_BYTES[dtype_of(file, options)], WEIGHT_BYTES.get(str(options.get("quantization")))
    outside = file.n_outside or USUAL_OUTSIDE * file.n_params
    weights = int(outside * plain + (file.n_params - outside) * (quantized or plain))
    limit = float(options.get("cpu_memory") or 0)
    return min(weights, int(limit * 2**30)) if limit and not may_have_gpu() else weights


def dtype_of(file: ModelFile, options: Mapping[str, Any]) -> str:
    """The number format that a loader on PyTorch will bring weights and KV cache into."""
    own = {"F32": "float32", "F16": "float16"}.get(file.quantization, "bfloat16")
    return number_format(str(options.get("dtype") or "auto"), own, n_params=file.n_params,
                         is_on_cpu=str(options.get("device", "auto")) in ("auto", "cpu"), computes_bfloat16=computes_bfloat16())


def context_bytes(file: ModelFile, options: Mapping[str, Any]) -> float:
    """KV bytes for each token of the option `context`: llama.cpp's slots share one context, others have one each."""
    if "dtype" in options:
        types = ["f32" if dtype_of(file, options) == "float32" else "f16"] * 2
    else:
        types = [str(options.get(f"kv_type_{which}") or "f16") for which in "kv"]
    return kv_bytes_per_token(file, *types) * (1 if file.format == "gguf" else max(1, int(options.get("slots") or 1)))


def _compute_bytes(file: ModelFile, options: Mapping[str, Any], context: int) -> int:
    """Activations of one batch: residual stream, attention and feed-forward in float32; all scores where attention is not flash.

    Logits are made for a batch's last token alone.
    """
    if file.format == "echo":
        return 0
    kind = "gguf" if file.format == "gguf" else ""
    batch = min(context, int(options.get("ubatch") or BATCH[kind]))
    if kind == "gguf" and file.n_params and not may_have_gpu():
        threads = int(options.get("threads") or physical_cores())
        batch = min(batch, max(SMALLEST_CHUNK, int(CHUNK_SECONDS * threads * CORE_FLOPS / (2 * file.n_params))))
    hidden = file.hidden_size or file.heads * file.head_dim or 4096
    values = batch * (4 * hidden + 2 * (file.feed_forward or 4 * hidden))
    if options.get("flash_attention") == "off":
        values += batch * file.heads * context
    values += UNPACKED.get(str(options.get("quantization")), 0) * hidden * (file.feed_forward or 4 * hidden)
    return 4 * values + BUFFERS[kind]
