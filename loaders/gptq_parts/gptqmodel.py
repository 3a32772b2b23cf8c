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


def build(checkpoint: Checkpoint, dtype: Any, device: str, what: str) -> Any:
    """The model in inference mode on its device; `what` names what needs GPTQModel. Raises LoadFailed."""
    if not is_installed():
        raise LoadFailed(f"{what} needs GPTQModel, which is not installed: run {INSTALL}. Or load with kernel dense, which "
                         "unpacks the weights and takes as much memory as the model before it was quantized.", param="kernel")
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it asks its pool of one worker for two
    from gptqmodel import GPTQModel

    wrapped = GPTQModel.load(str(checkpoint.folder), device=device, dtype=dtype, trust_remote_code=False)
    model = wrapped.model
    model.requires_grad_(False).eval()
    return model
