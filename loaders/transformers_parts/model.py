"""Reads a checkpoint into a model: local safetensors only, never the checkpoint's own code, with progress and plain errors."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
from collections.abc import Iterator
from typing import Any

from modules.core.errors import AppError, Cancelled, LoadFailed, OutOfMemory
from modules.core.loader import Progress
from modules.core.number_format import number_format

from .checkpoint import Checkpoint
from .placement import Placement

GENERATION_NEEDS = ("input_ids", "past_key_values")
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory")


def translate(error: Exception) -> AppError | None:
    """The AppError that this exception of torch or Transformers means, or None where it is no known one."""
    import torch

    if isinstance(error, AppError):
        return error
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS))
    if is_memory:
        return OutOfMemory("Memory ran out. Load the model with a shorter context, fewer slots or 4-bit quantization, or end "
                           f"other programs. ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    return None


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within it the Hub's library asks the network for nothing, whatever a checkpoint names."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    before_env = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if before_env is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before_env


@contextlib.contextmanager
def weight_progress(progress: Progress, low: float, high: float) -> Iterator[None]:
    """Within it every tensor that Transformers sets is reported, from `low` to `high`; Cancelled raised there ends the load."""
    from transformers.utils import logging

    class Bar:
        def __init__(self, items: Any) -> None:
            self.items, self.total = items, max(len(items), 1)

        def __iter__(self) -> Iterator[Any]:
            for done, item in enumerate(self.items):
                progress(low + (high - low) * done / self.total, f"Loading weights, {done} of {self.total}")
                yield item

    def hook(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = args[0] if args else kwargs.get("iterable")
        return Bar(items) if hasattr(items, "__len__") else factory(*args, **{**kwargs, "disable": True})

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def choose_device(wanted: str) -> str:
    """cuda, mps or cpu; raises LoadFailed where the wanted one is not there."""
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if found[name])
    if not found[wanted]:
        raise LoadFailed(f"This PyTorch ({torch.__version__}) finds no {wanted} device. Choose device cpu or auto, or install a "
                         "PyTorch build for the device.", param="device")
    return wanted


def choose_dtype(wanted: str, checkpoint: Checkpoint, config: Any, device: str) -> Any:
    """The torch dtype of weights and KV cache, as core.number_format has it."""
    import torch

    own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or torch.float32
    found = number_format(wanted, str(own).removeprefix("torch."), n_params=checkpoint.weight_bytes // 2,
                          is_on_cpu=device == "cpu",
                          computes_bfloat16=torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return getattr(torch, found)


def quantization_config(kind: str, compute_dtype: Any, checkpoint: Checkpoint) -> Any | None:
    """What bitsandbytes or torchao is told, or None for 'none'."""
    if kind == "none":
        return None
    if checkpoint.quantization:
        raise LoadFailed(f"This model is already quantized ({checkpoint.quantization}); load it with quantization none.",
                         param="quantization")
    package = "torchao" if kind == "int8" else "bitsandbytes"
    if importlib.util.find_spec(package) is None:
        raise LoadFailed(f"{kind} needs {package}: run pip install {package}, or load with quantization none.",
                         param="quantization")
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    # Always double quantization: without it bitsandbytes 0.50 corrupts the weights on AVX512-BF16 CPUs when they are read back.
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=compute_dtype)


def load_config(checkpoint: Checkpoint) -> Any:
    """The model's configuration; raises LoadFailed for an architecture that needs code of its own, or that nobody knows."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(checkpoint.config.get("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in checkpoint.config:
            raise LoadFailed(f"This model ({model_type or 'of no known type'}) needs Python code from its own folder (auto_map), "
                             "which is never run. Use a GGUF version, or a model whose architecture Transformers has built in.")
        raise LoadFailed(f"Transformers does not know the architecture {model_type!r}. Use a GGUF version of the model, or a "
                         "newer Transformers.")
    return AutoConfig.from_pretrained(str(checkpoint.folder), local_files_only=True, trust_remote_code=False)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(checkpoint.folder), local_files_only=True, trust_remote_code=False, use_fast=True)


def load_weights(checkpoint: Checkpoint, config: Any, options: dict[str, Any], dtype: Any, device: str,
                 placement: Placement) -> Any:
    """The model in inference mode where `placement` has it; raises LoadFailed where the checkpoint lacks some of its weights."""
    from transformers import AutoModelForCausalLM

    quantization = quantization_config(options["quantization"], _compute_dtype(options, dtype), checkpoint)
    attention = None if options["attention"] == "auto" else options["attention"]
    model, found = AutoModelForCausalLM.from_pretrained(
        str(checkpoint.folder), config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype,
        attn_implementation=attention, output_loading_info=True, **placement.arguments,
        **({"quantization_config": quantization} if quantization is not None else {}))
    missing = sorted(found["missing_keys"])
    if missing:
        # Transformers would go on with random numbers in their place.
        raise LoadFailed(f"The weights lack {len(missing)} tensors that the architecture needs, the first is {missing[0]}. The "
                         "download is incomplete, or config.json belongs to another model.")
    model.eval()
    parameters = inspect.signature(model.forward).parameters
    if not all(name in parameters for name in GENERATION_NEEDS):
        raise LoadFailed(f"{type(model).__name__} keeps its state in a way this loader does not handle. Use a GGUF version.")
    return model


def _compute_dtype(options: dict[str, Any], dtype: Any) -> Any:
    import torch

    return dtype if options["compute_dtype"] == "auto" else getattr(torch, options["compute_dtype"])


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turns what the libraries raise while loading into LoadFailed or OutOfMemory, in their own words."""
    try:
        yield
    except (AppError, Cancelled):
        raise
    except Exception as error:
        known = translate(error)
        if known is not None:
            raise known from error
        words = " ".join(str(error).split())
        raise LoadFailed(f"{what} could not be loaded: {words[:600] or type(error).__name__}. Check that the folder is a "
                         "complete download, or try a GGUF version of the model.",
                         log=f"{type(error).__name__}: {error}"[-4000:]) from error
