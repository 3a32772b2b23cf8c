"""Loads tiny GGUFs for tests: one thread, so that they share a busy machine, and a small context."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaders.llama_cpp import SPEC, LlamaCpp
from modules.core.params import GenerationParams

GREEDY = GenerationParams(temperature=0.0, max_tokens=20, ban_eos=True)
EXACT = {"flash_attention": "off", "kv_type_k": "f32", "kv_type_v": "f32"}  # equal to 2e-6 whatever runs beside


def load(path: Path, progress: Callable[[float, str], None] = lambda fraction, what: None, **options: Any) -> LlamaCpp:
    complete = {name: knob.default for name, knob in SPEC.options.items()} | {"threads": 1, "context": 1024} | options
    loaded = SPEC.load(str(path), complete, progress)
    assert isinstance(loaded, LlamaCpp)
    return loaded


def changed(**values: Any) -> GenerationParams:
    return dataclasses.replace(GREEDY, **values)
