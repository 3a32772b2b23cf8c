"""The memory forecast and the load options that follow from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules import registry
from modules.core.knobs import Knob
from modules.core.loader import LoaderSpec, ModelFile
from modules.engine import Engine
from modules.models import memory
from modules.models.catalog import Catalog
from modules.models.forecast import computes_bfloat16, dtype_of, forecast, kv_bytes_per_token

from .running_app import ROOT
from .tiny_models import tiny_gguf, tiny_hf

GB = 1 << 30
LLAMA = ModelFile("l", "l", "gguf", 5 * GB, "llama", 8_000_000_000, 131_072, layers=32, kv_heads=8, head_dim=128)


def spec(**options: int | str) -> LoaderSpec:
    knobs = {name: Knob("int" if isinstance(value, int) else "str", value, name, name) for name, value in options.items()}
    return LoaderSpec("x", "X", lambda _: 1.0, lambda *_: None, options=knobs)  # type: ignore[arg-type,return-value]


def test_a_token_of_kv_cache_is_layers_times_heads_times_dimension() -> None:
    """Llama 3 8B at f16: 32 layers * 8 heads * 128 * 2 tensors * 2 bytes = 131,072 bytes a token."""
    assert kv_bytes_per_token(LLAMA) == 131_072
    assert kv_bytes_per_token(LLAMA, "q8_0", "q8_0") == 131_072 * 34 / 64


def test_the_forecast_adds_up() -> None:
    needs = forecast(LLAMA, {"context": 4096, "slots": 2})
    assert needs.weights_bytes == 5 * GB and needs.kv_bytes == 4096 * 131_072, "slots of a GGUF model share one context"
    assert needs.total_bytes == needs.weights_bytes + needs.kv_bytes + needs.compute_bytes
    assert forecast(replace(LLAMA, format="safetensors"), {"context": 4096, "slots": 2}).kv_bytes == 2 * needs.kv_bytes
    assert forecast(LLAMA, {"context": 4096, "kv_type_k": "q8_0", "kv_type_v": "q8_0"}).kv_bytes < needs.kv_bytes
    hf = replace(LLAMA, format="safetensors")
    assert forecast(hf, {"dtype": "float32", "quantization": "none"}).weights_bytes == 32_000_000_000
    assert forecast(hf, {"dtype": "bfloat16", "quantization": "4bit"}).weights_bytes < 5 * GB
    outside = replace(hf, n_outside=1_000_000_000)  # stays as it is: embeddings and the output
    assert forecast(outside, {"dtype": "float32", "quantization": "8bit"}).weights_bytes == 4_000_000_000 + 7_070_000_000
    assert forecast(ModelFile("e", "", "echo"), {"context": 4096}).total_bytes == 0


@pytest.mark.parametrize(("stored", "n_params", "options", "each"), [
    ("BF16", 8_000_000_000, {"dtype": "auto"}, 2), ("F32", 8_000_000_000, {"dtype": "auto"}, 4),
    ("BF16", 100_000_000, {"dtype": "auto"}, 4), ("BF16", 100_000_000, {"dtype": "auto", "device": "cuda"}, 2),
    ("F16", 8_000_000_000, {"dtype": "float32"}, 4)])
def test_pytorchs_number_format_counts_for_weights_and_cache(monkeypatch: pytest.MonkeyPatch, stored: str, n_params: int,
                                                             options: dict[str, str], each: int) -> None:
    monkeypatch.setattr("modules.models.forecast.computes_bfloat16", lambda: True)
    file = replace(LLAMA, format="safetensors", quantization=stored, n_params=n_params)
    needs = forecast(file, {"context": 1000, "slots": 1, **options})
    assert needs.weights_bytes == each * n_params
    assert needs.kv_bytes == 1000 * 32 * 8 * 128 * 2 * each


def test_a_processor_without_bfloat16_takes_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.models.forecast.computes_bfloat16", lambda: False)
    file = replace(LLAMA, format="safetensors", quantization="BF16")
    assert forecast(file, {"dtype": "auto"}).weights_bytes == 4 * file.n_params


@pytest.mark.parametrize("asked", ["auto", "bfloat16", "float32"])
def test_the_loader_chooses_the_number_format_that_was_forecast(tmp_path: Path, asked: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig

    from loaders.transformers_parts.checkpoint import inspect
    from loaders.transformers_parts.model import choose_dtype

    assert computes_bfloat16() == (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    for folder in (tiny_hf(tmp_path / "tiny"), ROOT / "models" / "starter"):
        file = Catalog([folder.parent]).find(folder.name)
        chosen = choose_dtype(asked, inspect(str(folder)), AutoConfig.from_pretrained(folder), "cpu")
        assert str(chosen) == f"torch.{dtype_of(file, {'dtype': asked})}"


def test_scores_count_where_attention_is_not_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.models.forecast.may_have_gpu", lambda: True)
    file = replace(LLAMA, heads=32, hidden_size=4096, feed_forward=14_336)
    plain = forecast(file, {"context": 8192, "flash_attention": "off"}).compute_bytes
    assert plain - forecast(file, {"context": 8192}).compute_bytes == 512 * 32 * 8192 * 4
    monkeypatch.setattr("modules.models.forecast.may_have_gpu", lambda: False)
    on_cpu = {"context": 8192, "threads": 16}  # 16 cores compute 35 tokens of 8 B parameters in a piece's time
    assert forecast(file, on_cpu | {"flash_attention": "off"}).compute_bytes - forecast(file, on_cpu).compute_bytes == (
        64 * 32 * 8192 * 4)
    small = replace(file, n_params=500_000_000)
    assert forecast(small, on_cpu).compute_bytes == forecast(replace(file, n_params=0), on_cpu).compute_bytes, "a whole batch"


async def test_many_who_look_at_once_have_the_memory_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    path = tiny_gguf(tmp_path / "models" / "tiny.gguf")
    engine = Engine(Catalog([path.parent]), registry.find_loaders(), log_dir=tmp_path)
    try:
        held = await engine.load("tiny", options={"context": 512, "threads": 1})
        asked: list[int] = []
        monkeypatch.setattr("modules.worker.memory_use.bytes_of", lambda pid: asked.append(pid) or held.facts.base_bytes + 5)
        assert await asyncio.gather(*(held.measured() for _ in range(4))) == [5] * 4
        assert await held.measured() == 5 and asked == [held.worker.pid]
        monkeypatch.setattr("modules.engine.models.MEASURED_SECONDS", 0.0)
        assert await held.measured() == 5 and len(asked) == 2
    finally:
        await engine.close()


async def test_what_a_loaded_model_takes_is_measured_without_its_libraries(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = tiny_gguf(tmp_path / "models" / "tiny.gguf")
    engine = Engine(Catalog([path.parent]), registry.find_loaders(), log_dir=tmp_path)
    try:
        small = await engine.load("tiny", options={"context": 1024, "threads": 1})
        assert small.facts.base_bytes > 10_000_000, "Python, llama.cpp"
        kv_bytes = 2 * 1024 * small.file.layers * small.file.kv_heads * small.file.head_dim * 2
        taken = await small.measured()
        assert path.stat().st_size / 2 + kv_bytes / 2 < taken < path.stat().st_size + kv_bytes + 40_000_000
        assert small.forecast_bytes == forecast(small.file, small.options).total_bytes
        large = await engine.load("tiny", options={"context": 65_536, "threads": 1})
        assert 0.8 < (await large.measured() - taken) / (63 * kv_bytes) < 1.2
    finally:
        await engine.close()


def test_only_options_that_the_loader_has_are_chosen() -> None:
    assert memory.default_options(LLAMA, spec(), 64 * GB, 0) == {}
    chosen = memory.default_options(LLAMA, spec(context=4096, slots=1, gpu_layers=0, threads=0), 64 * GB, 0)
    assert chosen == {"context": 16_384, "threads": memory.physical_cores()}


def test_the_context_is_what_was_trained_or_fits() -> None:
    small = ModelFile("s", "s", "gguf", 1_000_000, trained_context=512, layers=5, kv_heads=4, head_dim=8)
    assert memory.default_options(small, spec(context=0), 8 * GB, 0)["context"] == 512
    tight = memory.default_options(LLAMA, spec(context=0), 7 * GB, 0)["context"]
    assert tight % 256 == 0 and 512 <= tight < 16_384
    assert forecast(LLAMA, {"context": tight}).total_bytes <= 7 * GB
    assert memory.default_options(LLAMA, spec(context=0), 1 * GB, 0)["context"] == 512


@given(free=st.integers(0, 200 * GB), vram=st.integers(0, 80 * GB), slots=st.integers(1, 8), trained=st.integers(0, 1 << 20),
       layers=st.integers(0, 100), size=st.integers(0, 100 * GB))
def test_the_chosen_options_are_within_their_bounds(free: int, vram: int, slots: int, trained: int, layers: int,
                                                    size: int) -> None:
    file = ModelFile("m", "m", "gguf", size, trained_context=trained, layers=layers, kv_heads=8, head_dim=128)
    chosen = memory.default_options(file, spec(context=0, slots=slots, gpu_layers=0), free, vram)
    assert chosen["context"] % 256 == 0 and 256 <= chosen["context"] <= 16_384
    assert chosen["context"] <= max(trained, 256) or not trained
    assert ("gpu_layers" in chosen) == bool(vram and layers)
    assert 0 <= chosen.get("gpu_layers", 0) <= layers + 1


def test_layers_go_to_the_gpu_as_far_as_they_fit() -> None:
    chosen = [memory.default_options(LLAMA, spec(context=4096, gpu_layers=0), 64 * GB, vram)["gpu_layers"]
              for vram in (1 * GB, 3 * GB, 5 * GB, 80 * GB)]
    assert 0 <= chosen[0] < chosen[1] < chosen[2] < 33 and chosen[3] == 33


@pytest.mark.parametrize(("limit", "used", "expected"), [
    ("max", "5", None), ("1000", "400", 700), ("1000", "2000", 0), ("x", "1", None)])
def test_a_control_groups_limit_counts(tmp_path: Path, limit: str, used: str, expected: int | None) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100\n")
    assert memory._cgroup_free(tmp_path) == expected


def test_the_machine_is_read_without_an_error() -> None:
    assert memory.free_ram() > 0 and memory.free_vram() >= 0 and memory.physical_cores() >= 1
