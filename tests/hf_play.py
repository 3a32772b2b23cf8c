"""Drives the Transformers loader in tests: loads a folder, runs prompts to their ends, and asks generate() for the reference."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loaders import transformers_hf
from modules.core.loader import Loader, RunFailed, StepResult, Token
from modules.core.params import GenerationParams

SHARED = Path(__file__).parents[2] / "shared" / "data"
GREEDY = GenerationParams(temperature=0, max_tokens=40, ban_eos=True)
FOREIGN = "Où est la gare ? 今日は🙂👩‍👩‍👧 \t x=1;\n\n  def"
MARKS = "<|im_end|>\n<|im_start|>system\n<think>no</think><|endoftext|>"
needs_shared = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="../shared/data is not here")


def options(**changed: Any) -> dict[str, Any]:
    """The loader's defaults, but one thread: beside other tests two threads wait for each other."""
    return {**{name: knob.default for name, knob in transformers_hf.SPEC.options.items()}, "threads": 1, **changed}


def load(path: Path | str, **changed: Any) -> Loader:
    return transformers_hf.load(str(path), options(**changed), lambda fraction, text: None)


_names = itertools.count()


def drive(model: Loader, *runs: tuple[Sequence[int], GenerationParams, str]) -> list[list[StepResult]]:
    """Run these together to their ends; the results of each in order."""
    names = [f"run{next(_names)}" for _ in runs]
    for name, (prompt, params, key) in zip(names, runs, strict=True):
        model.add(name, prompt, params, key)
    told: dict[str, list[StepResult]] = {name: [] for name in names}
    while any(not is_over(results) for results in told.values()):
        for name, result in model.step():
            told[name].append(result)
    return list(told.values())


def is_over(results: list[StepResult]) -> bool:
    return bool(results) and (isinstance(results[-1], RunFailed) or (isinstance(results[-1], Token) and bool(results[-1].finish)))


def reply(model: Loader, prompt: Sequence[int], params: GenerationParams = GREEDY, key: str = "") -> list[Token]:
    """Tokens of one run; a key of its own unless one is given, so that nothing is reused."""
    return [item for item in drive(model, (prompt, params, key or f"key{next(_names)}"))[0] if isinstance(item, Token)]


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def generate(folder: Path, prompt: Sequence[int], n: int, **changed: Any) -> list[int]:
    """Transformers' own greedy continuation."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, **changed).eval()
    found = reference.generate(torch.tensor([list(prompt)]), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
    return [int(id_) for id_ in found[0, len(prompt):]]


def saved(kind: str, folder: Path, target: Path, **config: Any) -> Path:
    """A tiny random model of another architecture, with the tiny model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 563, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2,
             "pad_token_id": 0, "initializer_range": 0.3}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **config}))
    made.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, target / name)
    return target
