"""Reads what a Hugging Face model folder holds: config, weights' headers, quantization, template; or an adapter."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.loader import FileFormat, ModelFile
from .safetensors_header import BadSafetensors, Tensor, read_safetensors

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
PICKLE_PROBLEM = ("These are pickle files, which can run any code when they are opened, so they are not loaded. Get the model as "
                  "safetensors or GGUF, or convert it on a machine where that is safe.")
MAX_JSON = 32 << 20   # bytes
MAX_FILES = 1000      # weight files of a folder
INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tokenizer_config.json")
_IN_A_LAYER = re.compile(r"\.\d+\.")  # a tensor whose name has a layer's number
_FORMATS: dict[str, FileFormat] = {"gptq": "gptq", "awq": "awq", "exl2": "exl2", "exl3": "exl3"}
DESCRIBED_APART: dict[str, str] = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # by AutoGPTQ, by AutoAWQ
_NAMES = {"fp8": "FP8", "gptq": "GPTQ", "awq": "AWQ", "exl2": "EXL2", "exl3": "EXL3"}


class BadFolder(Exception):
    """The folder cannot be used; the message is a sentence."""


def read_folder(path: Path, name: str) -> ModelFile:
    """The model in a folder; its problem says what is missing or broken. Raises OSError where it cannot be read."""
    file = ModelFile(name, str(path), "unknown")
    try:
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        weights = weight_files(path, names)
        if not weights:
            pickled = [n for n in names if n.lower().endswith(PICKLE_SUFFIXES) and "training" not in n]
            if pickled:
                size = sum((path / n).stat().st_size for n in pickled)
                return replace(file, format="pickle", size_bytes=size, problem=PICKLE_PROBLEM)
            raise BadFolder("The folder holds no weights; download its *.safetensors files into it.")
        file = replace(file, format="safetensors", size_bytes=sum((path / n).stat().st_size for n in weights))
        if "config.json" not in names:
            raise BadFolder("config.json is missing beside the weights; download the whole folder.")
        config = read_json(path / "config.json")
        file = replace(file, **_facts(config), chat_template=read_template(path, names))
        tensors = [tensor for n in weights for tensor in read_safetensors(path / n)]
        quantized = config.get("quantization_config")
        for described, method in DESCRIBED_APART.items():
            if not isinstance(quantized, dict) and described in names:
                quantized = {**read_json(path / described), "quant_method": method}
        file = replace(file, **_quantization(quantized if isinstance(quantized, dict) else {}, tensors))
        return replace(file, problem=_problem(file, names, tensors, isinstance(quantized, dict)))
    except (BadFolder, BadSafetensors) as error:
        return replace(file, problem=str(error))


def read_adapter(path: Path, name: str) -> ModelFile:
    """A PEFT adapter's folder."""
    size = sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file())
    file = ModelFile(name, str(path), "adapter", size)
    try:
        base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
    except BadFolder as error:
        return replace(file, problem=str(error))
    made_for = f" ({base[:200]})" if isinstance(base, str) and base else ""
    return replace(file, problem=f"This is a LoRA adapter, not a model; load the model that it was made for{made_for}.")


def read_loose_safetensors(path: Path, name: str) -> ModelFile:
    """A safetensors file chosen by itself: it needs its folder."""
    file = ModelFile(name, str(path), "safetensors", path.stat().st_size)
    try:
        tensors = read_safetensors(path)
    except BadSafetensors as error:
        return replace(file, problem=str(error))
    file = replace(file, n_params=sum(t.n for t in tensors), quantization=_stored_as(tensors))
    if (path.parent / "config.json").is_file():
        return replace(file, problem="Choose the folder that this file is in, not the file.")
    return replace(file, problem="A safetensors file needs its config.json and tokenizer beside it; download the whole folder.")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises BadFolder where it is too large, broken or no object."""
    with path.open("rb") as file:
        raw = file.read(MAX_JSON + 1)
    if len(raw) > MAX_JSON:
        raise BadFolder(f"{path.name} is larger than {MAX_JSON >> 20} MB.")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadFolder(f"{path.name} is no JSON: {str(error)[:100]}; download it again.") from error
    if not isinstance(value, dict):
        raise BadFolder(f"{path.name} is no JSON object; download it again.")
    return value


def weight_files(path: Path, names: list[str]) -> list[str]:
    """The safetensors files to load: those of the index, else all; raises BadFolder where one is missing."""
    found = [n for n in names if n.lower().endswith(".safetensors") and not n.startswith("adapter_")]
    if len(found) > MAX_FILES:
        raise BadFolder(f"The folder holds {len(found)} safetensors files; at most {MAX_FILES} make sense.")
    if INDEX not in names or "model.safetensors" in found:
        return ["model.safetensors"] if "model.safetensors" in found else found
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFolder(f"{INDEX} has no weight_map; download it again.")
    wanted = sorted({str(n) for n in weight_map.values()})
    odd = [n for n in wanted if n != Path(n).name or "\\" in n or not n.endswith(".safetensors")]
    if odd:
        raise BadFolder(f"{INDEX} names {odd[0][:80]!r}, which is no safetensors file in this folder.")
    missing = [n for n in wanted if n not in names]
    if missing:
        raise BadFolder(f"{len(missing)} of {len(wanted)} weight files are missing: {', '.join(missing[:5])}"
                        f"{' and more' if len(missing) > 5 else ''}. Download them into the folder.")
    return wanted


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """ModelFile's fields from a config; those of its text part where it has several."""
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config

    def number(*keys: str) -> int:
        found = (text.get(key) for key in keys)
        return next((v for v in found if isinstance(v, int) and not isinstance(v, bool) and 0 < v < 1 << 40), 0)

    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type", "")
    heads = number("num_attention_heads", "n_head")
    hidden = number("hidden_size", "n_embd", "d_model")
    return {"architecture": named if isinstance(named, str) else "",
            "trained_context": number("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
            "layers": number("num_hidden_layers", "n_layer", "num_layers"),
            "kv_heads": number("num_key_value_heads", "num_kv_heads") or heads,
            "heads": heads, "hidden_size": hidden, "feed_forward": number("intermediate_size", "n_inner", "ffn_dim"),
            "head_dim": number("head_dim") or (hidden // heads if heads else 0)}


def read_template(path: Path, names: list[str]) -> str:
    """The chat template, from its own file or from the tokenizer's configuration."""
    if "chat_template.jinja" in names:
        with (path / "chat_template.jinja").open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    for source in ("tokenizer_config.json", "chat_template.json"):
        found = read_json(path / source).get("chat_template") if source in names else None
        if isinstance(found, list):
            named = {str(item.get("name")): item.get("template") for item in found if isinstance(item, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        if isinstance(found, str):
            return found
    return ""


def _quantization(config: Mapping[str, Any], tensors: list[Tensor]) -> dict[str, Any]:
    """format, quantization, n_params and n_outside: packed weights count as the weights they stand for."""
    method = str(config.get("quant_method", "")).lower()
    bits = config.get("bits", config.get("w_bit"))
    if config.get("load_in_4bit") or config.get("_load_in_4bit"):
        method, bits = "bnb", 4
    elif config.get("load_in_8bit") or config.get("_load_in_8bit"):
        method, bits = "bnb", 8
    bits = bits if isinstance(bits, (int, float)) and not isinstance(bits, bool) and 1 <= bits <= 16 else 0
    group = config.get("group_size", config.get("q_group_size"))
    name = " ".join(part for part in (_NAMES.get(method, method), f"{bits:g}-bit" if bits else "",
                                      f"g{group}" if isinstance(group, int) and group > 0 else "") if part)
    return {"format": _FORMATS.get(method, "safetensors"), "quantization": name[:40] or _stored_as(tensors),
            "n_params": sum(_weights(tensor, bits) for tensor in tensors),
            "n_outside": sum(_weights(tensor, bits) for tensor in tensors if not _IN_A_LAYER.search(tensor.name))}


def _weights(tensor: Tensor, bits: float) -> int:
    last = tensor.name.rsplit(".", 1)[-1]
    if last == "qweight" and bits:
        return int(tensor.n * 32 / bits)
    if last in ("qzeros", "scales", "g_idx", "absmax", "quant_map", "nested_absmax", "nested_quant_map", "SCB", "weight_format") \
            or ".quant_state." in tensor.name:
        return 0
    return int(tensor.n * 8 / bits) if bits and tensor.dtype == "U8" else tensor.n


def _stored_as(tensors: list[Tensor]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.n
    return sizes.most_common(1)[0][0] if sizes else ""


def _problem(file: ModelFile, names: list[str], tensors: list[Tensor], is_quantized: bool) -> str:
    if any(tensor.name.endswith(".qweight") for tensor in tensors) and not is_quantized:
        return ("Its weights are packed (qweight), but nothing says how: quantize_config.json, or quantization_config in "
                "config.json, is missing. Get it from where the model came from.")
    if not any(n in names for n in _TOKENIZERS):
        return "Its tokenizer is missing (tokenizer.json or tokenizer.model); download the whole folder."
    if not file.architecture:
        return "config.json does not say which architecture it is; download it again."
    return ""
