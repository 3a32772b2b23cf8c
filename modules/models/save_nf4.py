"""A Hugging Face folder written anew with its matrices in bitsandbytes' nf4; in a process of its own, for it loads the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..core.errors import LoadFailed
from .quantize import UNFINISHED

KIND = "nf4"
MAX_FILE_BYTES = 64 << 20
# What belongs to the tokenizer and to the way of talking; weights and configuration are written by Transformers.
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json", "LICENSE", "LICENSE.txt")


def is_possible() -> bool:
    """Whether the packages are here."""
    return all(find_spec(name) is not None for name in ("torch", "transformers", "bitsandbytes"))


def save(folder: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Write the folder `target`, which appears under its name only when complete. Raises LoadFailed where it cannot.

    The scales are quantized too, and the weights are saved before the model computes anything: else bitsandbytes reads them back
    wrongly on some processors.
    """
    if not is_possible():
        raise LoadFailed("This needs PyTorch, Transformers and bitsandbytes. Run: pip install -r requirements.txt")
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    progress(0, 2)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.bfloat16)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.bfloat16,
            quantization_config=config, device_map={"": "cpu"}, output_loading_info=True)
    except (OSError, ValueError, KeyError) as error:
        raise LoadFailed(f"{folder.name} cannot be loaded: {error}") from error
    if found["missing_keys"]:
        raise LoadFailed(f"The weights in {folder.name} lack {sorted(found['missing_keys'])[0]} or more; fetch them again.")
    progress(1, 2)
    partial = target.with_name(f".{target.name}{UNFINISHED}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        for name in COPIED:
            source = folder / name
            if source.is_file() and source.stat().st_size <= MAX_FILE_BYTES:
                shutil.copyfile(source, partial / name)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
