"""An adapter's files before any library sees them: what is more than a plain LoRA, hostile or pickled is refused in words."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.core.adapters import TakesAdapters
from modules.core.errors import BadRequest
from modules.store.adapters import BadAdapter, read_peft_adapter

from . import hf_play, llama_play
from .tiny_adapters import gguf_adapter, peft_adapter
from .tiny_models import tiny_gguf, tiny_hf

needs_llama = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def made(model: Path) -> Path:
    return peft_adapter(model, model.parent / "adapter")


def spoil(folder: Path, **config: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.parametrize(("config", "words"), [
    ({"peft_type": "IA3"}, "only LoRA"), ({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"bias": "all"}, "biases"), ({"init_lora_weights": "pissa"}, "pissa"), ({"lora_alpha": "x"}, "lora_alpha"),
    ({"lora_alpha": 1e300}, "lora_alpha"), ({"lora_alpha": 1e8}, "scale"), ({"alpha_pattern": {"(a+)+$": 8}}, "plain names"),
    ({"from_the_future": 3}, "from_the_future"), ({"init_lora_weights": [1]}, "changed base"),
])
def test_peft_configurations_beyond_a_plain_lora_are_refused(made: Path, tmp_path: Path, config: dict[str, Any],
                                                             words: str) -> None:
    with pytest.raises(BadAdapter, match=words):
        read_peft_adapter(spoil(Path(shutil.copytree(made, tmp_path / "bad")), **config))


def test_a_configurations_patterns_never_run_as_regular_expressions(model: Path, made: Path, tmp_path: Path) -> None:
    """What is changed is told by the tensors; a target that would take years to match costs nothing."""
    folder = spoil(Path(shutil.copytree(made, tmp_path / "slow")), target_modules="(.*.*.*.*.*.*)*[^m]z",
                   exclude_modules="(.*.*.*.*.*.*)*[^m]z", alpha_pattern={"layers.0.self_attn.q_proj": 16.0})
    loader = hf_play.load(model)
    assert isinstance(loader, TakesAdapters)
    loader.set_adapters([(str(folder), 1.0)])
    layer = loader._forward.model.get_submodule("model.layers.0.self_attn.q_proj")
    other = loader._forward.model.get_submodule("model.layers.1.self_attn.q_proj")
    assert list(layer.scaling.values()) == [4.0] and list(other.scaling.values()) == [2.0]
    loader.close()


def test_hostile_safetensors_are_refused(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "bad"))
    file = folder / "adapter_model.safetensors"
    raw = file.read_bytes()
    a, b = "base_model.model.x.lora_A.weight", "base_model.model.x.lora_B.weight"

    def header(tensors: dict[str, Any]) -> bytes:
        text = json.dumps(tensors).encode()
        return struct.pack("<Q", len(text)) + text + bytes(4096)

    def tensor(shape: list[int], start: int = 0, dtype: str = "F32") -> dict[str, Any]:
        size = int(np.prod(shape)) * (4 if dtype == "F32" else 1)
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}

    for content, words in (
            (raw[:-10], "cut off"), (raw[:5], "cut off"), (struct.pack("<Q", 2**60), "claims a header"),
            (b"\x80\x04}q\x00." * 20, "claims"),
            (header({a: tensor([4, 8])}), "one half"), (header({}), "no tensors"),
            (header({a: tensor([4, 8]), b: tensor([8, 5], 128)}), "do not belong"),
            (header({a: tensor([4, 8]), b: tensor([8, 4], 128), "lm_head.weight": tensor([2])}), "no part of a plain LoRA"),
            (header({a: tensor([4, 8], dtype="I8"), b: tensor([8, 4], 128)}), "I8"),
            (header({a: {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}), "wrongly")):
        file.write_bytes(content)
        with pytest.raises(BadAdapter, match=words):
            read_peft_adapter(folder)
    file.unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(BadAdapter, match=r"pickle.*adapter_model\.safetensors"):
        read_peft_adapter(folder)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    file.write_bytes(raw)
    with pytest.raises(BadAdapter, match="JSON"):
        read_peft_adapter(folder)


@needs_llama
def test_a_gguf_adapter_of_the_embedding_or_with_odd_tensors_is_refused(model: Path, made: Path, tmp_path: Path) -> None:
    import gguf

    def write(name: str, shapes: dict[str, tuple[int, ...]]) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_string("general.type", "adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 8.0)
        for tensor, shape in shapes.items():
            writer.add_tensor(tensor, np.zeros(shape, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    n_vocab = hf_play.load(model).facts.vocab_size
    loader = llama_play.load(tiny_gguf(tmp_path / "base.gguf"))
    for name, shapes, words in (
            ("embedding.gguf", {"token_embd.weight.lora_a": (4, 256), "token_embd.weight.lora_b": (n_vocab, 4)}, "token_embd"),
            ("half.gguf", {"blk.0.attn_q.weight.lora_a": (4, 256)}, "one half"),
            ("odd.gguf", {"blk.0.attn_q.weight": (256, 256)}, "no part of a LoRA"),
            ("ranks.gguf", {"blk.0.attn_q.weight.lora_a": (4, 256), "blk.0.attn_q.weight.lora_b": (256, 5)}, "do not belong"),
            ("flat.gguf", {"blk.0.attn_q.weight.lora_a": (256,), "blk.0.attn_q.weight.lora_b": (256,)}, "do not belong"),
            ("deep.gguf", {"blk.0.attn_q.weight.lora_a": (2, 4, 256), "blk.0.attn_q.weight.lora_b": (2, 256, 4)}, "shape"),
            ("norm.gguf", {"blk.0.attn_norm.weight.lora_a": (1, 256), "blk.0.attn_norm.weight.lora_b": (1, 1)}, "shape")):
        with pytest.raises(BadRequest, match=words):
            loader.set_adapters([(str(write(name, shapes)), 1.0)])
    raw = gguf_adapter(made, tmp_path / "whole.gguf").read_bytes()
    for n in (50, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.gguf").write_bytes(raw[:n])
        with pytest.raises(BadRequest, match=r"cut off|ends early|claims"):
            loader.set_adapters([(str(tmp_path / "cut.gguf"), 1.0)])
    loader.close()
