"""How a GGUF model may be loaded: the options, and what they mean on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from modules.core.errors import LoadFailed
from modules.core.knobs import setting

from .context import ALIGNMENT, FLASH_ATTENTION, KV_TYPES, QUANTIZED, ROPE_SCALING, Settings
from .library import SPLIT_MODES, physical_cores

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
    rope_scaling: str = setting(
        "choice", "auto", "RoPE scaling", "How the context is stretched past what the model was trained for; auto is the file's "
        "own. Set rope_factor with it, and the context.", choices=tuple(ROPE_SCALING))
    rope_factor: float = setting(
        "float", 0.0, "RoPE factor", "The context is stretched so many times; 0 is the file's own. Linear 2 suits most models, "
        "yarn goes further.", minimum=0.0, maximum=128.0, step=0.5)
    rope_base: float = setting(
        "float", 0.0, "RoPE base", "The base of the rotary frequencies (theta); 0 is the file's own.", minimum=0.0, maximum=1e9)
    tensor_split: str = setting(
        "str", "", "Tensor split", "With several GPUs the share of each, as 3,1; empty divides by their free memory.",
        maximum=200)
    split_mode: str = setting(
        "choice", "layer", "Split mode", "With several GPUs: whole layers to each, rows of every matrix (row), or all on the "
        "main GPU (none).", choices=tuple(SPLIT_MODES))
    main_gpu: int = setting(
        "int", 0, "Main GPU", "Its number: what holds the model with split mode none, and what is not split.", minimum=0,
        maximum=63)
    full_swa: bool = setting(
        "bool", True, "Full sliding window", "Keeps the whole context of sliding-window layers, so that a chat's start need not "
        "be computed again each turn; off saves memory.")
    parking: int = setting(
        "int", 1024, "Parking (MiB)", "Memory for chats that nobody is writing in: moved there they do not slow the others, and "
        "their next turn finds them again; 0 keeps them in the context.", minimum=0, maximum=2**20)
    speculation: str = setting(
        "choice", "none", "Speculation", "Guesses tokens ahead and lets the model check several at once: faster where guesses "
        "are often right, and not tried where they are not. prompt_lookup guesses what the chat repeats, draft_model asks a "
        "smaller model. Used while one reply is written alone. Equal seeds may then give another text.",
        choices=("none", "prompt_lookup", "draft_model"))
    draft_model: str = setting(
        "model", "", "Draft model", "For speculation draft_model: a smaller GGUF model of the same family.", maximum=1000)
    draft_tokens: int = setting("int", 8, "Draft tokens", "Most tokens guessed at once.", minimum=1, maximum=64)
    mmap: bool = setting(
        "bool", True, "Memory-map", "Lets the system load the file as needed and share it; off reads all of it first.")
    mlock: bool = setting("bool", False, "Lock in memory", "Keeps the model from being swapped out, where the system allows it.")


def settings_for(options: Options, trained: int, n_sequences: int) -> Settings:
    """The context's settings with the machine's defaults filled in; raises LoadFailed for a pair that cannot be."""
    if options.flash_attention == "off" and options.kv_type_v in QUANTIZED:
        raise LoadFailed(f"Values can be stored as {options.kv_type_v} only with flash attention. Set flash_attention to auto or "
                         "on, or kv_type_v to f16.", param="kv_type_v")
    if options.rope_scaling in ("linear", "yarn") and not options.rope_factor:
        raise LoadFailed(f"rope_scaling is {options.rope_scaling} and rope_factor 0; set by how many times the context is to be "
                         "stretched, such as 2.", param="rope_factor")
    context = options.context or max(ALIGNMENT, min(trained, DEFAULT_CONTEXT) // ALIGNMENT * ALIGNMENT)
    context = -(-context // ALIGNMENT) * ALIGNMENT
    threads = options.threads or physical_cores()
    batch = min(max(options.batch, options.slots + 32), context + options.slots)
    return Settings(
        context=context, n_sequences=n_sequences, threads=threads, threads_batch=options.threads_batch or threads, batch=batch,
        ubatch=min(options.ubatch, batch), kv_type_k=options.kv_type_k, kv_type_v=options.kv_type_v,
        flash_attention=options.flash_attention, full_swa=options.full_swa, rope_scaling=options.rope_scaling,
        rope_factor=options.rope_factor, rope_base=options.rope_base, trained=trained)


def split_of(options: Options, n_devices: int) -> tuple[float, ...]:
    """Each GPU's share in order, () where llama.cpp decides; raises LoadFailed for what is no list of shares."""
    if not options.tensor_split.strip():
        return ()
    try:
        shares = tuple(float(part) for part in options.tensor_split.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share <= 1e6 for share in shares) or not any(shares):
        raise LoadFailed(f"tensor_split is {options.tensor_split!r}; write a number of 0 or more for each GPU, such as 3,1.",
                         param="tensor_split")
    if len(shares) > n_devices:
        raise LoadFailed(f"tensor_split names {len(shares)} GPUs, and this llama.cpp can use at most {n_devices}.",
                         param="tensor_split")
    return shares
