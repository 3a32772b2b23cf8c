"""How a GGUF model may be loaded: the options, and what they mean on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from modules.core.errors import LoadFailed
from modules.core.knobs import setting

from .context import ALIGNMENT, FLASH_ATTENTION, KV_TYPES, QUANTIZED, Settings
from .library import physical_cores

DEFAULT_CONTEXT = 16_384


@dataclass(frozen=True)
class Options:
    """One field declares one option."""

    context: int = setting(
        "int", 0, "Context", "Tokens of prompt and reply, shared by all replies and rounded up to 256; 0 is what the model was "
        "trained for, at most 16,384.", minimum=0, maximum=2**22, step=256)
    slots: int = setting("int", 4, "Slots", "How many replies are written at once; others wait.", minimum=1, maximum=64)
    gpu_layers: int = setting(
        "int", -1, "GPU layers", "Layers kept on the GPU, where llama.cpp was built for one; -1 is all.", minimum=-1,
        maximum=1000)
    threads: int = setting(
        "int", 0, "Threads", "Processor threads for writing; 0 is one for each physical core.", minimum=0, maximum=512)
    threads_batch: int = setting(
        "int", 0, "Threads for prompts", "Processor threads for reading prompts; 0 is as many as for writing.", minimum=0,
        maximum=512)
    batch: int = setting("int", 2048, "Batch", "Most prompt tokens in one step.", minimum=32, maximum=65_536)
    ubatch: int = setting(
        "int", 512, "Micro-batch", "Prompt tokens computed at once; more is faster on a GPU and takes memory.", minimum=32,
        maximum=65_536)
    kv_type_k: str = setting(
        "choice", "f16", "KV type of keys", "How the context's keys are stored; q8_0 takes half of f16's memory, q4_0 a quarter "
        "at some loss.", choices=tuple(KV_TYPES))
    kv_type_v: str = setting(
        "choice", "f16", "KV type of values", "The same for values; quantized ones need flash attention.",
        choices=tuple(KV_TYPES))
    flash_attention: str = setting(
        "choice", "auto", "Flash attention", "A faster attention that needs less memory; auto uses it where the machine can.",
        choices=tuple(FLASH_ATTENTION))
    full_swa: bool = setting(
        "bool", True, "Full sliding window", "Keeps the whole context of sliding-window layers, so that a chat's start need not "
        "be computed again each turn; off saves memory.")
    parking: int = setting(
        "int", 1024, "Parking (MiB)", "Memory for chats that nobody is writing in: moved there they do not slow the others, and "
        "their next turn finds them again; 0 keeps them in the context.", minimum=0, maximum=2**20)
    mmap: bool = setting(
        "bool", True, "Memory-map", "Lets the system load the file as needed and share it; off reads all of it first.")
    mlock: bool = setting("bool", False, "Lock in memory", "Keeps the model from being swapped out, where the system allows it.")


def settings_for(options: Options, trained: int, n_sequences: int) -> Settings:
    """The context's settings with the machine's defaults filled in; raises LoadFailed for a pair that cannot be."""
    if options.flash_attention == "off" and options.kv_type_v in QUANTIZED:
        raise LoadFailed(f"Values can be stored as {options.kv_type_v} only with flash attention. Set flash_attention to auto or "
                         "on, or kv_type_v to f16.", param="kv_type_v")
    context = options.context or max(ALIGNMENT, min(trained, DEFAULT_CONTEXT) // ALIGNMENT * ALIGNMENT)
    context = -(-context // ALIGNMENT) * ALIGNMENT
    threads = options.threads or physical_cores()
    batch = min(max(options.batch, options.slots + 32), context + options.slots)
    return Settings(
        context=context, n_sequences=n_sequences, threads=threads, threads_batch=options.threads_batch or threads, batch=batch,
        ubatch=min(options.ubatch, batch), kv_type_k=options.kv_type_k, kv_type_v=options.kv_type_v,
        flash_attention=options.flash_attention, full_swa=options.full_swa)
