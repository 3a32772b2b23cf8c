"""A GGUF file with smaller weights by llama.cpp's own quantizer. Belongs in a child process: the library may end it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..core.errors import LoadFailed

_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")
KEPT_LINES = 20


def quantize(source: Path, target: Path, kind: str, threads: int, told: Callable[[int, int], None],
             log: Callable[[str], None]) -> None:
    """Write `source`, a GGUF file of F32, F16, BF16 or Q8_0, as `kind` to `target`. told: (the tensor begun, of how many).

    Raises LoadFailed with llama.cpp's own words where it fails.
    """
    import llama_cpp

    ftype = next((getattr(llama_cpp, name) for name in (f"LLAMA_FTYPE_MOSTLY_{kind}", f"LLAMA_FTYPE_ALL_{kind}")
                  if hasattr(llama_cpp, name)), None)
    if ftype is None:
        raise LoadFailed(f"This llama-cpp-python knows no type {kind}; install the one of requirements.txt.")
    lines: list[str] = []
    begun, last = "", 0

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, data: object) -> None:
        nonlocal begun, last
        begun += text.decode("utf-8", "replace")
        while "\n" in begun:
            line, _, begun = begun.partition("\n")
            lines.append(line.strip())
            del lines[:-KEPT_LINES]
            log(line)
        found = _TENSOR.search(begun)  # its line comes in pieces, the last when the tensor is done
        if found and int(found[1]) != last:
            last = int(found[1])
            told(int(found[1]) - 1, int(found[2]))

    llama_cpp.llama_log_set(on_log, None)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, threads
    params.allow_requantize = True  # of Q8_0; what is smaller was refused before
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if code or not target.exists():
        reason = next((line for line in reversed(lines) if "fail" in line or "error" in line), f"code {code}")
        raise LoadFailed(f"llama.cpp could not make {kind} of it: {reason}")

