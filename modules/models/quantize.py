"""GGUF files quantized by llama.cpp. It asserts and prints as a program does, so this belongs into a process of its own."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..core.errors import LoadFailed
from ..store.gguf_header import BadHeader, read_gguf

# What llama.cpp's type leaves of each weight, in bits, scales and the larger output matrix of a model of some billions counted;
# without those that need a matrix of the importance of weights.
TYPES = {
    "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q5_K_S": 5.5, "Q5_1": 6.0, "Q5_0": 5.5, "Q4_K_M": 4.9, "Q4_K_S": 4.6,
    "IQ4_NL": 4.6, "IQ4_XS": 4.4, "Q4_1": 5.0, "Q4_0": 4.6, "Q3_K_L": 4.2, "Q3_K_M": 3.9, "Q3_K_S": 3.5, "IQ3_M": 3.8,
    "IQ3_S": 3.5, "Q2_K": 3.2}
WHOLE = {"F32", "F16", "BF16", "F64"}
MAX_LOG = 4000
UNFINISHED = ".unfinished"  # the end of the name of what is being written
_STEP = re.compile(r"\[\s*(\d+)\s*/\s*(\d+)\]")


def checked(kind: str) -> str:
    """The type's name in capitals; raises LoadFailed for one that is not in TYPES."""
    if kind.upper() not in TYPES:
        raise LoadFailed(f"There is no type {kind!r} to quantize to; there are: {', '.join(TYPES)}.")
    return kind.upper()


def quantize(source: Path, target: Path, kind: str, *, threads: int = 0, progress: Callable[[int, int], None]) -> None:
    """Write `source`, which must not be quantized yet, as `kind`; it appears under its name only when complete.

    threads 0: all cores. progress(done, total) counts tensors. Raises LoadFailed with the end of llama.cpp's log.
    """
    import llama_cpp

    kind = checked(kind)
    _refuse_quantized(source)
    said: list[str] = []

    def log(level: int, text: bytes, _: object) -> None:
        words = text.decode("utf-8", "replace")
        said.append(words)
        del said[:-200]
        step = _STEP.search(words)
        if step is not None:
            progress(int(step[1]) - 1, int(step[2]))

    callback = llama_cpp.llama_log_callback(log)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread = threads or os.cpu_count() or 1
    partial = target.with_name(target.name + UNFINISHED)
    try:
        code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(partial), params)
        if code:
            words = "".join(said).strip()[-MAX_LOG:] or f"code {code}"
            raise LoadFailed(f"{source.name} could not be quantized to {kind}: {words}")
        os.replace(partial, target)
    finally:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))  # ours is gone when this returns
        partial.unlink(missing_ok=True)


def _refuse_quantized(source: Path) -> None:
    try:
        types = read_gguf(source).tensor_types
    except (BadHeader, OSError) as error:
        raise LoadFailed(f"{source.name} cannot be read as GGUF: {error}.") from error
    packed = [name for name in types if name not in WHOLE]
    if packed:
        raise LoadFailed(f"{source.name} is quantized already ({', '.join(packed)}); a second quantization would lose more than "
                         "one. Take the file or folder with the whole weights.")
