"""Builds a model around packed weights: the architecture from config.json, each packed layer made into one that computes here."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modules.core.errors import LoadFailed
from modules.core.loader import Progress

from ..transformers_parts.checkpoint import Checkpoint
from ..transformers_parts.model import GENERATION_NEEDS
from .packing import Packing
from .unpack import Layer, Packed, unpack

PACKED = ("qweight", "qzeros", "scales", "g_idx", "bias")
NOT_WEIGHTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
MakeLinear = Callable[[Layer], Any]


def build(checkpoint: Checkpoint, config: Any, packing: Packing, make: MakeLinear, dtype: Any, attention: str | None,
          progress: Progress) -> Any:
    """The model in inference mode on the CPU; make(layer) gives the module that stands for a packed linear layer.

    Raises LoadFailed where a tensor has no place in the architecture, or a place no tensor.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, GenerationConfig

    if hasattr(config, "quantization_config"):
        del config.quantization_config  # else Transformers asks for GPTQModel
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False,
                                                 **({"attn_implementation": attention} if attention else {}))
    names = _names(checkpoint)
    packed_layers = {name.removesuffix(".qweight") for name in names if name.endswith(".qweight")}
    if not packed_layers:
        raise LoadFailed(f"{checkpoint.folder.name} says that its weights are packed, but holds no qweight tensor. Its "
                         "quantization config belongs to another model.")
    done = 0
    for prefix, tensors in _groups(checkpoint, names, packed_layers):
        progress(0.08 + 0.87 * done / len(names), f"Loading weights, {done} of {len(names)}")
        done += len(tensors)
        if prefix in packed_layers:
            _replace(model, prefix, make(_unpacked(model, prefix, tensors, packing)))
        else:
            for name, tensor in tensors.items():
                _set(model, name, tensor, dtype)
    model.tie_weights()
    _refuse_gaps(model)
    if (checkpoint.folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(checkpoint.folder), local_files_only=True)
    model.requires_grad_(False).eval()
    if not all(name in inspect.signature(model.forward).parameters for name in GENERATION_NEEDS):
        raise LoadFailed(f"{type(model).__name__} keeps its state in a way this loader does not handle. Use a GGUF version.")
    return model


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """The file of each tensor."""
    from safetensors import safe_open

    found: dict[str, str] = {}
    for file in checkpoint.files:
        with safe_open(checkpoint.folder / file, framework="pt") as opened:
            found.update(dict.fromkeys(opened.keys(), file))
    return found


def _groups(checkpoint: Checkpoint, names: dict[str, str], packed_layers: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tensors of one layer at a time, by their full names; a packed layer's stay together though files may part them."""
    from safetensors import safe_open

    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.rpartition(".")[0]].append(name)
    opened: dict[str, Any] = {file: safe_open(Path(checkpoint.folder) / file, framework="pt") for file in checkpoint.files}
    for prefix in sorted(groups, key=lambda prefix: (names[groups[prefix][0]], prefix)):
        yield prefix, {name: opened[names[name]].get_tensor(name) for name in groups[prefix]}


def _unpacked(model: Any, prefix: str, tensors: dict[str, Any], packing: Packing) -> Layer:
    from torch import nn

    try:
        place = model.get_submodule(prefix)
    except AttributeError:
        place = None
    if not isinstance(place, nn.Linear):
        raise LoadFailed(f"The packed layer {prefix} has no linear layer of that name in {type(model).__name__}. Load it with "
                         "kernel gptqmodel, or take a GGUF version.", param="kernel")
    parts = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    lacking = [part for part in ("qweight", "qzeros", "scales") if part not in parts]
    if lacking:
        raise LoadFailed(f"{prefix}.{lacking[0]} is missing; the download is incomplete.")
    unknown = sorted(set(parts) - set(PACKED))
    if unknown:
        raise LoadFailed(f"{prefix}.{unknown[0]} is no part of a {packing.method.upper()} layer that is known here. Load it with "
                         "kernel gptqmodel, or take a GGUF version.", param="kernel")
    return unpack(Packed(prefix, **parts), packing, place.in_features, place.out_features)


def _replace(model: Any, prefix: str, module: Any) -> None:
    parent, _, name = prefix.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _set(model: Any, name: str, tensor: Any, dtype: Any) -> None:
    """Put a tensor that is not packed into its place; raises LoadFailed where there is none of its shape."""
    from accelerate.utils import set_module_tensor_to_device

    if name.endswith(NOT_WEIGHTS):
        return
    prefix, _, last = name.rpartition(".")
    try:
        place = getattr(model.get_submodule(prefix), last)
    except AttributeError:
        raise LoadFailed(f"The tensor {name} has no place in {type(model).__name__}: config.json belongs to another "
                         "model.") from None
    if tuple(place.shape) != tuple(tensor.shape):
        raise LoadFailed(f"The tensor {name} has the shape {tuple(tensor.shape)}, and config.json means {tuple(place.shape)}: "
                         "they belong to two models.")
    set_module_tensor_to_device(model, name, "cpu", value=tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _refuse_gaps(model: Any) -> None:
    missing = sorted(name for name, tensor in model.named_parameters() if tensor.device.type == "meta")
    if missing:
        raise LoadFailed(f"The weights lack {len(missing)} tensors that the architecture needs, the first is {missing[0]}. The "
                         "download is incomplete, or config.json belongs to another model.")
