"""A GGUF of any llama.cpp type from a Hugging Face folder, by the converter's own command in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def gguf_of(folder: Path, path: Path, kind: str) -> Path:
    """Write the model in `folder` to `path` with matrices of this type, and return the path; raises RuntimeError."""
    command = [sys.executable, "-m", "modules.models.convert", str(folder), str(path), "--type", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{folder.name} could not be written as {kind}: {done.stderr[-2000:]}")
    return path
