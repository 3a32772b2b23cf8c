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


def test_the_text_part_of_a_model_with_pictures_is_the_same_model(tmp_path: Path) -> None:
    """Gemma 3's larger models come with a vision tower, and with a config that leaves out what is usual."""
    from safetensors.numpy import load_file, save_file

    name, settings, _ = CASES["gemma3"]
    plain = model_folder(tmp_path / "plain", name, settings)
    convert(plain, tmp_path / "plain.gguf", "f32")
    for prefix in ("language_model.", "model.language_model."):
        folder = tmp_path / "pictures"
        model_folder(folder, name, settings)
        inner = prefix == "model.language_model."
        tensors = {f"{prefix}{key.removeprefix('model.') if inner else key}": value
                   for key, value in load_file(plain / "model.safetensors").items()}
        save_file({**tensors, "vision_tower.x.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
        config = json.loads((plain / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"architectures": ["Gemma3ForConditionalGeneration"],
                                                        "text_config": config, "vision_config": {}}))
        convert(folder, tmp_path / "pictures.gguf", "f32")
        assert np.array_equal(our_logits(tmp_path / "pictures.gguf"), our_logits(tmp_path / "plain.gguf"))


@pytest.mark.parametrize(("name", "changed", "said"), [
    ("Qwen2", {"use_sliding_window": True}, "sliding window"),
    ("Qwen3", {"layer_types": ["sliding_attention"]}, "sliding window"),
    ("Qwen2", {"rope_parameters": {**YARN, "beta_fast": 16}}, "beta_fast"),
    ("Qwen2", {"rope_parameters": LLAMA3}, "llama3"), ("Llama", {"rope_parameters": YARN}, "yarn"),
    ("Llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "0.5 of a head"),
    ("Llama", {"hidden_act": "gelu"}, "gelu"), ("Llama", {"num_attention_heads": 0}, "config.json"),
    ("Llama", {"num_hidden_layers": "many"}, "config.json"),
    ("Gemma2", {**GEMMA, "query_pre_attn_scalar": 144}, "query_pre_attn_scalar is 144"),
    ("Gemma2", {**GEMMA, "layer_types": ["full_attention"] * 7}, "alternate"),
    ("Gemma3", {**GEMMA, "sliding_window_pattern": 2}, "order"), ("Gemma3", {**GEMMA, "rope_local_base_freq": 5000.0}, "5000"),
    ("Gemma3", {**GEMMA, "use_bidirectional_attention": True}, "both ways")])
def test_what_llama_cpp_computes_otherwise_is_refused(name: str, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        read_shape({"architectures": [f"{name}ForCausalLM"], "vocab_size": 300, **SIZES, **changed})


def test_a_window_is_the_context_of_a_mistral(tmp_path: Path) -> None:
    """llama.cpp gives it no window, so it is right up to there and not beyond."""
    about = {"architectures": ["MistralForCausalLM"], "vocab_size": 300, **SIZES}
    assert read_shape({**about, "sliding_window": 100}).context == 100
    assert read_shape({**about, "sliding_window": None}).context == SIZES["max_position_embeddings"]


def test_missing_and_strange_tensors_are_named(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_hf(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for key in ("model.layers.1.mlp.up_proj.weight", "lm_head.weight"):
        save_file({name: value for name, value in tensors.items() if name != key}, folder / "model.safetensors")
        with pytest.raises(LoadFailed, match=r"lacks 1 of its tensors, such as (blk\.1\.ffn_up|output)\.weight"):
            convert(folder, tmp_path / "x.gguf")
    save_file({**tensors, "model.layers.9.mlp.up_proj.weight": tensors["lm_head.weight"]}, folder / "model.safetensors")
    with pytest.raises(LoadFailed, match="none of a llama model"):
        convert(folder, tmp_path / "x.gguf")
    assert not list(tmp_path.glob("x.gguf*"))


def test_files_beside_those_of_the_index_are_left_alone(tmp_path: Path) -> None:
    """Mistral's own consolidated.safetensors holds the same weights under other names."""
    folder = tiny_hf(tmp_path / "model")
    convert(folder, tmp_path / "plain.gguf")
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    convert(folder, tmp_path / "beside.gguf")
    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "beside.gguf").read_bytes()


def test_bf16_keeps_what_a_bf16_folder_holds(tmp_path: Path) -> None:
    import gguf
    folder = model_folder(tmp_path / "model", "Qwen3", {})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    convert(folder, tmp_path / "model.gguf", "bf16")
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    stored = gguf.quants.dequantize(read["blk.0.ffn_up.weight"].data, gguf.GGMLQuantizationType.BF16)
    assert np.array_equal(stored, model.model.layers[0].mlp.up_proj.weight.detach().float().numpy())
