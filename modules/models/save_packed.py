"""A Hugging Face folder saved with 4-bit weights: by bitsandbytes (nf4), or by GPTQModel. Belongs in a child process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import LoadFailed
from .targets import GPTQ_GROUP
from .weights import sources

Told = Callable[[int, int, str], None]
# What belongs to a model beside its weights and config, and is the same whatever its weights are.
BESIDE = ("tokenizer*.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
          "generation_config.json", "chat_template*", "preprocessor_config.json", "LICENSE*", "NOTICE*")
CHECKED_TOKENS = 32
LARGEST_DIFFERENCE = 0.05  # of the logits' own deviation: what is saved and read again computes the same but for rounding
TEXTS = 128
TEXT_TOKENS = 512


def save_bnb(source: Path, target: Path, told: Told) -> None:
    """nf4 with double quantization, and the check that what was saved computes what was quantized. Raises LoadFailed.

    Without double quantization bitsandbytes 0.50 saves other weights than it computed with, once a model has run on a CPU with
    AVX512-BF16; with it, and saved before the first forward, both are the same.
    """
    import torch
    import transformers

    told(0, 4, "Reading and quantizing the weights")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                             bnb_4bit_compute_dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"device_map": device, "local_files_only": True, "trust_remote_code": False}
    with torch.inference_mode():
        model = transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype="auto", **options)
        told(1, 4, "Writing the weights")
        model.save_pretrained(target)
        copy_beside(source, target)
        told(2, 4, "Computing with them")
        expected = _logits(model)
        del model
        told(3, 4, "Reading what was written")
        again = transformers.AutoModelForCausalLM.from_pretrained(target, dtype="auto", **options)
        found = _logits(again)
    apart = float((expected - found).abs().max()) / max(float(expected.std()), 1e-6)
    if not apart <= LARGEST_DIFFERENCE:  # also where it is not a number
        raise LoadFailed(f"What was saved computes something else than what was quantized (by {apart:.2f} deviations), so it was "
                         "not kept. Please report this with the versions of torch and bitsandbytes.")
    told(4, 4, "Done")


def _logits(model: Any) -> Any:
    import torch
    n = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(7, 7 + CHECKED_TOKENS * 13, 13).remainder(n)[None].to(model.device)
    return model(ids).logits.float().cpu()


def save_gptq(source: Path, target: Path, texts: list[str], told: Told) -> None:
    """GPTQ with 4 bits in groups of 128, calibrated on `texts`, by GPTQModel. Raises LoadFailed."""
    # Its pool of loaders wants two workers, also on a machine where it counts one.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    told(0, 3, "Reading the model")
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    samples = []
    for text in texts[:TEXTS]:
        found = tokenizer(text, truncation=True, max_length=TEXT_TOKENS)
        if len(found["input_ids"]) >= 16:
            samples.append({"input_ids": list(found["input_ids"]), "attention_mask": list(found["attention_mask"])})
    if not samples:
        raise LoadFailed("The texts to calibrate with are too short: each must have at least 16 tokens.")
    offload = target.parent / "offload"  # what it puts on the disk meanwhile goes with the folder, also where it is killed
    config = QuantizeConfig(bits=4, group_size=group_size(source), offload_to_disk_path=str(offload))
    model = GPTQModel.load(str(source), config, trust_remote_code=False)
    told(1, 3, f"Quantizing layer after layer with {len(samples)} texts; this takes long")
    model.quantize(samples, batch_size=1)
    told(2, 3, "Writing the weights")
    model.save(str(target))
    copy_beside(source, target)
    _forget_place(target)
    told(3, 3, "Done")


def group_size(source: Path) -> int:
    """128, or the half or quarter where rows of the layers do not divide by it; -1, a scale for each row, where none does."""
    rows = {tensor.shape[-1] for tensor in sources(source) if len(tensor.shape) == 2 and ".layers." in tensor.name}
    return next((size for size in (GPTQ_GROUP, 64, 32) if all(row % size == 0 for row in rows)), -1)


def _forget_place(target: Path) -> None:
    """GPTQModel writes down where it put things meanwhile, and a log of its losses: neither belongs to the model."""
    (target / "quant_log.csv").unlink(missing_ok=True)
    for name in ("config.json", "quantize_config.json"):
        path = target / name
        if path.is_file():
            body = json.loads(path.read_text("utf-8"))
            for part in (body, body.get("quantization_config", {})):
                part.get("meta", {}).pop("offload_to_disk_path", None)
            path.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


def copy_beside(source: Path, target: Path) -> None:
    """The tokenizer and the rest; what is there already stays, and links are followed only to files."""
    for pattern in BESIDE:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not (target / path.name).exists():
                shutil.copyfile(path, target / path.name)
