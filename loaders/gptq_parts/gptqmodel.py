"""GPTQ and AWQ through GPTQModel: its CUDA kernels, and widths other than 4 bits."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from modules.core.errors import LoadFailed

from ..transformers_parts.checkpoint import Checkpoint

INSTALL = "pip install -r requirements-gptq.txt"


def is_installed() -> bool:
    """Whether it can be imported; looks without importing it, which takes seven seconds."""
    return importlib.util.find_spec("gptqmodel") is not None


def build(checkpoint: Checkpoint, config: Any, dtype: Any, device: str, what: str) -> Any:
    """The model in inference mode on its device; `what` names what needs GPTQModel. Raises LoadFailed."""
    if not is_installed():
        raise LoadFailed(f"{what} needs GPTQModel, which is not installed: run {INSTALL}. Or load with kernel dense, which "
                         "unpacks the weights and takes as much memory as the model before it was quantized.", param="kernel")
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it asks its pool of one worker for two
    if checkpoint.packing["quant_method"] == "gptq" and not checkpoint.packing.get("sym", True):
        return _asymmetric(checkpoint, config, dtype, device)
    from gptqmodel import GPTQModel

    wrapped = GPTQModel.load(str(checkpoint.folder), device=device, dtype=dtype, trust_remote_code=False)
    model = wrapped.model
    model.requires_grad_(False).eval()
    return model


def _asymmetric(checkpoint: Checkpoint, config: Any, dtype: Any, device: str) -> Any:
    """Its own entry refuses asymmetric weights that it has not packed; Transformers' way to the same kernels takes them."""
    from transformers import AutoModelForCausalLM

    if not _has_group_indices(checkpoint):
        raise LoadFailed("The checkpoint is asymmetric and has no g_idx tensors, which GPTQModel cannot load. Choose kernel int4 "
                         "or dense, with device cpu.", param="kernel")
    config.quantization_config = dict(checkpoint.packing)
    if checkpoint.files != ("model.safetensors",) and len(checkpoint.files) == 1:
        config.transformers_weights = checkpoint.files[0]
    model = AutoModelForCausalLM.from_pretrained(
        str(checkpoint.folder), config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype,
        device_map={"": device})
    model.requires_grad_(False).eval()
    return model


def _has_group_indices(checkpoint: Checkpoint) -> bool:
    from safetensors import safe_open

    with safe_open(checkpoint.folder / checkpoint.files[0], "np") as file:
        return any(name.endswith(".g_idx") for name in file.keys())  # noqa: SIM118 - it is no dict
