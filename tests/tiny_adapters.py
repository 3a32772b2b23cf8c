"""Tiny random LoRA adapters for the tiny Llama: as PEFT saves them, as GGUF, and merged into the model's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from modules.models.architectures import ARCHITECTURES
from modules.models.convert import convert

from .tiny_models import HEADS, KV_HEADS

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 4, 8.0


def peft_adapter(model: Path, folder: Path, *, seed: int = 1, **config: Any) -> Path:
    """A LoRA for the Hugging Face folder `model`, made and saved by PEFT, with random numbers in both matrices."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(str(model), local_files_only=True)
    wanted = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), **config}
    adapted = get_peft_model(base, LoraConfig(**wanted))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=parameter.shape[1] ** -0.5 / 2)
    adapted.save_pretrained(str(folder))
    return folder


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """The adapter's tensors without PEFT's prefix."""
    from safetensors.numpy import load_file

    return {name.removeprefix("base_model.model."): values
            for name, values in load_file(str(folder / "adapter_model.safetensors")).items()}


def scale_of(folder: Path) -> float:
    config = json.loads((folder / "adapter_config.json").read_text())
    return float(config["lora_alpha"]) / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])


def gguf_adapter(folder: Path, path: Path, **keys: Any) -> Path:
    """The PEFT adapter as GGUF; rows of Q and K are reordered like the model's own. keys: header keys to set instead."""
    import gguf

    values = {"architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
              "adapter.lora.alpha": scale_of(folder) * RANK, **keys}
    writer = gguf.GGUFWriter(path, values.pop("architecture"))
    for key, value in values.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, list: writer.add_array}[type(value)]
        add(key, value)
    for name, tensor in tensors_of(folder).items():
        _, _, layer, block, part, side, _ = name.split(".")
        if side == "lora_B" and part in ("q_proj", "k_proj"):
            heads = HEADS if part == "q_proj" else KV_HEADS
            tensor = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(tensor.shape)
        matrix = ARCHITECTURES["LlamaForCausalLM"].layer[f"{block}.{part}"]
        writer.add_tensor(f"blk.{layer}.{matrix}.weight.{side.lower()}", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merged(model: Path, target: Path, *adapters: tuple[Path, float]) -> Path:
    """The model's folder with weight * scale * B·A of each adapter added to its matrices."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, target)
    weights = load_file(str(model / "model.safetensors"))
    for folder, weight in adapters:
        tensors = tensors_of(folder)
        for name, a in tensors.items():
            if name.endswith(".lora_A.weight"):
                layer = name.removesuffix(".lora_A.weight")
                b = tensors[f"{layer}.lora_B.weight"]
                weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + np.float32(weight * scale_of(folder)) * (b @ a)
    save_file(weights, str(target / "model.safetensors"), metadata={"format": "pt"})
    return target


def merged_gguf(model: Path, path: Path, *adapters: tuple[Path, float]) -> Path:
    """The same as GGUF in float32."""
    convert(merged(model, path.with_suffix(""), *adapters), path, "f32")
    return path
