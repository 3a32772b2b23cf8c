"""The converter's command, `python -m modules.models.convert SOURCE TARGET --type Q4_K_M`; it tells its progress if asked."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ..core.errors import AppError
from . import quantize, save_nf4
from .convert import TYPES, Told, convert
from .weights import sources


def main() -> int:
    """The command line; prints the reason and returns 1 where the model cannot be converted."""
    parser = argparse.ArgumentParser(description="Write a model as GGUF of any type, or as a folder in bitsandbytes' 4-bit.")
    parser.add_argument("source", type=Path, help="a Hugging Face folder with safetensors, or a GGUF file that is not quantized")
    parser.add_argument("path", type=Path, help="the GGUF file to write, for nf4 the folder")
    kinds = ", ".join((*TYPES, *quantize.TYPES, save_nf4.KIND))
    parser.add_argument("--type", default="f16", help=f"how matrices are stored: {kinds}")
    parser.add_argument("--threads", type=int, default=0, help="for quantizing; 0: all cores")
    parser.add_argument("--progress", action="store_true", help="print DONE TOTAL WHAT lines, for a program that reads them")
    chosen = parser.parse_args()
    if chosen.progress:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()

    def told(what: str) -> Told:
        return lambda done, total: print(done, total, what, flush=True) if chosen.progress else None

    try:
        make(chosen.source, chosen.path, chosen.type, threads=chosen.threads, told=told)
    except (AppError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in chosen.path.iterdir()) if chosen.path.is_dir() else chosen.path.stat().st_size
    print(f"{chosen.path}: {size:,} bytes")
    return 0


def _end_with_parent() -> None:
    """Whoever reads the progress holds the other end of standard input; it closes when that program ends, however it does."""
    while os.read(0, 4096):
        pass
    os._exit(3)


def make(source: Path, path: Path, kind: str, *, threads: int = 0, told: Callable[[str], Told]) -> None:
    """A GGUF file of any type from a folder or a GGUF file, or from a folder one in nf4; what lies between is deleted.

    Raises LoadFailed where it cannot.
    """
    if source.is_dir() and kind == save_nf4.KIND:
        save_nf4.save(source, path, told("Loading and saving"))
    elif source.is_dir() and kind.lower() in TYPES:
        convert(source, path, kind.lower(), told("Converting"))
    elif source.is_dir():
        quantize.checked(kind)
        between = path.with_name(path.name + ".whole" + quantize.UNFINISHED)
        try:
            convert(source, between, whole_type(source), told("Converting"))
            quantize.quantize(between, path, kind, threads=threads, progress=told("Quantizing"))
        finally:
            between.unlink(missing_ok=True)
    else:
        quantize.quantize(source, path, kind, threads=threads, progress=told("Quantizing"))


def whole_type(folder: Path) -> str:
    """The type that holds a folder's weights as they are: quantizing begins with no loss before it."""
    kinds = {source.dtype for source in sources(folder)}
    return "f32" if kinds - {"F16", "BF16"} else "bf16" if kinds == {"BF16"} else "f16" if kinds == {"F16"} else "f32"
