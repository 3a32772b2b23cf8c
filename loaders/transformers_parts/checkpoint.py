"""A model folder looked at before any library reads it: what is missing, unsafe or not ours is refused with the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.core.errors import LoadFailed

MAX_JSON_BYTES = {"config.json": 8 << 20, "generation_config.json": 1 << 20, "tokenizer_config.json": 32 << 20,
                  "tokenizer.json": 512 << 20, "special_tokens_map.json": 8 << 20, "chat_template.jinja": 4 << 20,
                  "chat_template.json": 4 << 20, "model.safetensors.index.json": 256 << 20, "vocab.json": 256 << 20,
                  "merges.txt": 256 << 20, "tokenizer.model": 512 << 20, "added_tokens.json": 32 << 20}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A folder that may be loaded. config: config.json as it stands. files: names of its safetensors files; weight_bytes: their
    size.

    packing: how the weights of a GPTQ or AWQ checkpoint are packed, from whichever file says it; empty for other checkpoints.
    """

    folder: Path
    config: dict[str, Any]
    files: tuple[str, ...]
    weight_bytes: int
    packing: dict[str, Any]

    @property
    def quantization(self) -> str:
        """The method the weights are already quantized with, or ""."""
        return str((self.config.get("quantization_config") or {}).get("quant_method", ""))


def inspect(path: str, *, packed: bool = False) -> Checkpoint:
    """The checkpoint in this folder; raises LoadFailed saying what is wrong with it and what to do.

    packed: whether the caller loads GPTQ and AWQ checkpoints, and nothing else; their one weight file may have any name.
    """
    folder = Path(path)
    folder = folder.parent if folder.suffix == ".safetensors" and folder.is_file() else folder
    if not folder.is_dir():
        raise LoadFailed(f"{path} is not a folder. Transformers models are folders with config.json and .safetensors files.")
    for name, limit in MAX_JSON_BYTES.items():
        file = folder / name
        if file.is_file() and file.stat().st_size > limit:
            raise LoadFailed(f"{name} has {file.stat().st_size} bytes, over the limit of {limit}; this is no usual model folder.")
    config = _read_object(folder / "config.json", "Copy the whole model folder, or download it again.")
    packing = _packing(folder, config)
    if packing and not packed:
        raise LoadFailed(f"This is a {packing['quant_method'].upper()} checkpoint; load it with the GPTQ loader.")
    if packed and not packing:
        raise LoadFailed("Nothing says how these weights are packed: there is no quantization_config in config.json and no "
                         "quantize_config.json. Get it from where the model came from; unpacked models load with Transformers.")
    if (folder / "adapter_config.json").is_file() and "model_type" not in config:
        raise LoadFailed("This is an adapter, not a model: load its base model first, then attach it.")
    files = _weight_files(folder, any_name=packed)
    return Checkpoint(folder, config, tuple(files), sum((folder / name).stat().st_size for name in files), packing)


def _read_object(file: Path, way_out: str) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LoadFailed(f"{file.name} is missing in {file.parent}. {way_out}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LoadFailed(f"{file.name} cannot be read ({error}). {way_out}") from error
    if not isinstance(body, dict):
        raise LoadFailed(f"{file.name} holds no JSON object. {way_out}")
    return body


def _packing(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The description of a GPTQ or AWQ checkpoint's packing with quant_method in lower case, or {}.

    quantize_config.json is AutoGPTQ's, quant_config.json AutoAWQ's; newer ones say it in config.json.
    """
    inside = config.get("quantization_config")
    if inside is not None and not isinstance(inside, dict):
        raise LoadFailed("quantization_config in config.json is no object; download the model again.")
    method = str((inside or {}).get("quant_method", "")).lower()
    if method in ("gptq", "awq"):
        return {**(inside or {}), "quant_method": method}
    for name, its_method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
        if (folder / name).is_file():
            return {**_read_object(folder / name, "Download it again."), "quant_method": its_method}
    return {}


def _weight_files(folder: Path, *, any_name: bool) -> list[str]:
    """Names of the weight files; raises LoadFailed where they are missing, incomplete, or only there as pickle."""
    if (folder / INDEX).is_file():
        names = _indexed_names(folder)
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise LoadFailed(f"{len(absent)} of {len(names)} weight files are missing, the first is {absent[0]}. Download them "
                             "into the folder and load again.")
        return names
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    others = [name for name in files if name.endswith(".safetensors") and not name.startswith("adapter_")]
    if "model.safetensors" in others:
        return ["model.safetensors"]
    if any_name and len(others) == 1:
        return others
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles and not others:
        raise LoadFailed(f"{folder.name} has its weights as pickle ({pickles[0]}), which can run code when opened, so it is "
                         "refused. Take the model's safetensors version, or convert it on a machine where you trust it: "
                         "AutoModelForCausalLM.from_pretrained(old).save_pretrained(new).")
    if others:
        raise LoadFailed(f"{folder.name} has {', '.join(others[:3])} but no model.safetensors and no {INDEX}. Rename a single "
                         "file to model.safetensors, or download the index of a split one.")
    raise LoadFailed(f"{folder.name} has no .safetensors file. Download the model's weights into it.")


def _indexed_names(folder: Path) -> list[str]:
    """Names of the weight files in the index, all of them plain names inside the folder."""
    weight_map = _read_object(folder / INDEX, "Download it again.").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LoadFailed(f"{INDEX} has no weight_map; download it again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise LoadFailed(f"{INDEX} names {name!r}, which is not a .safetensors file in the folder. Do not use this model.")
    return names
