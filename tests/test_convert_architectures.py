"""Each architecture that is converted: llama.cpp's logits from the GGUF file against Transformers' float32 logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.core.errors import LoadFailed
from modules.models.architectures import ARCHITECTURES
from modules.models.convert import convert
from modules.models.shape import read_shape
from tests.tiny_models import tiny_hf

llama_cpp = pytest.importorskip("llama_cpp")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = [1, 270, 271, 272, 50, 60, 7, 250, 33, 34, 35, 120, 121, 122, 200, 201, 9, 8, 7, 6, 5, 210, 211, 212, 213]
SIZES: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 48, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "bos_token_id": 0,
    "eos_token_id": 2}
GEMMA = {"query_pre_attn_scalar": 48, "sliding_window": 8, "tie_word_embeddings": True}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LOCAL = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
# Class, its own settings, and the largest difference of two logits allowed, whose standard deviation is about 3. SiLU and ggml's
# GELU: the latter looks its values up in a table of half-precision numbers.
CASES: dict[str, tuple[str, dict[str, Any], float]] = {
    "llama": ("Llama", {}, 1e-4),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}, 1e-4),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}}, 1e-4),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}, 1e-4),
    "mistral": ("Mistral", {"sliding_window": None}, 1e-4),
    "mistral-window": ("Mistral", {"sliding_window": 32}, 1e-4),
    "qwen2": ("Qwen2", {"head_dim": 32}, 1e-4),
    "qwen2-tied": ("Qwen2", {"head_dim": 32, "tie_word_embeddings": True}, 1e-4),
    "qwen2-yarn": ("Qwen2", {"head_dim": 32, "rope_parameters": YARN}, 1e-4),
    "qwen3": ("Qwen3", {}, 1e-4),
    "qwen3-yarn": ("Qwen3", {"rope_parameters": YARN}, 1e-4),
    "gemma": ("Gemma", {"tie_word_embeddings": True}, 1e-2),
    "gemma2": ("Gemma2", GEMMA, 1e-2),
    "gemma3": ("Gemma3", {**GEMMA, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, **LOCAL}},
               1e-2),
    "gemma3-linear": ("Gemma3", {**GEMMA, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}, **LOCAL}}, 1e-2)}


def model_folder(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """A model of this architecture with random weights and biases, saved as Transformers saves it, with the tiny tokenizer."""
    tiny_hf(folder)
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink()
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    config = config_class(**{**SIZES, "vocab_size": vocab, **settings})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float()
    with torch.no_grad():
        for part, values in model.named_parameters():
            if values.ndim == 1:
                values.copy_(torch.randn_like(values) * 0.2 + (0.0 if "bias" in part or name.startswith("Gemma") else 1.0))
            else:
                values.copy_(torch.randn_like(values) * (3.0 if "embed" in part or "lm_head" in part else 1.0)
                             / values.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    return folder


def their_logits(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0].numpy()


def our_logits(path: Path) -> np.ndarray:
    llama = llama_cpp.Llama(str(path), n_ctx=512, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)
    llama.eval(PROMPT)
    return np.array(llama.scores[:len(PROMPT)], np.float32)


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, case: str) -> None:
    name, settings, allowed = CASES[case]
    folder = model_folder(tmp_path / "model", name, settings)
    convert(folder, tmp_path / "model.gguf", "f32")
    theirs, ours = their_logits(folder), our_logits(tmp_path / "model.gguf")
    assert theirs.std() > 0.5, "logits that hardly differ would show nothing"
    assert float(np.abs(theirs - ours).max()) < allowed


def test_every_architecture_is_tried() -> None:
    assert {f"{name}ForCausalLM" for name, _, _ in CASES.values()} | {"Gemma3ForConditionalGeneration"} == set(ARCHITECTURES)
