"""Safetensors folders through Hugging Face Transformers, with bitsandbytes 8-bit and 4-bit, on CPU, CUDA or Metal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules.core.knobs import knobs_of, setting
from modules.core.loader import Loader, LoaderSpec, ModelFile, Progress
from modules.sampling.chain import HONOURED

from .transformers_parts.facts import FEATURES, USUAL_CONTEXT, describe


@dataclass(frozen=True)
class Options:
    context: int = setting("int", 0, "Context", "Tokens of prompt and reply together; 0 is what the model was trained for, at "
                           f"most {USUAL_CONTEXT}.", minimum=0, maximum=2**24)
    slots: int = setting("int", 4, "Slots", "How many replies are written at once; each keeps a KV cache of its own.", minimum=1,
                         maximum=64)
    device: str = setting("choice", "auto", "Device", "Where the model runs; auto takes a GPU where there is one.",
                          choices=("auto", "cuda", "mps", "cpu"))
    dtype: str = setting("choice", "auto", "Number format", "Of weights and KV cache. auto: the checkpoint's own on a GPU; on a "
                         "CPU float32, or bfloat16 for larger half-precision models where the CPU computes in it.",
                         choices=("auto", "float32", "bfloat16", "float16"))
    quantization: str = setting("choice", "none", "Quantization", "Shrinks the weights while loading, with bitsandbytes: 4bit is "
                                "nf4 with double quantization.", choices=("none", "8bit", "4bit"))
    compute_dtype: str = setting("choice", "auto", "4-bit number format", "In which 4-bit weights are computed; auto is the "
                                 "number format.", choices=("auto", "float32", "bfloat16", "float16"))
    attention: str = setting("choice", "auto", "Attention", "The attention kernel; flash_attention_2 needs the flash-attn "
                             "package and a GPU.", choices=("auto", "sdpa", "eager", "flash_attention_2"))
    threads: int = setting("int", 0, "Threads", "CPU threads; 0 is PyTorch's choice, the physical cores.", minimum=0,
                           maximum=1024)


def accepts(file: ModelFile) -> float:
    return 1.0 if file.format == "safetensors" else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> Loader:
    """The model in this folder, ready to run; raises LoadFailed or OutOfMemory, and lets Cancelled through."""
    from .transformers_parts import checkpoint as checkpoints

    checkpoint = checkpoints.inspect(path)
    progress(0.01, "Starting PyTorch and Transformers")
    from .transformers_parts import model as models
    from .transformers_parts.forward import Forward
    from .transformers_parts.runs import TransformersLoader
    from .transformers_parts.text import TokenText

    name = checkpoint.folder.name
    with models.plain_errors(name), models.offline():
        import torch

        if options["threads"]:
            torch.set_num_threads(options["threads"])
        device = models.choose_device(options["device"])
        config = models.load_config(checkpoint)
        dtype = models.choose_dtype(options["dtype"], checkpoint, config, device)
        progress(0.05, "Reading the tokenizer")
        tokenizer = models.load_tokenizer(checkpoint)
        with models.weight_progress(progress, 0.08, 0.95):
            model = models.load_weights(checkpoint, config, options, dtype, device)
        progress(0.95, "Trying a forward pass")
        forward = Forward(model, device)
        vocab_size = len(forward.last_row([0], 0, forward.new_cache()))
        text = TokenText(tokenizer, vocab_size)
        chosen = {**options, "device": device, "dtype": str(dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
                  "attention": model.config._attn_implementation or options["attention"]}
        if options["quantization"] == "none" and checkpoint.quantization:
            chosen["quantization"] = checkpoint.quantization
        facts = describe(tokenizer, text, forward, chosen, vocab_size)
    progress(1.0, "Ready")
    return TransformersLoader(forward, text, facts)


SPEC = LoaderSpec(
    name="transformers", title="Transformers", accepts=accepts, load=load, requires=("torch", "transformers", "accelerate"),
    install="pip install -r requirements.txt", options=knobs_of(Options), params=HONOURED,
    features=FEATURES)
