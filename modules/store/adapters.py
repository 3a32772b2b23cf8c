"""Reads LoRA adapters by their headers: PEFT folders (safetensors) and GGUF files; pickle is refused, everything is bounded.

Source of the layouts: PEFT's "PEFT checkpoint format", and llama.cpp's src/llama-adapter.cpp.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.adapters import AdapterFile
from .gguf_header import BadHeader, read_gguf
from .hf_folder import BadFolder, read_json
from .safetensors_header import BadSafetensors, Tensor, read_safetensors

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MAX_CONFIG = 1 << 20  # bytes
MAX_RANK = 2048
MAX_SCALE = 1000.0  # alpha / rank; usual ones are at most 4
MAX_LAYERS = 100_000
TYPES = ("F32", "F16", "BF16")
GGUF_TYPES = (*TYPES, "Q8_0")
PREFIX = "base_model.model."
_NAME = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_PLAIN = re.compile(r"\^?[\w.]+")
_GGUF_STRING, _GGUF_FLOAT32 = 8, 6
# What of PEFT's configuration does not change what an adapter computes, or is read below.
_READ_OR_HARMLESS = frozenset((
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights",
    "base_model_name_or_path", "target_modules", "auto_mapping", "revision", "task_type", "inference_mode", "lora_dropout",
    "fan_in_fan_out", "layers_to_transform", "layers_pattern", "exclude_modules", "megatron_core", "megatron_config",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size",
    "ensure_weight_tying", "peft_version"))
_HARMLESS_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")


class BadAdapter(Exception):
    """The adapter cannot be used; the message is a sentence with the way out."""


@dataclass(frozen=True)
class Layer:
    """The two matrices of one changed matrix. shape_a: (rank, in), shape_b: (out, rank), experts first where there are some.
    scale: what B·A is multiplied by at weight 1."""

    name: str
    tensor_a: str
    tensor_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    rank: int
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter whose headers are in order. layers by the changed matrix's name; weights: the file with the tensors.
    architecture: GGUF's name of it, "" for PEFT, which does not say."""

    weights: Path
    layers: dict[str, Layer]
    alpha: float
    base: str
    architecture: str = ""

    @property
    def rank(self) -> int:
        return max(layer.rank for layer in self.layers.values())


def read_adapter_file(path: Path, name: str) -> AdapterFile:
    """The adapter at `path` for a list: whatever is broken becomes its problem. Reads headers only."""
    is_gguf = path.is_file() and path.suffix.lower() == ".gguf"
    file = AdapterFile(name, str(path), "gguf" if is_gguf else "safetensors")
    try:
        found = read_gguf_adapter(path) if is_gguf else read_peft_adapter(path)
        return AdapterFile(name, str(path), file.format, found.weights.stat().st_size, found.rank, found.alpha, found.base,
                           len(found.layers))
    except BadAdapter as error:
        return AdapterFile(name, str(path), file.format, problem=str(error))
    except OSError as error:
        return AdapterFile(name, str(path), file.format, problem=f"It cannot be read: {error.strerror or error}.")


def read_peft_adapter(path: Path) -> Adapter:
    """The LoRA in a PEFT folder; raises BadAdapter, or OSError where it cannot be read."""
    if not path.is_dir():
        raise BadAdapter(f"{path.name} is no folder: an adapter is a folder with {CONFIG} and {WEIGHTS}. Put both into one.")
    weights = path / WEIGHTS
    if not weights.is_file():
        if (path / PICKLE).is_file():
            raise BadAdapter(f"Its weights are a pickle file ({PICKLE}), which can run any code when it is opened, so it is not "
                             f"loaded. Get the adapter with {WEIGHTS}, or save it so where that is safe: "
                             "model.save_pretrained(folder, safe_serialization=True).")
        raise BadAdapter(f"{WEIGHTS} is missing in the folder; download it into it.")
    if not (path / CONFIG).is_file():
        raise BadAdapter(f"{CONFIG} is missing beside the weights; download it into the folder.")
    if (path / CONFIG).stat().st_size > MAX_CONFIG:
        raise BadAdapter(f"{CONFIG} has {(path / CONFIG).stat().st_size:,} bytes; real ones have a few hundred.")
    try:
        config = read_json(path / CONFIG)
        tensors = read_safetensors(weights)
    except (BadFolder, BadSafetensors) as error:
        raise BadAdapter(str(error)) from error
    _check_config(config)
    base = config.get("base_model_name_or_path")
    layers = {name: _peft_layer(name, pair, config) for name, pair in _pairs(tensors).items()}
    return Adapter(weights, layers, _number(config, "lora_alpha", 8.0), base[:200] if isinstance(base, str) else "")


def read_gguf_adapter(path: Path) -> Adapter:
    """The LoRA in a GGUF file; raises BadAdapter, or OSError where it cannot be read."""
    try:
        header = read_gguf(path)
    except BadHeader as error:
        raise BadAdapter(f"{path.name}: its header {error}.") from error
    values, kinds = header.values, header.kinds
    for key, kind in (("general.type", _GGUF_STRING), ("general.architecture", _GGUF_STRING), ("adapter.type", _GGUF_STRING),
                      ("adapter.lora.alpha", _GGUF_FLOAT32)):
        if kinds.get(key) != kind:  # llama.cpp ends the process where the type is another one
            raise BadAdapter(f"{path.name}: its header lacks {key}, or gives it as something else; convert the adapter again.")
    if values["general.type"] != "adapter" or values["adapter.type"] != "lora":
        raise BadAdapter(f"{path.name} is a {values['general.type'][:40]!r} of type {values['adapter.type'][:40]!r}; only LoRA "
                         "adapters can be attached.")
    if any(key.startswith("adapter.alora.") for key in values):
        raise BadAdapter(f"{path.name} acts from certain words on only (aLoRA), which is not supported. Get a plain LoRA.")
    if header.tensor_end > path.stat().st_size:
        raise BadAdapter(f"{path.name} is cut off: it has {path.stat().st_size:,} of {header.tensor_end:,} bytes; download it "
                         "again.")
    alpha = float(values["adapter.lora.alpha"])
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, (label, dims) in header.tensors.items():
        layer, _, side = name.rpartition(".lora_")
        if not layer or side not in ("a", "b"):
            raise BadAdapter(f"{path.name} has the tensor {name!r}, which is no part of a LoRA (….lora_a, ….lora_b).")
        if label not in GGUF_TYPES:
            raise BadAdapter(f"{path.name} stores {name!r} as {label}; use one of {', '.join(GGUF_TYPES)}.")
        sides.setdefault(layer, {})[side] = tuple(reversed(dims))
    if not sides:
        raise BadAdapter(f"{path.name} holds no tensors; convert the adapter again.")
    layers = {}
    for layer, pair in sides.items():
        if len(pair) != 2:
            raise BadAdapter(f"{path.name} has one half of the pair for {layer!r}; download it again.")
        rank = _rank(layer, pair["a"], pair["b"])
        scale = alpha / rank if alpha else 1.0
        layers[layer] = Layer(layer, f"{layer}.lora_a", f"{layer}.lora_b", pair["a"], pair["b"], rank, _scale(layer, scale))
    base = values.get("general.base_model.0.name") or values.get("general.basename") or ""
    return Adapter(path, layers, alpha, base[:200] if isinstance(base, str) else "", values["general.architecture"])


def _check_config(config: dict[str, Any]) -> None:
    """Raises BadAdapter for what is no plain LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BadAdapter(f"{CONFIG} describes a {str(kind)[:40]!r}; only LoRA adapters (peft_type LORA) can be attached.")
    if config.get("bias", "none") != "none":
        raise BadAdapter(f"It also trained biases (bias: {str(config['bias'])[:40]!r}); only adapters without can be attached.")
    start = config.get("init_lora_weights")
    if not isinstance(start, str | bool | None) or start not in _HARMLESS_STARTS:
        raise BadAdapter(f"It belongs to changed base weights (init_lora_weights: {str(start)[:40]!r}). Save it converted to a "
                         "plain LoRA (save_pretrained with path_initial_model_for_weight_conversion).")
    odd = sorted(key[:40] for key, value in config.items() if value and key not in _READ_OR_HARMLESS)
    if odd:
        raise BadAdapter(f"It is more than a plain LoRA ({', '.join(odd[:5])}), which cannot be attached. Merge it into its base "
                         "model with PEFT's merge_and_unload, and load that.")


def _pairs(tensors: list[Tensor]) -> dict[str, dict[str, Tensor]]:
    """The two tensors of each changed matrix by its name in the model."""
    if len(tensors) > 2 * MAX_LAYERS:
        raise BadAdapter(f"{WEIGHTS} has {len(tensors):,} tensors; at most {2 * MAX_LAYERS:,} make sense.")
    found: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        match = _NAME.fullmatch(tensor.name)
        if match is None:
            raise BadAdapter(f"{WEIGHTS} has the tensor {tensor.name[:120]!r}, which is no part of a plain LoRA "
                             "(….lora_A.weight, ….lora_B.weight). Merge the adapter into its base model with PEFT, and load "
                             "that.")
        if tensor.dtype not in TYPES:
            raise BadAdapter(f"{WEIGHTS} stores {tensor.name[:120]!r} as {tensor.dtype}; use one of {', '.join(TYPES)}.")
        found.setdefault(match["layer"].removeprefix(PREFIX), {})[match["side"]] = tensor
    if not found:
        raise BadAdapter(f"{WEIGHTS} holds no tensors; download it again.")
    lonely = next((name for name, pair in found.items() if len(pair) != 2), None)
    if lonely is not None:
        raise BadAdapter(f"{WEIGHTS} has one half of the pair for {lonely[:120]!r}; download it again.")
    return found


def _peft_layer(name: str, pair: dict[str, Tensor], config: dict[str, Any]) -> Layer:
    a, b = pair["A"], pair["B"]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise BadAdapter(f"{name[:120]!r} has tensors of {len(a.shape)} and {len(b.shape)} dimensions; a LoRA's have two.")
    rank = _rank(name, a.shape, b.shape)
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(isinstance(key, str) and _PLAIN.fullmatch(key) for key in patterns):
        raise BadAdapter(f"alpha_pattern in {CONFIG} is no object of plain names; such adapters cannot be attached.")
    alpha = _number(config, "lora_alpha", 8.0)
    for pattern in patterns:  # the first that fits, as PEFT takes them
        plain = pattern.removeprefix("^")
        if name == plain or (plain == pattern and name.endswith(f".{plain}")):
            alpha = _number(patterns, pattern, 8.0)
            break
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Layer(name, a.name, b.name, a.shape, b.shape, rank, _scale(name, scale))


def _rank(layer: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> int:
    """The rank that both agree on: A's last but one, B's last."""
    if len(shape_a) not in (2, 3) or len(shape_a) != len(shape_b) or shape_a[:-2] != shape_b[:-2] or shape_a[-2] != shape_b[-1]:
        raise BadAdapter(f"The two tensors for {layer[:120]!r} do not belong together: they have the shapes {list(shape_a)} and "
                         f"{list(shape_b)}. Download the adapter again.")
    rank = shape_a[-2]
    if not 1 <= rank <= MAX_RANK:
        raise BadAdapter(f"{layer[:120]!r} has the rank {rank}; ranks from 1 to {MAX_RANK} can be attached.")
    return rank


def _scale(layer: str, scale: float) -> float:
    if not math.isfinite(scale) or abs(scale) > MAX_SCALE:
        raise BadAdapter(f"{layer[:120]!r} has the scale {scale:g} (alpha over rank); at most {MAX_SCALE:g} makes sense.")
    return scale


def _number(values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise BadAdapter(f"{key[:40]} is {str(value)[:40]!r} in {CONFIG}; it must be a number.")
    return float(value)
