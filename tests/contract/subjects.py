"""The loaders that the suite runs on: one line each; a loader or backend that is absent is skipped by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gptq_play import Style, pack_model
from tests.tiny_models import tiny_gguf, tiny_hf

SCRIPT = "Once there was a café — naïve, 日本語, 🙂👩‍👩‍👧 — where the old cat slept all day long.\n" * 200


@dataclass(frozen=True)
class Subject:
    """A loader and a model for it. make(folder) writes the model there, once a test session, and returns its path.

    options: the loader's options beside `context` and `slots`, which the suite sets itself.
    """

    name: str
    loader: str
    make: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)


def _script(folder: Path) -> Path:
    path = folder / "script.echo"
    path.write_text(SCRIPT, "utf-8")
    return path


def _packed(style: Style) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pack_model(tiny_hf(folder / "tiny"), folder / "packed", folder / "unpacked", style)
        return folder / "packed"

    return make


SUBJECTS = [
    Subject("echo", "echo", _script),
    # llama.cpp's flash attention differs by 2e-3 between batch sizes, float32 without it by 2e-6: the suite compares texts that
    # were written alone with texts written together.
    Subject("gguf", "llama_cpp", lambda folder: tiny_gguf(folder / "tiny.gguf"),
            {"flash_attention": "off", "kv_type_k": "f32", "kv_type_v": "f32", "threads": 1}),
    # One thread: two of torch's wait for each other whenever another test has a core.
    Subject("safetensors", "transformers", lambda folder: tiny_hf(folder / "tiny"), {"threads": 1}),
    Subject("gptq", "gptq", _packed(Style(is_symmetric=False, act_order=True)), {"threads": 1, "dtype": "float32"}),
]
