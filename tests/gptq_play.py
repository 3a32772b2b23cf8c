"""Packs a model's linear layers by hand, as AutoGPTQ, GPTQ-for-LLaMa and AutoAWQ write them, beside the same weights unpacked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

AWQ_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)  # which column each nibble of a word holds
SKIPPED = ("embed_tokens", "lm_head", "norm")


@dataclass(frozen=True)
class Style:
    """A way to pack. where: the file that describes it: "config.json", "quantize_config.json", "quant_config.json" or ""."""

    bits: int = 4
    group: int = 32
    is_symmetric: bool = True
    act_order: bool = False
    has_g_idx: bool = True
    has_bias: bool = False
    method: str = "gptq"
    version: str = "gptq"
    where: str = "config.json"
    weights: str = "model.safetensors"


def pack_model(source: Path, packed: Path, unpacked: Path, style: Style) -> None:
    """Write the folder's model with packed layers, and once more in float32 with the numbers that these stand for."""
    from safetensors.numpy import load_file, save_file

    chance = np.random.default_rng(5)
    shutil.copytree(source, unpacked)
    shutil.copytree(source, packed, ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    stored, plain = {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if tensor.ndim == 2 and not any(part in name for part in SKIPPED):
            layer, weight = pack_layer(tensor, style, chance)
            stored |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in layer.items()}
            plain[name] = weight
        else:
            stored[name] = tensor.astype(np.float16)
            plain[name] = tensor.astype(np.float16).astype(np.float32)
    save_file(stored, packed / style.weights, metadata={"format": "pt"})
    save_file(plain, unpacked / "model.safetensors", metadata={"format": "pt"})
    _describe(packed, style)


def pack_layer(weight: np.ndarray, style: Style, chance: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(out, in) float32 to the layer's tensors, and the (out, in) float32 that they stand for."""
    n_out, n_in = weight.shape
    group = n_in if style.group == -1 else style.group
    g_idx = np.arange(n_in) // group
    if style.act_order:
        g_idx = chance.permutation(g_idx)
    top = 2**style.bits - 1
    scales, zeros = np.zeros((n_in // group, n_out), np.float16), np.zeros((n_in // group, n_out), np.int64)
    values = np.zeros((n_in, n_out), np.int64)
    for number in range(n_in // group):
        rows = weight[:, g_idx == number].T
        if style.is_symmetric:
            scale = np.maximum(abs(rows).max(0) * 2 / top, 1e-6).astype(np.float16)
            zero = np.full(n_out, (top + 1) // 2)
        else:
            low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)
            scale = np.maximum((high - low) / top, 1e-6).astype(np.float16)
            zero = np.clip(np.round(-low / scale.astype(np.float32)), 1, top).astype(np.int64)
        scales[number], zeros[number] = scale, zero
        values[g_idx == number] = np.clip(np.round(rows / scale.astype(np.float32)) + zero, 0, top)
    spread = scales[g_idx].astype(np.float32) * (values - zeros[g_idx]).astype(np.float32)
    plain = np.ascontiguousarray(spread.T)  # safetensors writes what lies in memory, whatever the strides
    if style.method == "awq":
        return {"qweight": _awq_words(values), "qzeros": _awq_words(zeros), "scales": scales}, plain
    stored_zeros = zeros - (1 if style.version == "gptq" else 0)
    layer = {"qweight": words(values, style.bits), "qzeros": words(stored_zeros.T, style.bits).T.copy(), "scales": scales}
    if style.has_g_idx:
        layer["g_idx"] = g_idx.astype(np.int32)
    if style.has_bias:
        layer["bias"] = np.zeros(n_out, np.float16)
    return layer, plain


def words(values: np.ndarray, bits: int) -> np.ndarray:
    """(n, m) small numbers as one stream of bits down each column, cut into int32: (n * bits / 32, m)."""
    each_bit = (values[:, None, :] >> np.arange(bits)[None, :, None]) & 1
    stream = each_bit.reshape(-1, 32, values.shape[1]).astype(np.uint64)
    return (stream << np.arange(32, dtype=np.uint64)[None, :, None]).sum(1).astype(np.uint32).view(np.int32)


def _awq_words(values: np.ndarray) -> np.ndarray:
    blocks = values.reshape(values.shape[0], -1, 8)[:, :, list(AWQ_NIBBLES)].astype(np.uint64)
    return (blocks << (4 * np.arange(8, dtype=np.uint64))).sum(2).astype(np.uint32).view(np.int32)


def _describe(folder: Path, style: Style) -> None:
    body: dict[str, Any]
    if style.method == "awq":
        body = {"quant_method": "awq", "bits": style.bits, "group_size": style.group, "zero_point": True,
                "version": style.version}
    else:
        body = {"quant_method": "gptq", "bits": style.bits, "group_size": style.group, "desc_act": style.act_order,
                "sym": style.is_symmetric, "checkpoint_format": style.version}
    if style.where == "config.json":
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": body}), "utf-8")
    elif style.where == "quant_config.json":
        (folder / style.where).write_text(json.dumps({"zero_point": True, "q_group_size": style.group, "w_bit": style.bits,
                                                      "version": "GEMM"}), "utf-8")
    elif style.where:
        del body["quant_method"], body["checkpoint_format"]  # as AutoGPTQ wrote it
        (folder / style.where).write_text(json.dumps(body), "utf-8")


def edited(folder: Path, target: Path, change: Any, drop: Sequence[str] = ()) -> Path:
    """A copy whose tensors change(tensors) has edited in place, without the files in `drop`."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, target, ignore=lambda _, names: [name for name in names if name in drop])
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target
