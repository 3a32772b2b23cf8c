"""Which number format PyTorch brings a model's weights and KV cache into: one rule for the loaders and for the forecast."""

from __future__ import annotations

FORMATS = ("float32", "bfloat16", "float16")
TINY_PARAMETERS = 300_000_000  # below it half precision is loaded as float32 on a CPU: its speed does not matter


def number_format(asked: str, own: str, *, n_params: int, is_on_cpu: bool, computes_bfloat16: bool) -> str:
    """One of FORMATS for what is asked for, the checkpoint's own being `own`.

    "auto": the checkpoint's own on a GPU and where it is float32. Half precision on a CPU: bfloat16 where the CPU computes in it
    (on AVX512-BF16 twice as fast as float32, one row or many; float16 is nine times slower in prefill), float32 elsewhere and
    for tiny models.
    """
    if asked != "auto":
        return asked
    if not is_on_cpu or own == "float32":
        return own
    return "bfloat16" if computes_bfloat16 and n_params >= TINY_PARAMETERS else "float32"
