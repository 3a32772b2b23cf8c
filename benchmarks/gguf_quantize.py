"""A GGUF of any llama.cpp type from a Hugging Face folder: our converter, then llama.cpp's own quantizer in a child process.

    python -m benchmarks.gguf_quantize INPUT.gguf OUTPUT.gguf Q4_K_M
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONVERTED = ("F32", "F16", "Q8_0")  # types that our converter writes itself


def gguf_of(folder: Path, path: Path, kind: str) -> Path:
    """Write the Llama model in `folder` to `path` with matrices of this type, and return the path; raises RuntimeError."""
    from modules.models.convert import convert

    if kind in CONVERTED:
        convert(folder, path, kind.lower())
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        whole = Path(scratch) / "f32.gguf"
        convert(folder, whole, "f32")
        # A child: the library prints to its standard error, and asserts end the process.
        done = subprocess.run([sys.executable, "-m", "benchmarks.gguf_quantize", str(whole), str(path), kind], cwd=ROOT,
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{folder.name} could not be quantized to {kind}: {done.stderr[-2000:]}")
    return path


def quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    """llama_model_quantize with its defaults for the type; raises RuntimeError with its code where it fails."""
    import llama_cpp

    names = (f"LLAMA_FTYPE_MOSTLY_{kind}", f"LLAMA_FTYPE_ALL_{kind}")
    ftype = next((getattr(llama_cpp, name) for name in names if hasattr(llama_cpp, name)), None)
    if ftype is None:
        raise RuntimeError(f"llama.cpp has no type {kind}")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, threads
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if code:
        raise RuntimeError(f"llama_model_quantize ended with {code}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("kind", help="as Q4_K_M or Q2_K")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    quantize(given.source, given.target, given.kind, given.threads)
