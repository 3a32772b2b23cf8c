"""Where a Transformers model and its KV cache lie: the same numbers anywhere, and words for what cannot be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from modules.core.errors import BadRequest, LoadFailed
from tests.contract.play import Stage, prompt_of
from tests.llama_play import changed
from tests.test_transformers_speculation import load, plainly
from tests.tiny_adapters import peft_adapter
from tests.tiny_models import tiny_hf

pytest.importorskip("torch")
STARTER = Path(__file__).parents[1] / "models" / "starter"
SOME = 12e6 / 2**30  # GiB: two of its six layers and the embeddings in float32


def scratch() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob("colloquy-offload-*"))


def test_layers_on_disk_give_the_same_text_and_take_no_memory() -> None:
    before = scratch()
    whole, spread = load(STARTER), load(STARTER, device_map="auto", cpu_memory=SOME)
    try:
        assert spread.facts.device.startswith("cpu (") and "disk (" in spread.facts.device and whole.facts.device == "cpu"
        assert spread.facts.memory_bytes <= SOME * 2**30 < whole.facts.memory_bytes / 1.5
        prompt, params = prompt_of(spread), changed(max_tokens=12, temperature=0.8, seed=3)
        assert Stage(spread).alone("a", prompt, params).ids == plainly(STARTER, prompt, params).ids
        assert np.array_equal(spread.logits(prompt, 3, 5), whole.logits(prompt, 3, 5))
        assert len(scratch()) == len(before) + 1
    finally:
        spread.close()
    assert scratch() == before


def test_a_device_map_with_room_for_all_moves_nothing() -> None:
    loader = load(STARTER, device_map="balanced")
    assert loader.facts.device == "cpu" and loader.facts.memory_bytes == load(STARTER).facts.memory_bytes
    loader.close()


def test_what_cannot_be_together_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = scratch()
    for wrong, words in (({"cpu_memory": 1.0}, "set device_map to auto"), ({"gpu_memory": 1.0}, "set device_map to auto"),
                         ({"device_map": "auto", "cpu_memory": SOME, "quantization": "4bit"}, "cannot be left on disk")):
        with pytest.raises(LoadFailed, match=words):
            load(STARTER, **wrong)
    broken = tiny_hf(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(LoadFailed):
        load(broken, device_map="auto")
    assert scratch() == before


def test_adapters_are_refused_on_a_model_that_lies_partly_on_disk(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = tiny_hf(tmp_path / "tiny")
    loader = load(folder, device_map="auto", cpu_memory=(folder / "model.safetensors").stat().st_size / 2 / 2**30)
    with pytest.raises(BadRequest, match="partly on disk"):
        loader.set_adapters([(str(peft_adapter(folder, tmp_path / "adapter")), 1.0)])
    loader.close()

def test_a_static_cache_takes_its_memory_once_and_gives_the_same_text(tmp_path: Path) -> None:
    folder = tiny_hf(tmp_path / "tiny")
    growing, static = load(folder, context=512), load(folder, context=512, cache="static")
    prompt = prompt_of(static)
    stage = Stage(static)
    played = stage.add("a", prompt, changed(max_tokens=100))
    stage.play(lambda: bool(played.tokens))
    [layer, *_] = static._runs["a"].cache.layers
    place = layer.room[0].data_ptr()
    assert layer.room[0].shape[-2] == 512
    stage.play(lambda: len(played.tokens) == 90)
    assert layer.room[0].data_ptr() == place
    stage.play(lambda: played.is_over)
    assert played.ids == Stage(growing).alone("a", prompt, changed(max_tokens=100)).ids
