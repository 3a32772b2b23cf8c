"""LoRA adapters on both loaders: equal to the merged weights, gone without a trace, never with another's cache, and refusals."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.core.adapters import TakesAdapters
from modules.core.errors import BadRequest
from modules.core.loader import Loader

from . import hf_play, llama_play
from .tiny_adapters import gguf_adapter, merged, merged_gguf, peft_adapter
from .tiny_models import tiny_gguf, tiny_hf

needs_llama = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
IDS = list(range(3, 60))
# The largest difference of a logit from the merged weights' one, where logits deviate by 3 and the adapter moves them by 10:
# sums of float32 in another order.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Made:
    """A model and two adapters for it, as both formats."""

    hf: Path
    first: Path
    second: Path
    gguf: Path
    first_gguf: Path
    second_gguf: Path


@dataclass
class Subject:
    """A loaded model with the adapters in its format; merge gives the logits of a model with adapters in its weights."""

    loader: Any
    first: Path
    second: Path
    merge: Callable[..., np.ndarray]
    broken: Callable[..., Path]

    def set(self, *adapters: tuple[Path, float]) -> None:
        assert isinstance(self.loader, TakesAdapters)
        self.loader.set_adapters([(str(path), weight) for path, weight in adapters])

    def logits(self) -> np.ndarray:
        return logits_of(self.loader)


def logits_of(loader: Loader) -> np.ndarray:
    return loader.logits(IDS, 0, len(IDS))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("lora")
    hf = tiny_hf(folder / "base")
    first = peft_adapter(hf, folder / "first", seed=1)
    second = peft_adapter(hf, folder / "second", seed=2, target_modules=["q_proj", "down_proj"], use_rslora=True)
    return Made(hf, first, second, tiny_gguf(folder / "base.gguf"), gguf_adapter(first, folder / "first.gguf"),
                gguf_adapter(second, folder / "second.gguf"))


@pytest.fixture(scope="module", params=["transformers", pytest.param("llama_cpp", marks=needs_llama)])
def subject(request: pytest.FixtureRequest, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("subject")
    is_gguf = request.param == "llama_cpp"
    loader = llama_play.load(made.gguf, **llama_play.EXACT) if is_gguf else hf_play.load(made.hf)
    numbers = iter(range(1000))

    def merge(*pairs: tuple[Path, float]) -> np.ndarray:
        by_path = {made.first_gguf: made.first, made.second_gguf: made.second}
        pairs = tuple((by_path.get(path, path), weight) for path, weight in pairs)
        target = folder / f"merged{next(numbers)}.gguf"
        whole: Loader = (llama_play.load(merged_gguf(made.hf, target, *pairs), **llama_play.EXACT) if is_gguf
                         else hf_play.load(merged(made.hf, target, *pairs)))
        try:
            return logits_of(whole)
        finally:
            whole.close()

    def broken(make: Callable[[Path], Path]) -> Path:
        """A PEFT adapter that `make` spoiled in a fresh copy, in this loader's format."""
        copy = Path(shutil.copytree(made.first, folder / f"copy{next(numbers)}"))
        spoiled = make(copy)
        return gguf_adapter(spoiled, spoiled.with_suffix(".gguf")) if is_gguf else spoiled

    first, second = (made.first_gguf, made.second_gguf) if is_gguf else (made.first, made.second)
    yield Subject(loader, first, second, merge, broken)
    loader.close()


@pytest.fixture(autouse=True)
def bare(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "subject" in request.fixturenames:
        request.getfixturevalue("subject").set()


def test_an_adapter_gives_the_logits_of_the_merged_weights(subject: Subject) -> None:
    base = subject.logits()
    subject.set((subject.first, 1.0))
    adapted = subject.logits()
    assert abs(adapted - base).max() > 1, "or the comparison would say nothing"
    assert abs(adapted - subject.merge((subject.first, 1.0))).max() < TOLERANCE


def test_two_adapters_add_up_by_their_weights(subject: Subject) -> None:
    """The second is scaled by rsLoRA, alpha over the root of the rank."""
    subject.set((subject.first, 0.7), (subject.second, 1.3))
    adapted = subject.logits()
    assert abs(adapted - subject.merge((subject.first, 0.7), (subject.second, 1.3))).max() < TOLERANCE
    subject.set((subject.second, 1.3), (subject.first, 0.25))
    assert abs(subject.logits() - subject.merge((subject.first, 0.25), (subject.second, 1.3))).max() < TOLERANCE
    subject.set((subject.second, 1.3))
    assert abs(subject.logits() - subject.merge((subject.second, 1.3))).max() < TOLERANCE


def test_weight_0_and_detaching_give_the_base_back_to_the_bit(subject: Subject) -> None:
    base = subject.logits()
    subject.set((subject.first, 1.0), (subject.second, 1.0))
    assert (subject.logits() != base).any()
    subject.set((subject.first, 0.0), (subject.second, 0.0))
    assert (subject.logits() == base).all()
    subject.set((subject.first, 1.0))
    subject.set()
    assert (subject.logits() == base).all()


def test_the_logits_are_those_of_peft_alone(made: Made) -> None:
    """The reference is PEFT's own way: PeftModel, its weighted sum in place of our weights."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(str(made.hf), local_files_only=True)
    reference = PeftModel.from_pretrained(base, str(made.first)).eval()
    with torch.inference_mode():
        wanted = reference(input_ids=torch.tensor([IDS])).logits[0].numpy()
    loaded = hf_play.load(made.hf)
    assert isinstance(loaded, TakesAdapters)
    loaded.set_adapters([(str(made.first), 1.0)])
    assert abs(logits_of(loaded) - wanted).max() < TOLERANCE
    loaded.close()


def test_replies_and_scores_change_with_the_adapter_and_back(subject: Subject) -> None:
    prompt = IDS[:20]
    base, base_scores = hf_play.ids_of(hf_play.reply(subject.loader, prompt)), subject.loader.score(IDS)
    subject.set((subject.first, 1.0))
    assert hf_play.ids_of(hf_play.reply(subject.loader, prompt)) != base
    assert abs(subject.loader.score(IDS)[1:] - base_scores[1:]).max() > 0.1
    subject.set()
    assert hf_play.ids_of(hf_play.reply(subject.loader, prompt)) == base
    assert (subject.loader.score(IDS)[1:] == base_scores[1:]).all()


def test_a_changed_weight_leaves_no_prefix(made: Made) -> None:
    room = {"slots": 16, "context": 4096}  # for all of these replies, so that only the adapters decide
    loaders: list[tuple[Loader, Path]] = [(hf_play.load(made.hf, **room), made.first)]
    if importlib.util.find_spec("llama_cpp"):
        loaders.append((llama_play.load(made.gguf, **room), made.first_gguf))
    for loader, adapter in loaders:
        assert isinstance(loader, TakesAdapters)
        hf_play.reply(loader, IDS, key="chat")
        found = []
        for weight in (0.0, 1.0, 0.99, 1.0, None):
            loader.set_adapters([] if weight is None else [(str(adapter), weight)])
            found.append(loader.add(f"run{len(found)}", IDS, llama_play.GREEDY, "chat"))
            loader.remove(f"run{len(found) - 1}")
            fresh = hf_play.ids_of(hf_play.reply(loader, IDS, key=f"fresh{len(found)}"))
            assert hf_play.ids_of(hf_play.reply(loader, IDS, key="chat")) == fresh
        # Weight 0 and none are the base; what was computed with weight 1 is there again when it is 1 again.
        assert [n > 0 for n in found] == [True, False, False, True, True]
        loader.close()


def test_an_adapter_that_changed_on_the_disk_is_another_one(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.first, tmp_path / "changing"))
    loader = hf_play.load(made.hf)
    assert isinstance(loader, TakesAdapters)
    loader.set_adapters([(str(folder), 1.0)])
    before = logits_of(loader)
    hf_play.reply(loader, IDS, key="chat")
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8.0', '"lora_alpha": 16.0'))
    loader.set_adapters([(str(folder), 1.0)])
    assert loader.add("run", IDS, llama_play.GREEDY, "chat") == 0
    after = logits_of(loader)
    loader.set_adapters([(str(made.first), 2.0)])
    assert abs(after - logits_of(loader)).max() < TOLERANCE < abs(after - before).max()
    loader.close()


def smaller(folder: Path) -> Path:
    """One matrix made for a narrower model."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(str(folder / "adapter_model.safetensors"))
    name = next(name for name in weights if "down_proj.lora_A" in name)
    weights[name] = np.ascontiguousarray(weights[name][:, :256])
    save_file(weights, str(folder / "adapter_model.safetensors"))
    return folder


def elsewhere(folder: Path) -> Path:
    """A layer that the model does not have."""
    from safetensors.numpy import load_file, save_file

    weights = {name.replace("layers.2", "layers.7"): values
               for name, values in load_file(str(folder / "adapter_model.safetensors")).items()}
    save_file(weights, str(folder / "adapter_model.safetensors"))
    return folder


@pytest.mark.parametrize(("make", "words"), [(smaller, "shape"), (elsewhere, "7.*which the model does not have")])
def test_what_does_not_fit_is_refused_and_all_stays_as_it_was(subject: Subject, make: Callable[[Path], Path], words: str) -> None:
    subject.set((subject.first, 0.5))
    before = subject.logits()
    bad = subject.broken(make)
    for adapters in ([(bad, 1.0)], [(subject.second, 1.0), (bad, 1.0)]):
        with pytest.raises(BadRequest, match=words) as caught:
            subject.set(*adapters)
        assert "does not fit this model" in caught.value.message and bad.name in caught.value.message
    assert (subject.logits() == before).all()
    assert len(hf_play.reply(subject.loader, IDS)) == hf_play.GREEDY.max_tokens


def test_what_is_no_adapter_is_refused(subject: Subject, made: Made, tmp_path: Path) -> None:
    before = subject.logits()
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.gguf").write_text("hello")
    for path in (tmp_path / "empty", tmp_path / "text.gguf", tmp_path / "absent", made.hf, made.gguf):
        with pytest.raises(BadRequest, match="adapter"):
            subject.set((path, 1.0))
    assert (subject.logits() == before).all()


def test_numbers_that_are_none_are_refused(made: Made, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(made.first, tmp_path / "nan"))
    weights = load_file(str(folder / "adapter_model.safetensors"))
    next(iter(weights.values()))[0, 0] = np.nan
    save_file(weights, str(folder / "adapter_model.safetensors"))
    loader = hf_play.load(made.hf)
    assert isinstance(loader, TakesAdapters)
    base = logits_of(loader)
    with pytest.raises(BadRequest, match="NaN"):
        loader.set_adapters([(str(made.second), 1.0), (str(folder), 1.0)])
    assert (logits_of(loader) == base).all() and not hasattr(loader, "peft_config")
    loader.close()


@needs_llama
@pytest.mark.parametrize(("keys", "words"), [
    ({"architecture": "qwen2"}, "architecture 'qwen2'"), ({"general.type": "model"}, "only LoRA"),
    ({"general.type": 7}, "general.type"),
    ({"adapter.type": "dora"}, "only LoRA"), ({"adapter.type": 7}, "adapter.type"), ({"adapter.lora.alpha": 8}, "lora.alpha"),
    ({"adapter.lora.alpha": float("nan")}, "scale nan"), ({"adapter.lora.alpha": 1e30}, "scale"),
    ({"adapter.alora.invocation_tokens": [1, 2]}, "aLoRA"),
])
def test_hostile_gguf_headers_are_refused_before_llama_cpp_sees_them(made: Made, tmp_path: Path, keys: dict[str, Any],
                                                                     words: str) -> None:
    """llama.cpp ends the whole process at a key of another type."""
    loader = llama_play.load(made.gguf, **llama_play.EXACT)
    base = logits_of(loader)
    with pytest.raises(BadRequest, match=words):
        loader.set_adapters([(str(gguf_adapter(made.first, tmp_path / "bad.gguf", **keys)), 1.0)])
    assert (logits_of(loader) == base).all()
    loader.close()


@needs_llama
def test_as_many_gguf_adapters_as_are_allowed_act_together(made: Made, tmp_path: Path) -> None:
    """More than the graph that was reserved for the bare model holds."""
    copies = [Path(shutil.copy(made.first_gguf, tmp_path / f"{n}.gguf")) for n in range(16)]
    loader = llama_play.load(made.gguf, **llama_play.EXACT)
    loader.set_adapters([(str(path), 0.1) for path in copies])
    many = logits_of(loader)
    loader.set_adapters([(str(made.first_gguf), 1.6)])
    assert abs(many - logits_of(loader)).max() < TOLERANCE
    loader.close()


@pytest.mark.parametrize("quantization", ["8bit", "4bit", "int8"])
def test_adapters_come_and_go_on_quantized_weights(made: Made, quantization: str) -> None:
    import torch
    from peft import PeftModel

    if importlib.util.find_spec("torchao" if quantization == "int8" else "bitsandbytes") is None:
        pytest.skip("not installed")
    loader = hf_play.load(made.hf, quantization=quantization)
    assert isinstance(loader, TakesAdapters)
    base = logits_of(loader)
    loader.set_adapters([(str(made.first), 1.0)])
    adapted = logits_of(loader)
    assert abs(adapted - base).max() > 1
    loader.set_adapters([])
    assert (logits_of(loader) == base).all()
    loader.close()
    reference = PeftModel.from_pretrained(hf_play.load(made.hf, quantization=quantization)._forward.model, str(made.first))
    with torch.inference_mode():
        wanted = reference(input_ids=torch.tensor([IDS])).logits[0].float().numpy()
    assert abs(adapted - wanted).max() < 0.1, "PEFT's own way, which reads 4-bit weights back and packs them anew"


@needs_llama
def test_adapters_come_and_go_on_a_quantized_gguf(made: Made) -> None:
    loader = llama_play.load(tiny_gguf(made.hf.parent / "q8.gguf", kind="q8_0"), **llama_play.EXACT)
    base = logits_of(loader)
    loader.set_adapters([(str(made.first_gguf), 1.0)])
    adapted = logits_of(loader)
    loader.set_adapters([])
    assert (logits_of(loader) == base).all()
    loader.close()
    plain = llama_play.load(made.gguf, **llama_play.EXACT)
    plain_base = logits_of(plain)
    plain.set_adapters([(str(made.first_gguf), 1.0)])
    rounding = abs(base - plain_base).max()
    assert abs(adapted - logits_of(plain)).max() < 4 * rounding < abs(adapted - base).max()
    plain.close()
