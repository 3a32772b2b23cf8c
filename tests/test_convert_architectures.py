"""Each architecture that the converter knows: llama.cpp's logits equal Transformers', and what would differ is refused."""

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

torch = pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "vocab_size": 768, "max_position_embeddings": 512,
         "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
GEMMA = {"query_pre_attn_scalar": 16, "sliding_window": 32}
MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"attention_bias": True}, "MistralForCausalLM": {"sliding_window": None}, "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {}, "GemmaForCausalLM": {}, "Gemma2ForCausalLM": GEMMA, "Gemma3ForCausalLM": GEMMA}
CONFIGS = {"Gemma3ForCausalLM": "Gemma3TextConfig"}
IDS = [int(n) for n in np.random.default_rng(3).integers(5, 700, 96)]  # longer than Gemma's windows here


def model_folder(folder: Path, named: str, **more: Any) -> Path:
    """A random model of this architecture with weights that matter everywhere, biases and norms too, and the tiny tokenizer."""
    import transformers

    torch.manual_seed(5)
    config = getattr(transformers, CONFIGS.get(named, named.replace("ForCausalLM", "Config")))
    model = getattr(transformers, named)(config(**{**SIZES, **MODELS[named], **more}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
            elif "embed" in name or "lm_head" in name:
                weight.copy_(torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) * weight.shape[1] ** -0.5)
    model.save_pretrained(folder)
    for path in tiny_hf(folder.parent / "tokenizer").glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def logits_of_gguf(path: Path) -> np.ndarray:
    from tests.llama_play import load

    model = load(path, context=512, threads=1, flash_attention="off", kv_type_k="f32", kv_type_v="f32")
    try:
        return model.logits(IDS, 0, len(IDS))
    finally:
        model.close()


@pytest.mark.parametrize("named", ARCHITECTURES)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, named: str) -> None:
    import transformers

    folder = model_folder(tmp_path / "model", named)
    convert(folder, tmp_path / "model.gguf", "f32")
    found = logits_of_gguf(tmp_path / "model.gguf")
    model = getattr(transformers, named).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        wanted = model(torch.tensor([IDS])).logits[0].numpy()
    spread = float(wanted.std())
    assert spread > 0.1, "or anything would be equal"
    assert float(abs(found - wanted).max()) < 2e-3 * max(1.0, spread)


@pytest.mark.parametrize(("named", "more", "words"), [
    ("Qwen2ForCausalLM", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2}, "windowed layers"),
    ("Qwen3ForCausalLM", {"hidden_act": "gelu"}, "the activation 'gelu'"),
    ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 20}, "an attention scale of 20 with heads of 16"),
    ("Gemma2ForCausalLM", {"layer_types": ["full_attention"] * 7}, "windowed layers in another order"),
    ("Gemma3ForCausalLM", {"final_logit_softcapping": 30.0}, "soft caps"),
    ("Gemma3ForCausalLM", {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
                                               "full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
     "rotary base of 5000"),
    ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "'yarn' cannot be conv"),
])
def test_what_llama_cpp_would_compute_otherwise_is_refused(named: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadFailed, match=words):
        read_shape({"architectures": [named], **SIZES, **MODELS[named],
                    **({"hidden_activation": "gelu_pytorch_tanh"} if named.startswith("Gemma") else {}), **more})


def test_a_windowed_mistral_is_told_its_window_as_its_context() -> None:
    shape = read_shape({"architectures": ["MistralForCausalLM"], **SIZES, "sliding_window": 128})
    assert (shape.context, shape.window) == (128, 0)


def test_a_tensor_that_the_architecture_does_not_have_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "Qwen3ForCausalLM")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(LoadFailed, match=r"layers\.0\.self_attn\.k_norm\.weight is none that a model of the architecture llama"):
        convert(folder, tmp_path / "x.gguf")
