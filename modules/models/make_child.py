"""The process that makes one model from another; it tells how far it is as JSON lines, and ends with whoever started it.

    python -m modules.models.make_child SOURCE TYPE FOLDER

The result is FOLDER/result.gguf or the folder FOLDER/result. It ends, and FOLDER with it, when its standard input does.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from ..core.errors import AppError, LoadFailed
from .convert import convert
from .processor import physical_cores
from .quantize import quantize
from .save_packed import save_bnb, save_gptq
from .targets import TARGETS, Target
from .weights import sources

RESULT = "result"
BETWEEN = "between.gguf"


class Teller:
    """Writes what is told to the pipe that was standard output; what libraries print goes to standard error instead."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def __call__(self, **values: Any) -> None:
        with self._lock:
            self._pipe.write(json.dumps(values) + "\n")
            self._pipe.flush()


def make(source: Path, target: Target, folder: Path, tell: Teller) -> None:
    """Write the result into `folder`. Raises AppError."""
    def counted(what: str, unit: str = "tensors") -> Any:
        return lambda done, total: tell(what=what, done=done, total=total, unit=unit)

    if target.via == "bnb":
        save_bnb(source, folder / RESULT, lambda done, total, what: tell(what=what, done=done, total=total, unit="steps"))
    elif target.via == "gptq":
        from .calibration import calibration_texts
        save_gptq(source, folder / RESULT, calibration_texts(),
                  lambda done, total, what: tell(what=what, done=done, total=total, unit="steps"))
    elif source.is_dir() and target.is_whole:
        convert(source, folder / f"{RESULT}.gguf", target.name.lower(), counted(f"Writing {target.name}"))
    else:
        whole = source
        if source.is_dir():
            kind = exact_type(source)
            whole = folder / BETWEEN
            convert(source, whole, kind, counted(f"Writing {kind.upper()} first"))
        quantize(whole, folder / f"{RESULT}.gguf", target.name, physical_cores(), counted(f"Quantizing to {target.name}"),
                 lambda line: tell(log=line))
        if source.is_dir():
            whole.unlink()


def exact_type(folder: Path) -> str:
    """The smallest of f16, bf16 and f32 that loses nothing of the folder's matrices: the result is as from them."""
    kinds = {source.dtype for source in sources(folder) if len(source.shape) > 1}
    return "f16" if kinds == {"F16"} else "bf16" if kinds == {"BF16"} else "f32"


def _end_with_parent(folder: Path) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> int:
    tell = Teller()
    source, kind, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # a chat beside it goes first
    try:
        make(source, TARGETS[kind], folder, tell)
    except AppError as error:
        tell(error=error.message)
    except MemoryError:
        tell(error="Memory ran out. Close other programs, unload models, or make a smaller model.")
    except Exception as error:  # noqa: BLE001 - the libraries' own, told as a sentence in the parent
        tell(error=LoadFailed(f"It failed: {type(error).__name__}: {str(error)[:1000]}").message)
    else:
        tell(done_all=True)
        return 0
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that waits for the parent holds standard input
