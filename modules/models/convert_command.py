"""The command `python -m modules.models.convert SOURCE TARGET --type q4_k_m`, which does what the Convert tab does."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..core.errors import AppError
from ..store.headers import read_model
from .making import Making, check_room, order
from .targets import TARGETS, find_target


def main() -> int:
    """Prints the reason and returns 1 where it cannot be made, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m modules.models.convert", description="Make a smaller model from another.",
                                     epilog=f"Types: {', '.join(TARGETS)}, in any case.")
    parser.add_argument("source", type=Path, help="a folder with safetensors, or a GGUF file of F32, F16, BF16 or Q8_0")
    parser.add_argument("target", type=Path, help="the GGUF file to write, which is replaced; for nf4 and gptq-4 a new folder")
    parser.add_argument("--type", default="f16", help="how matrices are stored (f16)")
    chosen = parser.parse_args()
    try:
        source = read_model(Path(os.path.abspath(chosen.source)))
        path = Path(os.path.abspath(chosen.target))
        making = Making(order(source, find_target(chosen.type), path, path.parent, replace=True))
        check_room(making.order)
        making.run(_Printer())
    except AppError as error:
        print(f"{error.message}{chr(10) if error.log else ''}{error.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing is left of it.", file=sys.stderr)
        return 130
    size = path.stat().st_size if path.is_file() else sum(entry.stat().st_size for entry in path.rglob("*"))
    print(f"{chosen.target}: {size:,} bytes")
    return 0


class _Printer:
    """Each step once, on standard error, with its share done where that is a terminal."""

    def __init__(self) -> None:
        self._what = ""

    def __call__(self, values: dict[str, Any]) -> None:
        what, total = str(values.get("what", "")), int(values.get("total", 0))
        if what != self._what:
            self._what = what
            print(what, file=sys.stderr)
        if sys.stderr.isatty() and total:
            print(f"  {values.get('done', 0)} of {total} {values.get('unit', '')}", end="\r", file=sys.stderr)
