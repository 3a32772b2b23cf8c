"""GPTQ and AWQ checkpoints: every layout gives the numbers it stands for, and what cannot be used is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders import gptq, transformers_hf
from loaders.gptq_parts import gptqmodel
from loaders.gptq_parts.packing import Packing
from modules import registry
from modules.core.errors import Cancelled, LoadFailed
from modules.core.loader import Loader
from modules.store.headers import read_model
from tests.gptq_play import Style, edited, pack_model
from tests.hf_play import SHARED, ids_of, needs_shared, reply
from tests.tiny_models import tiny_hf

PROMPT = list(range(20, 60))
STYLES = {
    "symmetric": Style(), "asymmetric": Style(is_symmetric=False), "act-order": Style(is_symmetric=False, act_order=True),
    "no g_idx": Style(has_g_idx=False), "zeros as they are": Style(is_symmetric=False, version="gptq_v2"),
    "one group": Style(group=-1), "groups of 128": Style(group=128), "zero bias": Style(has_bias=True),
    "quantize_config.json": Style(is_symmetric=False, where="quantize_config.json"),
    "an odd file name": Style(weights="gptq_model-4bit-32g.safetensors"),
    "AWQ": Style(method="awq", version="gemm", is_symmetric=False),
    "AutoAWQ": Style(method="awq", version="gemm", is_symmetric=False, where="quant_config.json")}
WIDTHS = {"2 bits": Style(bits=2, is_symmetric=False), "3 bits": Style(bits=3, is_symmetric=False),
          "8 bits": Style(bits=8, act_order=True)}


def load(path: Path, spec: Any = gptq.SPEC, progress: Any = lambda fraction, text: None, **changed: Any) -> Loader:
    options = {name: knob.default for name, knob in spec.options.items()}
    loaded: Loader = spec.load(str(path), {**options, "context": 256, "threads": 1, "device": "cpu", **changed}, progress)
    return loaded


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture
def pack(source: Path, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def pack_one(style: Style) -> tuple[Path, Path]:
        pack_model(source, tmp_path / "packed", tmp_path / "plain", style)
        return tmp_path / "packed", tmp_path / "plain"

    return pack_one


def rows_of(loader: Loader) -> np.ndarray:
    """The logits after each token of PROMPT; closes the loader."""
    rows = loader.logits(PROMPT, 0, len(PROMPT))
    loader.close()
    return rows


@pytest.mark.parametrize("name", STYLES)
def test_every_layout_gives_the_numbers_it_stands_for(pack: Callable[..., tuple[Path, Path]], name: str) -> None:
    """Unpacked exactly; through the kernel but for its bfloat16 inputs and scales."""
    packed, plain = pack(STYLES[name])
    wanted = rows_of(load(plain, transformers_hf.SPEC, dtype="float32"))
    exact = rows_of(load(packed, kernel="dense", dtype="float32"))
    assert abs(exact - wanted).max() < 1e-4
    fast = load(packed, dtype="float32")
    assert (fast.facts.options["kernel"], fast.facts.options["quantization"]) == ("int4", f"{STYLES[name].method.upper()} 4-bit")
    gap = abs(rows_of(fast) - wanted)
    assert gap.max() < 0.05 * abs(wanted).max()


@pytest.mark.parametrize("name", WIDTHS)
def test_other_widths_unpack_exactly_or_ask_for_gptqmodel(pack: Callable[..., tuple[Path, Path]], name: str,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    packed, plain = pack(WIDTHS[name])
    wanted = rows_of(load(plain, transformers_hf.SPEC, dtype="float32"))
    assert abs(rows_of(load(packed, kernel="dense", dtype="float32")) - wanted).max() < 1e-4
    monkeypatch.setattr(gptqmodel, "is_installed", lambda: False)
    with pytest.raises(LoadFailed, match=r"GPTQ \d-bit on cpu needs GPTQModel.*requirements-gptq\.txt.*kernel dense"):
        load(packed)
    with pytest.raises(LoadFailed, match="cannot be loaded with kernel int4"):
        load(packed, kernel="int4")


@pytest.mark.skipif(not gptqmodel.is_installed(), reason="GPTQModel is not installed (requirements-gptq.txt)")
@pytest.mark.parametrize("name", [name for name in (*STYLES, *WIDTHS) if name != "one group"])
def test_gptqmodel_gives_the_same_numbers(pack: Callable[..., tuple[Path, Path]], name: str) -> None:
    packed, plain = pack({**STYLES, **WIDTHS}[name])
    wanted = rows_of(load(plain, transformers_hf.SPEC, dtype="float32"))
    assert abs(rows_of(load(packed, kernel="gptqmodel", dtype="bfloat16")) - wanted).max() < 0.1 * abs(wanted).max()


@pytest.mark.skipif(not gptqmodel.is_installed(), reason="GPTQModel is not installed (requirements-gptq.txt)")
def test_what_its_kernel_refuses_is_told(pack: Callable[..., tuple[Path, Path]]) -> None:
    packed, _ = pack(STYLES["one group"])
    with pytest.raises(LoadFailed, match="expect qGroupSize"):
        load(packed, kernel="gptqmodel", dtype="bfloat16")


def test_a_packed_model_takes_a_quarter_of_the_memory_and_is_listed_with_its_loader(
        pack: Callable[..., tuple[Path, Path]]) -> None:
    packed, plain = pack(Style(group=128))
    file = read_model(packed)
    assert (file.format, file.quantization, file.problem) == ("gptq", "GPTQ 4-bit g128", "")
    assert registry.choose(file).name == "gptq"
    small, large = load(packed, dtype="float32"), load(plain, transformers_hf.SPEC, dtype="float32")
    unpacked = sum(np.prod(shape) for shape in _kept_shapes(plain)) * 4
    assert small.facts.memory_bytes - unpacked < 0.16 * (large.facts.memory_bytes - unpacked)
    for loader in (small, large):
        loader.close()


def _kept_shapes(plain: Path) -> list[tuple[int, ...]]:
    from safetensors.numpy import load_file

    return [tensor.shape for name, tensor in load_file(plain / "model.safetensors").items() if "proj" not in name]


def test_autoawq_is_told_from_its_own_file(pack: Callable[..., tuple[Path, Path]]) -> None:
    file = read_model(pack(STYLES["AutoAWQ"])[0])
    assert (file.format, file.quantization, file.problem) == ("awq", "AWQ 4-bit g32", "")


def test_replies_do_not_depend_on_how_the_prompt_was_cut(pack: Callable[..., tuple[Path, Path]]) -> None:
    """Each row of the kernel is computed as if it were alone."""
    loader = load(pack(STYLES["act-order"])[0], dtype="float32")
    cold = ids_of(reply(loader, PROMPT))
    reply(loader, PROMPT[:25], key="warm")
    assert ids_of(reply(loader, PROMPT, key="warm")) == cold
    loader.close()


@pytest.mark.parametrize(("changed", "words"), [
    ({"bits": 5}, "bits: 5"), ({"bits": "four"}, "'four'"), ({"group_size": 0}, "group_size: 0"),
    ({"checkpoint_format": "marlin"}, "layout 'marlin'"), ({"quant_method": "awq", "version": "gemv"}, "layout 'gemv'"),
    ({"group_size": 64}, "shape"), ({"bits": 8}, "shape")])
def test_a_description_that_does_not_fit_is_named(pack: Callable[..., tuple[Path, Path]], changed: dict[str, Any],
                                                  words: str) -> None:
    packed, _ = pack(Style())
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] |= changed
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadFailed, match=words):
        load(packed, kernel="dense")


def test_packed_weights_that_nothing_describes_are_refused_by_both_loaders(pack: Callable[..., tuple[Path, Path]]) -> None:
    """Transformers would go on with random weights."""
    packed, _ = pack(Style(where=""))
    with pytest.raises(LoadFailed, match="Nothing says how"):
        load(packed)
    with pytest.raises(LoadFailed, match="lack"):
        load(packed, transformers_hf.SPEC)
    assert "nothing says how" in read_model(packed).problem


@pytest.mark.parametrize(("name", "value", "words"), [
    ("model.layers.1.mlp.up_proj.qzeros", None, r"up_proj\.qzeros is missing"),
    ("model.layers.0.input_layernorm.weight", None, "lack 1 tensors"),
    ("model.layers.0.mlp.up_proj.g_idx", np.full(256, 99, np.int32), "g_idx does not give"),
    ("model.layers.0.mlp.up_proj.extra", np.zeros(3, np.float16), "no part of a GPTQ layer"),
    ("model.layers.9.mlp.up_proj.qweight", np.zeros((32, 512), np.int32), r"layers\.9\.mlp\.up_proj has no linear layer"),
    ("model.norm.weight", np.zeros(7, np.float16), r"shape \(7,\)"),
    ("model.strange.weight", np.zeros(7, np.float16), "no place")])
def test_tensors_that_do_not_fit_are_named(pack: Callable[..., tuple[Path, Path]], tmp_path: Path, name: str,
                                           value: np.ndarray | None, words: str) -> None:
    packed, _ = pack(Style())

    def change(tensors: dict[str, np.ndarray]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    with pytest.raises(LoadFailed, match=words):
        load(edited(packed, tmp_path / "edited", change))


def test_layers_that_the_kernel_cannot_take_are_unpacked(source: Path, tmp_path: Path) -> None:
    """Groups of one shape whose rows are unevenly many: act-order of some old quantizers."""
    pack_model(source, tmp_path / "packed", tmp_path / "plain", Style())
    from safetensors.numpy import load_file

    name = "model.layers.0.mlp.up_proj.g_idx"

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name][40] = 0

    uneven = edited(tmp_path / "packed", tmp_path / "uneven", change)
    assert load_file(uneven / "model.safetensors")[name].tolist().count(0) == 33
    exact = rows_of(load(uneven, kernel="dense", dtype="float32"))
    assert abs(rows_of(load(uneven, dtype="float32")) - exact).max() < 0.05 * abs(exact).max()


def test_a_load_is_told_of_and_cancelled_in_between(pack: Callable[..., tuple[Path, Path]]) -> None:
    packed, _ = pack(Style())
    told: list[float] = []

    def cancel(fraction: float, text: str) -> None:
        told.append(fraction)
        if fraction > 0.5:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        load(packed, progress=cancel)
    assert told == sorted(told) and len(told) > 5


def test_several_widths_go_to_gptqmodel() -> None:
    packing = Packing("gptq", 4, 128, 1, varies=True)
    assert gptq.choose_kernel("auto", packing, "cpu") == "gptqmodel"
    assert gptq.choose_kernel("auto", replace(packing, varies=False), "cuda") == "gptqmodel"
    with pytest.raises(LoadFailed, match="several widths"):
        gptq.choose_kernel("int4", packing, "cpu")


def test_pickled_and_unpacked_models_are_not_this_loaders(source: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="unpacked models load with Transformers"):
        load(source)
    shutil.copytree(source, tmp_path / "bin", ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    (tmp_path / "bin" / "quantize_config.json").write_text('{"bits": 4, "group_size": 32}')
    (tmp_path / "bin" / "gptq_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(LoadFailed, match="pickle"):
        load(tmp_path / "bin")


@needs_shared
def test_a_checkpoint_of_other_people_gives_nearly_the_replies_of_its_source() -> None:
    packed = load(SHARED / "models" / "babyllama-tok361-gptq-4bit-32g", dtype="float32")
    plain = load(SHARED / "models" / "babyllama-tok361-hf-f32", transformers_hf.SPEC)
    prompt = plain.tokenize("Once upon a time there was a little girl who lived near the sea.", control=False)
    scores = [float(np.nanmean(loader.score(prompt))) for loader in (packed, plain)]
    assert abs(scores[0] - scores[1]) < 0.3
    for loader in (packed, plain):
        loader.close()
