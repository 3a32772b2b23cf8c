"""The Model tab's sentences: what a quantization's name means, what loading takes, which variant fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modules import registry
from modules.core.loader import ModelFile
from modules.models import explain
from modules.models.memory import default_options, forecast
from modules.models.naming import family
from modules.store.headers import read_model
from tests.hf_play import SHARED, needs_shared

SPECS = registry.find_loaders()
LLAMA_8B = ModelFile("Llama-8B-Q8_0", "", "gguf", 8_540_000_000, "llama", 8_030_000_000, 131_072, "Q8_0", layers=32, kv_heads=8,
                     head_dim=128)
Q4 = replace(LLAMA_8B, name="Llama-8B-Q4_K_M", size_bytes=4_920_000_000, quantization="Q4_K_M")
Q2 = replace(LLAMA_8B, name="llama-8b.Q2_K", size_bytes=3_180_000_000, quantization="Q2_K")
OTHER = replace(LLAMA_8B, name="Llama-8B-Instruct-Q4_K_M")


@pytest.mark.parametrize(("name", "bits", "words", "loss"), [
    ("Q4_K_M", 4, "4-bit, medium K-quant", "small loss"), ("Q2_K", 2, "2-bit, K-quant", "strong loss"),
    ("Q3_K_XL", 3, "3-bit, very large K-quant", "noticeable loss"), ("Q8_0", 8, "8-bit", "practically no loss"),
    ("Q4_0", 4, "4-bit, the old kind", "some loss"), ("IQ2_XXS", 2, "2-bit, smallest i-quant", "strong loss"),
    ("IQ4_NL", 4, "4-bit, evenly spread i-quant", "small loss"), ("F16", 16, "16-bit, not quantized", ""),
    ("MXFP4", 4, "4-bit floating point", "small loss"), ("TQ1_0", 2, "ternary, for models trained so", ""),
    ("GPTQ 4-bit g128", 4, "4-bit GPTQ, groups of 128", "small loss"), ("AWQ 4-bit", 4, "4-bit AWQ", "small loss"),
    ("bnb 8-bit", 8, "8-bit bitsandbytes", "practically no loss"), ("EXL2 4.5-bit", 4.5, "4.5-bit EXL2", "small loss"),
    ("odd", 0, "odd", ""), ("", 0, "", ""), ("Q9_K_M", 9, "9-bit, medium K-quant", "")])
def test_a_quantizations_name_is_put_into_words(name: str, bits: float, words: str, loss: str) -> None:
    assert explain.quantization(name) == explain.Quantization(bits, words, loss)


def test_every_type_that_llama_cpp_can_write_has_words() -> None:
    from modules.store.gguf_header import FILE_TYPES

    silent = [name for name in FILE_TYPES.values() if not explain.quantization(name).bits]
    assert silent == [], "of these the newcomer would read the bare name"


def test_a_file_is_one_sentence() -> None:
    assert explain.sentence(Q4) == "4-bit, medium K-quant: 4.9 GB, small loss."
    assert explain.sentence(replace(Q4, quantization="F16")) == "16-bit, not quantized: 4.9 GB."
    assert explain.sentence(replace(Q4, quantization="")) == "4.9 GB."
    assert explain.sentence(replace(Q4, problem="It is broken.")) == "It is broken."
    assert "plays a text" in explain.sentence(ModelFile("echo", "", "echo"))


def test_a_newcomer_reads_what_the_model_is_for() -> None:
    tale = replace(Q4, name="org/Tale-Mistral-7B-Q4_K_M")
    assert explain.introduction(tale) == "A fine-tune of Mistral with 8.0 billion parameters, without a chat template of its own."
    assert explain.introduction(replace(tale, chat_template="{{ x }}")).endswith("parameters, made for chat.")
    assert explain.introduction(replace(Q4, name="Llama-8B-Instruct")) == "A model with 8.0 billion parameters, made for chat."
    base = replace(Q4, name="Llama-135M-base", n_params=0, chat_template="{{ x }}")
    assert explain.introduction(base).startswith("A model with 135.0 million parameters: a base model, which continues text")
    assert explain.introduction(replace(Q4, name="x", n_params=0)) == "A model, without a chat template of its own."
    assert explain.introduction(replace(Q4, problem="broken")) == ""


@pytest.mark.parametrize(("name", "wanted"), [
    ("TheBloke/Llama-2-7B-Chat-GGUF/llama-2-7b-chat.Q4_K_M", "llama-2-7b-chat"), ("Llama-2-7b-Chat-GPTQ", "llama-2-7b-chat"),
    ("llama-2-7b-chat-AWQ", "llama-2-7b-chat"), ("Llama-2-7B-chat-4bit-32g-actorder", "llama-2-7b-chat"),
    ("llama-2-7b-chat-hf", "llama-2-7b-chat"), ("starter/starter-Q8_0", "starter"), ("starter", "starter"),
    ("Qwen3-4B-F16.gguf", "qwen3-4b"), ("mistral-exl2-4.0bpw", "mistral")])
def test_variants_of_a_model_have_one_family(name: str, wanted: str) -> None:
    assert family(name) == wanted


def test_variants_are_those_of_one_family_and_size() -> None:
    broken, larger = replace(Q2, name="Llama-8B-Q3_K_M", problem="cut off"), replace(Q4, name="Llama-8B-Q6_K", n_params=9 * 10**9)
    assert explain.variants(Q4, [Q2, LLAMA_8B, OTHER, Q4, broken, larger]) == [LLAMA_8B, Q4, Q2]


def test_advice_gives_the_forecast_and_the_largest_variant_that_fits() -> None:
    files = [LLAMA_8B, Q4, Q2]
    specs = {file.name: SPECS["llama_cpp"] for file in files}

    def said(file: ModelFile, free: int, vram: int = 0) -> str:
        return explain.advice(file, files, specs, free, vram)

    needs = forecast(Q4, default_options(Q4, SPECS["llama_cpp"], 24 * 10**9, 0))
    text = said(Q4, 24 * 10**9)
    assert text.startswith(f"Loading it takes about {needs.total_bytes / 1e9:.1f} GB: weights 4.9 GB, a context of 16,384 tokens")
    assert "24.0 GB of memory is free. The largest of its 3 variants here that fits is Llama-8B-Q8_0." in text
    assert "It is the largest of its 3 variants here that fits." in said(LLAMA_8B, 24 * 10**9)
    assert "too little" in said(LLAMA_8B, 7 * 10**9) and "that fits is Llama-8B-Q4_K_M" in said(LLAMA_8B, 7 * 10**9)
    assert "Of its 3 variants here none fits." in said(Q2, 10**9)
    assert "and 9.0 GB on the GPU are free" in said(Q4, 10**9, 9 * 10**9)
    assert "variants" not in explain.advice(Q4, [Q4, OTHER], specs, 24 * 10**9, 0)
    assert explain.advice(ModelFile("echo", "", "echo"), [], {}, 1, 1) == ""


@needs_shared
def test_the_forms_of_one_real_model_are_found_together() -> None:
    folder = SHARED / "models"
    files = [replace(read_model(path), name=path.stem if path.is_file() else path.name) for path in sorted(folder.iterdir())
             if path.is_dir() or path.suffix == ".gguf"]
    source = next(file for file in files if file.name == "babyllama-tok361-Q8_0")
    found = {file.name for file in explain.variants(source, files)}
    assert {"babyllama-tok361-F16", "babyllama-tok361-Q4_0", "babyllama-tok361-gptq-4bit-32g"} <= found
    assert "stories260K-F16" not in found
    assert all(Path(file.path).exists() for file in files)
