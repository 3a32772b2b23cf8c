"""The architectures that can be written as GGUF: their names there, their tensors, and what is changed in the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
              "post_feedforward_layernorm": "post_ffw_norm"}


@dataclass(frozen=True)
class Architecture:
    """name: in GGUF. layer: its tensors' names there by Transformers' within a layer.

    rotates_neighbours: llama.cpp rotates neighbouring rows of Q and K, Transformers halves, so the rows are reordered.
    norms_from_one: the stored norm weights are differences from 1, which llama.cpp wants added.
    is_gemma: soft caps, windows and rotary embeddings of their own go into the header.
    """

    name: str
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    rotates_neighbours: bool = False
    norms_from_one: bool = False
    is_gemma: bool = False


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", rotates_neighbours=True),
    "MistralForCausalLM": Architecture("llama", rotates_neighbours=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3", {**LAYER, **QK_NORMS}),
    "GemmaForCausalLM": Architecture("gemma", norms_from_one=True, is_gemma=True),
    "Gemma2ForCausalLM": Architecture("gemma2", {**LAYER, **FOUR_NORMS}, norms_from_one=True, is_gemma=True),
    "Gemma3ForCausalLM": Architecture("gemma3", {**LAYER, **FOUR_NORMS, **QK_NORMS}, norms_from_one=True, is_gemma=True),
}


def gguf_name(architecture: Architecture, name: str) -> str:
    """The tensor's name in GGUF; "" for one that the architecture does not have."""
    stem, _, suffix = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{suffix}"
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        if part in architecture.layer and number.isdigit():
            return f"blk.{int(number)}.{architecture.layer[part]}.{suffix}"
    return ""
